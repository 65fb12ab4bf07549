//! The daemon itself, serving the router of a rig.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;
use xlvs::admin::client::{ControlSocket, SOCKET_VARIABLE, Transport};
use xlvs::director::protocol::{Reply, Request, Status};
use xlvs::ipvs::verdict::PacketTotals;

use super::namespace::Namespace;
use super::rig::{Rig, wait_until};

/// Virtual address, on the router's `front`.
pub const VIP: &str = "10.1.0.30";

/// How a daemon is started.
#[derive(Clone, Copy, Default)]
pub struct Launch<'a> {
    /// `lvs.cf`; empty: none is named.
    pub lvs: &'a str,
    /// Lines of the settings.
    pub settings: &'a str,
    /// More arguments of `xlvs run`.
    pub arguments: &'a [&'a str],
    /// The command by which it is run, such as one that takes capabilities away.
    pub by: &'a [String],
    /// More variables of its environment.
    pub variables: &'a [(&'a str, String)],
}

/// The daemon; killed when dropped.
pub struct Daemon {
    process: RefCell<Child>,
    /// The process that has followed the one that was started.
    successor: Cell<Option<Pid>>,
    directory: Option<TempDir>,
}

impl Daemon {
    /// Starts it in the rig's router with empty tables and these rules of mangle's PREROUTING. The router has got [`VIP`].
    pub fn start(rig: &Rig, rules: &[&str]) -> Self {
        rig.router.ip(&format!("address add {VIP}/32 dev front"));
        Self::spawn(rig, tempfile::tempdir().unwrap(), None, rules).answering()
    }

    /// Starts it with empty tables and these lines in its settings.
    pub fn start_with(rig: &Rig, settings: &str) -> Self {
        rig.router.ip(&format!("address add {VIP}/32 dev front"));
        Self::spawn_with(rig, tempfile::tempdir().unwrap(), None, &[], settings).answering()
    }

    /// Starts it with this `lvs.cf`.
    pub fn with_lvs(rig: &Rig, lvs: &str) -> Self {
        Self::with_lvs_in(rig, tempfile::tempdir().unwrap(), lvs)
    }

    /// Starts it with this `lvs.cf` and these lines in its settings.
    pub fn with_lvs_and(rig: &Rig, directory: TempDir, lvs: &str, settings: &str) -> Self {
        Self::spawn_with(rig, directory, Some(lvs), &[], settings).answering()
    }

    /// Starts it with this `lvs.cf` in the directory of an earlier one.
    pub fn with_lvs_in(rig: &Rig, directory: TempDir, lvs: &str) -> Self {
        Self::spawn(rig, directory, Some(lvs), &[]).answering()
    }

    /// Starts it, and does not wait for anything.
    pub fn spawn(rig: &Rig, directory: TempDir, lvs: Option<&str>, rules: &[&str]) -> Self {
        Self::spawn_with(rig, directory, lvs, rules, "")
    }

    /// Starts it as one of a pair in a router's namespace, and waits until it answers. It is not forced to be active.
    pub fn of_pair(router: &Namespace, directory: TempDir, lvs: &str, settings: &str) -> Self {
        Self::spawn_in(router, directory, lvs, settings).answering()
    }

    /// The same, and does not wait for anything.
    pub fn spawn_in(router: &Namespace, directory: TempDir, lvs: &str, settings: &str) -> Self {
        Self::launch(router, directory, &Launch { lvs, settings, ..Launch::default() })
    }

    /// Starts it in any way, and does not wait for anything.
    pub fn launch(router: &Namespace, directory: TempDir, launch: &Launch<'_>) -> Self {
        router.run("sysctl -qw net.ipv4.ip_forward=1");
        let path = |name| directory.path().join(name);
        let socket = path("control.sock");
        let basic = format!("ports = [\"front\", \"back\"]\ncontrol_socket = \"{}\"\n", socket.display());
        fs::write(path("xlvs.toml"), basic + launch.settings).unwrap();
        let program = String::from(env!("CARGO_BIN_EXE_xlvs"));
        let mut words = launch.by.iter().chain(std::iter::once(&program));
        let mut command = Command::new(words.next().unwrap());
        command.args(words).envs(launch.variables.iter().map(|(name, value)| (name, value)));
        command.arg("run").arg("--settings").arg(path("xlvs.toml"));
        command.arg("--marks").arg(path("iptables")).arg("--marks6").arg(path("ip6tables"));
        if !launch.lvs.is_empty() {
            fs::write(path("lvs.cf"), launch.lvs).unwrap();
            command.arg("--config").arg(path("lvs.cf"));
        }
        command.args(launch.arguments).stderr(File::create(path("log")).unwrap());
        let process = router.enter(|| command.spawn().unwrap());
        Daemon { process: RefCell::new(process), successor: Cell::new(None), directory: Some(directory) }
    }

