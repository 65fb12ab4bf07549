//! `make install`: what is put where, what is left alone, and whether systemd takes the unit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Another root, below which things are installed.
struct Target(TempDir);

impl Target {
    fn new() -> Self {
        Target(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name.trim_start_matches('/'))
    }

    fn run(&self, prefix: &str, more: &[&str]) -> Output {
        let programs = Path::new(env!("CARGO_BIN_EXE_xlvs")).parent().unwrap();
        let mut script = Command::new(root().join("config/install.sh"));
        script.arg("--programs").arg(programs).arg("--destdir").arg(self.0.path());
        script.args(["--prefix", prefix]).args(more).output().unwrap()
    }

    fn install(&self, prefix: &str) -> String {
        let output = self.run(prefix, &[]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{said}");
        said
    }

    /// All files, by name.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(format!("/{}", path.strip_prefix(self.0.path()).unwrap().display()));
                }
            }
        }
        found.sort();
        found
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

const BELOW_PREFIX: [&str; 14] = [
    "lib/systemd/system/xlvs.service",
    "sbin/ipvsadm",
    "sbin/ipvsadm-restore",
    "sbin/ipvsadm-save",
    "sbin/xlvs",
    "share/bash-completion/completions/ipvsadm",
    "share/bash-completion/completions/xlvs",
    "share/doc/xlvs/health-checks.cf",
    "share/doc/xlvs/installed",
    "share/doc/xlvs/iptables",
    "share/doc/xlvs/lvs.cf",
    "share/doc/xlvs/xlvs.toml",
    "share/man/man5/lvs.cf.5",
    "share/man/man8/ipvsadm.8",
];

#[test]
fn an_installation_comes_and_goes_and_the_sites_files_stay() {
    let target = Target::new();
    target.write("/etc/sysconfig/ha/lvs.cf", "primary = 10.0.0.1\n");
    target.install("/usr/local");
    let expected = BELOW_PREFIX.iter().map(|name| format!("/usr/local/{name}"));
    let mut expected: Vec<String> = expected.collect();
    expected.push("/usr/local/share/man/man8/xlvs.8".into());
    expected.extend(["/etc/sysconfig/ha/lvs.cf".into(), "/etc/xlvs/xlvs.toml".into()]);
    expected.sort();
    assert_eq!(target.files(), expected);
    let shipped = fs::read_to_string(root().join("config/xlvs.toml")).unwrap();
    assert_eq!(target.read("/etc/xlvs/xlvs.toml"), shipped);
    assert!(
        target.read("/usr/local/lib/systemd/system/xlvs.service").contains("=/usr/local/sbin/xlvs run\n")
    );

    target.write("/etc/xlvs/xlvs.toml", "queues = 1\n");
    let said = target.install("/usr/local");
    assert!(said.contains("/etc/xlvs/xlvs.toml stays as it is"), "{said}");
    assert_eq!(target.files(), expected, "a second time");

    assert!(target.run("/usr/local", &["--uninstall"]).status.success());
    assert_eq!(target.files(), ["/etc/sysconfig/ha/lvs.cf", "/etc/xlvs/xlvs.toml"]);
    assert_eq!(target.read("/etc/xlvs/xlvs.toml"), "queues = 1\n");
    assert_eq!(target.read("/etc/sysconfig/ha/lvs.cf"), "primary = 10.0.0.1\n");
    let again = target.run("/usr/local", &["--uninstall"]);
    assert!(
        !again.status.success() && String::from_utf8_lossy(&again.stderr).contains("nothing is installed")
    );
}

fn systemd_analyze(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{error}; tests/install.sh test installs systemd"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn systemd_takes_the_unit_and_calls_it_confined() {
    let target = Target::new();
    target.install("/usr");
    let unit = target.path("/usr/lib/systemd/system/xlvs.service");
    // The programs are looked for where the unit says.
    let programs = target.path("/usr/sbin").display().to_string();
    let here = target.read("/usr/lib/systemd/system/xlvs.service").replace("/usr/sbin", &programs);
    fs::write(&unit, here).unwrap();
    let (fine, said) = systemd_analyze(&["verify", "--man=no", &unit.display().to_string()]);
    assert!(fine && said.is_empty(), "{said}");
    let (fine, said) =
        systemd_analyze(&["security", "--offline=true", "--threshold=40", &unit.display().to_string()]);
    assert!(fine, "{said}");
}
