//! The device under test for real: the daemon over AF_XDP on veths, as `tests/dut.sh` sets it up.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use xlvs::host::clock::Clock;
use xlvs::net::time::Instant;

use super::namespace::Namespace;
use super::wire::Wire;
use crate::support::device::{CommandOutput, Departure, Device, Side};
use crate::support::ethernet::Neighbours;

/// Names of devices that are free. Each has namespaces and a directory of its own.
static FREE: LazyLock<Mutex<Vec<&str>>> = LazyLock::new(|| Mutex::new(vec!["a", "b", "c", "d", "e", "f"]));
static FREED: Condvar = Condvar::new();

/// The namespaces and the daemon in them, removed when dropped.
pub struct Dut {
    name: &'static str,
    shortcut: &'static str,
}

impl Dut {
    /// Waits until a device is free. Nothing is set up before the first reset.
    pub fn new() -> Self {
        Self::with_switch("")
    }

    fn with_switch(shortcut: &'static str) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = FREED.wait_while(free, |free| free.is_empty()).unwrap_or_else(PoisonError::into_inner);
        Dut { name: free.pop().unwrap(), shortcut }
    }

    /// The same, and established connections take the shortcut.
    pub fn with_shortcut() -> Self {
        Self::with_switch("1")
    }

    /// The daemon's namespace, and its directory below `/run`.
    pub fn namespace(&self) -> String {
        format!("xlvs-dut-{}", self.name)
    }

    /// A fresh daemon without services, which takes the place of the one before.
    pub fn reset(&self, neighbours: Neighbours) -> Box<dyn Device> {
        let apart = if neighbours == Neighbours::Apart { "1" } else { "" };
        let environment = [("REPLAY_L2", apart), ("XLVS_SHORTCUT", self.shortcut)];
        let output = dut_with(self.name, &["reset"], "", &environment);
        assert!(output.status.success(), "{}", text(&[output.stdout, output.stderr].concat()));
        let wire = Wire::open(&Namespace::named(&format!("xlvs-rig-{}", self.name)));
        Box::new(Router { name: self.name, clock: Clock::start(), wire })
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        let output = dut(self.name, &["down"], "");
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.name);
        FREED.notify_one();
        if !output.status.success() {
            eprintln!("dut.sh down: {}", text(&output.stderr));
        }
    }
}

/// `tests/dut.sh` for this device with these arguments, and `input` to read.
fn dut(name: &str, arguments: &[&str], input: &str) -> Output {
    dut_with(name, arguments, input, &[])
}

fn dut_with(name: &str, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Output {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dut.sh"))
        .args(arguments)
        .envs(environment.iter().copied())
        .env("XLVS_DUT", name)
        .env("XLVS_PROGRAMS", Path::new(env!("CARGO_BIN_EXE_xlvs")).parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A script that fails early may not read it.
    let _ = script.stdin.take().unwrap().write_all(input.as_bytes());
    script.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Router {
    name: &'static str,
    clock: Clock,
    wire: Wire,
}

impl Device for Router {
    fn run(&mut self, command: &str) -> CommandOutput {
        let Output { status, stdout, stderr } = dut(self.name, &["run"], command);
        CommandOutput { code: status.code().unwrap_or(-1), stdout: text(&stdout), stderr: text(&stderr) }
    }

    fn deliver(&mut self, side: Side, packet: &[u8]) -> Vec<Departure> {
        self.wire.send(side, packet);
        self.wire.settle(side)
    }

    fn deliver_all(&mut self, side: Side, packets: &[Vec<u8>]) -> Vec<Departure> {
        packets.iter().for_each(|packet| self.wire.send(side, packet));
        self.wire.settle(side)
    }

    fn now(&self) -> Duration {
        self.clock.now().saturating_since(Instant::START)
    }

    fn advance(&mut self, by: Duration) -> Vec<Departure> {
        let end = self.now() + by;
        let mut out = Vec::new();
        while self.now() < end {
            out.extend(self.wire.next(end.saturating_sub(self.now())));
        }
        out
    }

    fn dump(&mut self, sections: &[String]) -> String {
        let sections = sections.iter().map(String::as_str);
        let output = dut(self.name, &std::iter::once("dump").chain(sections).collect::<Vec<_>>(), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}
