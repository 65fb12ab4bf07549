//! The device under test for real: the daemon over AF_XDP on veths, as `tests/dut.sh` sets it up.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xlvs::host::clock::Clock;
use xlvs::net::time::Instant;

use super::namespace::Namespace;
use super::wire::Wire;
use crate::support::device::{CommandOutput, Departure, Device, Side};
use crate::support::ethernet::Neighbours;

/// Whose turn it is to have the one device of the machine.
static TURN: Mutex<()> = Mutex::new(());

/// The namespaces and the daemon in them, removed when dropped. There is one of it on a machine.
pub struct Dut {
    #[expect(dead_code, reason = "held until the device is removed")]
    turn: MutexGuard<'static, ()>,
    shortcut: &'static str,
}

impl Dut {
    /// Waits until no other test has it. Nothing is set up before the first reset.
    pub fn new() -> Self {
        Self::with_switch("")
    }

    fn with_switch(shortcut: &'static str) -> Self {
        Dut { turn: TURN.lock().unwrap_or_else(PoisonError::into_inner), shortcut }
    }

    /// The same, and established connections take the shortcut.
    pub fn with_shortcut() -> Self {
        Self::with_switch("1")
    }

    /// A fresh daemon without services, which takes the place of the one before.
    pub fn reset(&self, neighbours: Neighbours) -> Box<dyn Device> {
        let apart = if neighbours == Neighbours::Apart { "1" } else { "" };
        let output = dut_with(&["reset"], "", &[("REPLAY_L2", apart), ("XLVS_SHORTCUT", self.shortcut)]);
        assert!(output.status.success(), "{}", text(&[output.stdout, output.stderr].concat()));
        let wire = Wire::open(&Namespace::named("xlvs-rig"));
        Box::new(Router { clock: Clock::start(), wire })
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        let output = dut(&["down"], "");
        if !output.status.success() {
            eprintln!("dut.sh down: {}", text(&output.stderr));
        }
    }
}

/// `tests/dut.sh` with these arguments, and `input` to read.
fn dut(arguments: &[&str], input: &str) -> Output {
    dut_with(arguments, input, &[])
}

fn dut_with(arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Output {
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dut.sh"))
        .args(arguments)
        .envs(environment.iter().copied())
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
    clock: Clock,
    wire: Wire,
}

impl Device for Router {
    fn run(&mut self, command: &str) -> CommandOutput {
        let Output { status, stdout, stderr } = dut(&["run"], command);
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
        let output = dut(&std::iter::once("dump").chain(sections).collect::<Vec<_>>(), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}
