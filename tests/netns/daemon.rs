//! The daemon itself, serving the router of a rig.

use std::cell::RefCell;
use std::fs::{self, File};
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xlvs::admin::client::{ControlSocket, SOCKET_VARIABLE, Transport};
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::verdict::PacketTotals;

use super::rig::{Rig, wait_until};

/// Virtual address, on the router's `front`.
pub const VIP: &str = "10.1.0.30";

/// The daemon; killed when dropped.
pub struct Daemon {
    process: RefCell<Child>,
    directory: TempDir,
}

impl Daemon {
    /// Starts it in the rig's router with empty tables and these rules of mangle's PREROUTING. The router has got [`VIP`].
    pub fn start(rig: &Rig, rules: &[&str]) -> Self {
        rig.router.ip(&format!("address add {VIP}/32 dev front"));
        rig.router.run("sysctl -qw net.ipv4.ip_forward=1");
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let rules: String = rules.iter().map(|rule| format!("-A PREROUTING {rule}\n")).collect();
        fs::write(path("iptables"), format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{rules}COMMIT\n")).unwrap();
        let socket = path("control.sock");
        let settings = format!("ports = [\"front\", \"back\"]\ncontrol_socket = \"{}\"\n", socket.display());
        fs::write(path("xlvs.toml"), settings).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xlvs"));
        command.args(["run", "--bare", "--marks"]).arg(path("iptables"));
        command.arg("--settings").arg(path("xlvs.toml")).stderr(File::create(path("log")).unwrap());
        let process = rig.router.enter(|| command.spawn().unwrap());
        let daemon = Daemon { process: RefCell::new(process), directory };
        wait_until("the daemon answers", || daemon.has_ended() || daemon.call(Request::Status).is_some());
        assert!(!daemon.has_ended(), "the daemon has ended: {}", daemon.log());
        daemon
    }

    /// Edits its tables.
    pub fn ipvsadm(&self, arguments: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipvsadm"));
        command.args(arguments.split(' ')).env(SOCKET_VARIABLE, self.directory.path().join("control.sock"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "ipvsadm {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What became of the packets so far.
    pub fn packets(&self) -> PacketTotals {
        let reply = self.call(Request::Status);
        let Some(Reply::Status(status)) = reply else { panic!("{reply:?}: {}", self.log()) };
        status.packets
    }

    /// Ends it as an administrator does; that must go well. Returns what became of the packets.
    pub fn stop(self) -> PacketTotals {
        let packets = self.packets();
        let pid = Pid::from_raw(self.process.borrow().id() as i32);
        kill(pid, Signal::SIGTERM).unwrap();
        wait_until("the daemon ends", || self.has_ended());
        let log = self.log();
        assert!(self.process.borrow_mut().wait().unwrap().success(), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
        packets
    }

    fn call(&self, request: Request) -> Option<Reply> {
        ControlSocket::new(self.directory.path().join("control.sock")).call(request).ok()
    }

    fn has_ended(&self) -> bool {
        self.process.borrow_mut().try_wait().unwrap().is_some()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let process = self.process.get_mut();
        // It may have ended.
        let _ = process.kill();
        let _ = process.wait();
    }
}
