//! A router on which systemd runs as process 1.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::namespace::Namespace;

/// The container of `tests/lab/systemd.sh` in a network namespace; it ends when this is dropped, and with the test's process.
pub struct Machine {
    holder: Child,
    /// systemd, as it is numbered outside.
    process: u32,
    _directory: TempDir,
}

impl Machine {
    /// Returns once systemd has started all it is to start.
    pub fn boot(namespace: &Namespace) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let said = directory.path().join("said");
        let mut command = Command::new(sources().join("tests/lab/systemd.sh"));
        command.arg(directory.path()).arg(sources()).arg(programs());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&said).unwrap());
        let mut holder = namespace.enter(|| command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(process) = line.trim().parse() else {
            holder.wait().unwrap();
            panic!("no systemd: {}", fs::read_to_string(said).unwrap());
        };
        Machine { holder, process, _directory: directory }
    }

    /// Runs a shell's command; returns whether it succeeded and what it said.
    pub fn try_run(&self, command: &str) -> (bool, String) {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg("--target").arg(self.process.to_string());
        nsenter.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", "sh", "-c"]);
        let output = nsenter.arg(command).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The same of one that must succeed.
    pub fn run(&self, command: &str) -> String {
        let (done, text) = self.try_run(command);
        assert!(done, "`{command}`: {text}\n{}", self.run_journal());
        text
    }

    fn run_journal(&self) -> String {
        self.try_run("journalctl --no-pager --lines 50 --output short-precise").1
    }

    /// A file of its own.
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{name}", self.process))
    }

    /// Writes one, with its folder.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// `config/install.sh` with the programs of this test.
    pub fn install(&self, more: &str) -> (bool, String) {
        let (script, programs) = (sources().join("config/install.sh"), programs());
        self.try_run(&format!("{} --programs {} {more}", script.display(), programs.display()))
    }

    /// A property of the unit, as systemd tells it.
    pub fn property(&self, name: &str) -> String {
        self.run(&format!("systemctl show --property {name} --value xlvs")).trim().to_owned()
    }

    /// What the journal has of the unit: syslog's priorities and the words.
    pub fn journal(&self) -> Vec<(u8, String)> {
        let text = self.run("journalctl --unit xlvs --output json --all");
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
        let told = |entry: Value| Some((of(&entry, "PRIORITY")?.parse().unwrap(), of(&entry, "MESSAGE")?));
        entries.filter_map(told).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It cleans up once nobody holds its standard input.
        drop(self.holder.stdin.take());
        let ended = self.holder.wait();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "the container leaves nothing behind");
        }
    }
}

fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_xlvs")).parent().unwrap().into()
}