    /// Ends it as an administrator does, and does not wait.
    pub fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
    }

    /// Starts it with these lines in its settings, which name its `lvs.cf`.
    pub fn by_settings(rig: &Rig, directory: TempDir, settings: &str) -> Self {
        let launch = Launch { settings, arguments: &["--forceactive"], ..Launch::default() };
        Self::launch(&rig.router, directory, &launch).answering()
    }

    /// Starts it with this `lvs.cf`; names are looked up as this `resolv.conf` says.
    pub fn with_resolver(rig: &Rig, directory: TempDir, lvs: &str, resolver: &str) -> Self {
        let resolv = directory.path().join("resolv.conf");
        fs::write(&resolv, resolver).unwrap();
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
        let by = ["unshare", "--mount", "sh", "-c", script, &resolv.display().to_string()].map(str::to_owned);
        let launch = Launch { lvs, arguments: &["--forceactive"], by: &by, ..Launch::default() };
        Self::launch(&rig.router, directory, &launch).answering()
    }

    /// Starts it with all of this, and does not wait for anything.
    pub fn spawn_with(
        rig: &Rig,
        directory: TempDir,
        lvs: Option<&str>,
        rules: &[&str],
        settings: &str,
    ) -> Self {
        let rules: String = rules.iter().map(|rule| format!("-A PREROUTING {rule}\n")).collect();
        let rules = format!("*mangle\n:PREROUTING ACCEPT [0:0]\n{rules}COMMIT\n");
        fs::write(directory.path().join("iptables"), rules).unwrap();
        let arguments = if lvs.is_some() { ["--forceactive"] } else { ["--bare"] };
        let lvs = lvs.unwrap_or_default();
        let launch = Launch { lvs, settings, arguments: &arguments, ..Launch::default() };
        Self::launch(&rig.router, directory, &launch)
    }

    /// Waits until it answers.
    pub fn answering(self) -> Self {
        wait_until("the daemon answers", || self.has_ended() || self.call(Request::Status).is_some());
        assert!(!self.has_ended(), "the daemon has ended: {}", self.log());
        self
    }

    /// Waits for its end: whether it went well, and the log.
    pub fn wait(self) -> (bool, String) {
        wait_until("the daemon ends", || self.has_ended());
        (self.process.borrow_mut().wait().unwrap().success(), self.log())
    }

    /// Kills it without warning; its directory is left.
    pub fn kill(mut self) -> TempDir {
        self.process.get_mut().kill().unwrap();
        self.process.get_mut().wait().unwrap();
        self.directory.take().expect("a daemon has a directory")
    }

    /// Writes rules of ip6tables, and has the daemon read its files again.
    pub fn mark_ipv6(&self, rules: &str) {
        fs::write(self.path("ip6tables"), rules).unwrap();
        let reply = self.call(Request::Reload);
        assert!(matches!(reply, Some(Reply::Text(_))), "{reply:?}");
    }

    /// Its `lvs.cf`.
    pub fn lvs_path(&self) -> PathBuf {
        self.path("lvs.cf")
    }

    /// Writes its `lvs.cf`, from beginning to end.
    pub fn write_lvs(&self, text: &str) {
        fs::write(self.lvs_path(), text).unwrap();
    }

    /// Adds lines to its settings.
    pub fn append_settings(&self, lines: &str) {
        let settings = fs::read_to_string(self.path("xlvs.toml")).unwrap() + lines;
        fs::write(self.path("xlvs.toml"), settings).unwrap();
    }

    /// Changes words of its settings.
    pub fn change_settings(&self, from: &str, to: &str) {
        let settings = fs::read_to_string(self.path("xlvs.toml")).unwrap();
        fs::write(self.path("xlvs.toml"), settings.replace(from, to)).unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// What it has logged so far.
    pub fn read_log(&self) -> String {
        self.log()
    }

    /// The exit code of `xlvs` with this command, and what it prints.
    pub fn xlvs_code(&self, arguments: &str) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xlvs"));
        command.args(arguments.split(' ')).env(SOCKET_VARIABLE, self.control_socket());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Edits its tables.
    pub fn ipvsadm(&self, arguments: &str) {
        self.listing(arguments);
    }

    /// What `xlvs` prints to this command, and whether it went well.
    pub fn xlvs(&self, arguments: &str) -> (bool, String) {
        let (code, text) = self.xlvs_code(arguments);
        (code == Some(0), text)
    }

    /// What ipvsadm prints about it.
    pub fn listing(&self, arguments: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipvsadm"));
        command.args(arguments.split(' ')).env(SOCKET_VARIABLE, self.control_socket());
        let output = command.output().unwrap();
        assert!(output.status.success(), "ipvsadm {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Replaces its tables by these command lines.
    pub fn restore(&self, lines: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipvsadm-restore"));
        command.env(SOCKET_VARIABLE, self.control_socket()).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Where it listens for ipvsadm.
    pub fn control_socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// What became of the packets so far.
    pub fn packets(&self) -> PacketTotals {
        self.status().packets
    }

    /// What it says of itself.
    pub fn status(&self) -> Status {
        let reply = self.call(Request::Status);
        let Some(Reply::Status(status)) = reply else { panic!("{reply:?}: {}", self.log()) };
        *status
    }

    /// Ends it as an administrator does; that must go well. Returns what became of the packets.
    pub fn stop(self) -> PacketTotals {
        let packets = self.packets();
        kill(self.pid(), Signal::SIGTERM).unwrap();
        wait_until("the daemon ends", || self.has_ended());
        let log = self.log();
        if self.successor.get().is_none() {
            assert!(self.process.borrow_mut().wait().unwrap().success(), "{log}");
        }
        assert!(!log.contains("ERROR"), "{log}");
        packets
    }

    /// Sets something at run time.
    pub fn sysctl(&self, name: &str, value: &str) {
        let reply = self.call(Request::Sysctl { name: name.into(), value: Some(value.into()) });
        assert!(matches!(reply, Some(Reply::Text(_))), "{name}={value}: {reply:?}");
    }

    fn call(&self, request: Request) -> Option<Reply> {
        ControlSocket::new(self.control_socket()).call(request).ok()
    }

    fn has_ended(&self) -> bool {
        match self.successor.get() {
            Some(successor) => !is_alive(successor),
            None => self.process.borrow_mut().try_wait().unwrap().is_some(),
        }
    }

    /// The process that serves.
    pub fn pid(&self) -> Pid {
        self.successor.get().unwrap_or_else(|| Pid::from_raw(self.process.borrow().id() as i32))
    }

    /// Has `xlvs upgrade` with these further arguments do its work; the former process is to end then. Returns what it printed.
    pub fn upgrade(&self, arguments: &str) -> String {
        let (done, text) = self.try_upgrade(arguments);
        assert!(done, "{text}: {}", self.log());
        let former = self.pid();
        let pid = text.split("process ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        wait_until("the former process ends", || self.has_ended());
        self.successor.set(Some(Pid::from_raw(pid.parse().unwrap())));
        assert_ne!(former, self.pid(), "{text}");
        text
    }

    /// The same where it may fail. What it starts becomes a child of this process when its parent ends.
    pub fn try_upgrade(&self, arguments: &str) -> (bool, String) {
        prctl::set_child_subreaper(true).unwrap();
        self.xlvs(format!("upgrade {arguments}").trim_end())
    }

    /// Another process serves from now on, which has followed without anybody telling.
    pub fn followed_by(&self, pid: Pid) {
        wait_until("the former process ends", || self.has_ended());
        self.successor.set(Some(pid));
    }

    /// CPU time that it has used so far, in seconds.
    pub fn cpu_time(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.borrow().id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        // USER_HZ is 100 on all that runs here.
        ticks as f64 / 100.0
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.as_ref().expect("a daemon has a directory").path().join(name)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(successor) = self.successor.take() {
            let _ = kill(successor, Signal::SIGKILL);
            let _ = waitpid(successor, None);
        }
        let process = self.process.get_mut();
        // It may have ended.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Whether a process runs that is a child of this one. One that has ended is forgotten thereby.
fn is_alive(pid: Pid) -> bool {
    matches!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
}
