//! Network namespaces, and two that are joined.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::rig::wait_until;

/// Hardware address of the router's eth0.
pub const ROUTER_MAC: &str = "02:00:00:00:00:01";
/// Hardware address of the server's eth0.
pub const SERVER_MAC: &str = "02:00:00:00:00:02";

/// A network namespace. It is held by a descriptor alone, so the kernel removes it, with all that is in it, however the
/// test ends.
pub struct Namespace(File);

impl Drop for Namespace {
    /// What daemons that were killed have left attached to its interfaces goes as well.
    fn drop(&mut self) {
        let Ok(inode) = self.0.metadata().map(|file| file.ino()) else { return };
        let ours = format!("xlvs-{inode}-");
        for entry in fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&ours) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Namespace {
    /// A new one with its loopback interface up.
    pub fn new() -> Self {
        let file = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|error| {
                panic!("cannot make a network namespace: {error}; the netns tests need root")
            });
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let namespace = Namespace(file);
        namespace.run("ip link set lo up");
        namespace
    }

    /// The one that `ip netns` knows by this name. Whoever made it removes it.
    pub fn named(name: &str) -> Self {
        Namespace(File::open(format!("/run/netns/{name}")).unwrap())
    }

    /// Does `body` inside, on a thread of its own. Threads and processes that it starts are inside too.
    pub fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                    body()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Does `body` inside, on a thread of its own with a tokio runtime that stays on that thread.
    pub fn block_on<T: Send>(&self, body: impl AsyncFnOnce() -> T + Send) -> T {
        self.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(body())
        })
    }

    /// Runs a command inside, which must succeed; returns what it said.
    pub fn run(&self, command: &str) -> String {
        let (ok, text) = self.try_run(command);
        assert!(ok, "`{command}`: {text}");
        text
    }

    /// Runs a command inside; returns whether it succeeded and what it said.
    pub fn try_run(&self, command: &str) -> (bool, String) {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let output = self.enter(|| Command::new(program).args(words).output().unwrap());
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs `ip <arguments>` inside, which must succeed; returns what it said.
    pub fn ip(&self, arguments: &str) -> String {
        self.run(&format!("ip {arguments}"))
    }

    /// Waits until an interface that has been set up can send: the kernel puts its queue in place a moment later, and drops
    /// what comes before.
    pub fn await_carrier(&self, interface: &str) {
        let state = || self.ip(&format!("-brief link show dev {interface}"));
        wait_until("the interface can send", || state().split_whitespace().nth(1) == Some("UP"));
    }

    /// A name under which `ip` finds this namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Two namespaces joined by a veth pair, without IPv6 duplicate detection:
/// `router` eth0 10.0.0.1/24, fd00::1/64 — eth0 10.0.0.2/24, fd00::2/64 `server`.
pub struct Pair {
    /// The side under test.
    pub router: Namespace,
    /// The other side.
    pub server: Namespace,
}

impl Pair {
    /// Makes both namespaces and joins them.
    pub fn new() -> Self {
        let (router, server) = (Namespace::new(), Namespace::new());
        router.ip(&format!(
            "link add eth0 address {ROUTER_MAC} type veth peer name eth0 address {SERVER_MAC} netns {}",
            server.path()
        ));
        for (namespace, last) in [(&router, 1), (&server, 2)] {
            // The kernel would add link-local addresses of its own at a time of its own.
            namespace.ip("link set eth0 addrgenmode none");
            namespace.ip("link set eth0 up");
            namespace.ip(&format!("address add 10.0.0.{last}/24 dev eth0"));
            for prefix in ["fd00", "fe80"] {
                namespace.ip(&format!("address add {prefix}::{last}/64 dev eth0 nodad"));
            }
        }
        router.await_carrier("eth0");
        server.await_carrier("eth0");
        Pair { router, server }
    }
}
