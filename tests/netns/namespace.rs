//! Network namespaces that live as long as their guard, and the pair that most tests use.

use std::fs::File;
use std::process::{Command, Output};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Hardware address of the router's eth0.
pub const ROUTER_MAC: &str = "02:00:00:00:00:01";
/// Hardware address of the server's eth0.
pub const SERVER_MAC: &str = "02:00:00:00:00:02";

/// A network namespace of its own, deleted when dropped, after a failed test too. Its loopback is up.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes `<prefix>-<role>-<process id>`.
    pub fn new(prefix: &str, role: &str) -> Self {
        let name = format!("{prefix}-{role}-{}", std::process::id());
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let namespace = Namespace { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip <arguments>` (split at blanks) in the namespace and returns what it printed.
    pub fn ip(&self, arguments: &str) -> String {
        let output = succeed(Command::new("ip").args(["-n", &self.name]).args(arguments.split(' ')));
        String::from_utf8(output.stdout).expect("ip prints text")
    }

    /// Runs `body` on a thread of its own inside the namespace, with a tokio runtime that stays on that thread.
    pub fn run<T: Send>(&self, body: impl AsyncFnOnce() -> T + Send) -> T {
        let inside = || {
            let namespace = File::open(format!("/run/netns/{}", self.name)).expect("a namespace");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("to enter it");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(body())
        };
        let finished = thread::scope(|scope| scope.spawn(inside).join());
        finished.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("network namespace {} is left behind", self.name);
        }
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
    /// Makes both namespaces as `<prefix>-<test>-…` and joins them.
    pub fn new(prefix: &str, test: &str) -> Self {
        let router = Namespace::new(prefix, &format!("{test}-r"));
        let server = Namespace::new(prefix, &format!("{test}-s"));
        router.ip(&format!(
            "link add eth0 address {ROUTER_MAC} type veth peer name eth0 address {SERVER_MAC} netns {}",
            server.name()
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
        Pair { router, server }
    }
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the command starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}
