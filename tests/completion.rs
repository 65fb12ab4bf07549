//! The completion, asked by a real bash.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use xlvs::admin::completion::{PROGRAMS, bash};
use xlvs::ipvs::scheduler::ENTRIES;

/// What `ipvsadm -Sn` of a running daemon prints.
const TABLE: &str = "\
-A -t 192.0.2.1:80 -s wlc -p 600
-a -t 192.0.2.1:80 -r 10.8.8.33:80 -m -w 1
-a -t 192.0.2.1:80 -r 10.8.8.34:8080 -m -w 1
-A -t [2001:db8::1]:443 -s rr
-a -t [2001:db8::1]:443 -r [2001:db8::33]:443 -m -w 1
-A -u 192.0.2.1:53 -s sh -b sh-port
-A -f 80 -s wlc
-a -f 80 -r 10.8.8.35:0 -m -w 1
-A -f 81 -6 -s wlc
-a -f 81 -6 -r [2001:db8::36]:0 -m -w 1
";

/// A directory with the completions, and a stand-in for ipvsadm whose script is given.
struct Shell {
    place: TempDir,
}

impl Shell {
    fn with(ipvsadm: &str) -> Shell {
        let place = TempDir::new().unwrap();
        for program in PROGRAMS {
            fs::write(place.path().join(program).with_extension("bash"), bash(program).unwrap()).unwrap();
        }
        fs::create_dir(place.path().join("bin")).unwrap();
        let stub = place.path().join("bin/ipvsadm");
        fs::write(&stub, format!("#!/bin/sh\n{ipvsadm}\n")).unwrap();
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).unwrap();
        Shell { place }
    }

    fn running() -> Shell {
        Shell::with(&format!("[ \"$*\" = -Sn ] || exit 2\ncat <<'END'\n{TABLE}END"))
    }

    fn output(&self, line: &str) -> Output {
        let program = line.split(' ').next().unwrap();
        let path = format!("{}:/usr/bin:/bin", self.place.path().join("bin").display());
        Command::new("bash")
            .args([
                "--norc",
                "--noprofile",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/completion/drive.bash"),
            ])
            .arg(self.place.path().join(program).with_extension("bash"))
            .arg(line)
            .env("PATH", path)
            .current_dir(self.place.path())
            .output()
            .expect("bash runs")
    }

    /// What is offered for a line with the cursor at its end. The completion must never print anything itself.
    fn offers(&self, line: &str) -> Vec<String> {
        let output = self.output(line);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, "", "completing `{line}' printed to the terminal");
        let mut offered: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        // Bash sorts them before it shows them.
        offered.sort();
        offered
    }
}

/// Lines with all that is offered at their end.
fn check(shell: &Shell, cases: &[(&str, &str)]) {
    let mut story = String::new();
    for (line, expected) in cases {
        let offered = shell.offers(line);
        let mut wanted: Vec<&str> = expected.split_whitespace().collect();
        wanted.sort_unstable();
        if offered != wanted {
            let (wanted, offered) = (wanted.join(" "), offered.join(" "));
            story += &format!("\n`{line}'\n  expected: {wanted}\n  offered:  {offered}\n");
        }
    }
    assert!(story.is_empty(), "the completion differs:\n{story}");
}

#[test]
fn ipvsadm_offers_commands_and_what_each_takes() {
    check(
        &Shell::running(),
        &[
            ("ipvsadm --st", "--start-daemon --stop-daemon"),
            ("ipvsadm -A", "-A"),
            ("ipvsadm -At", "-At"),
            ("ipvsadm -D ", "-t --tcp-service -u --udp-service --sctp-service -f --fwmark-service"),
            ("ipvsadm -D -f 80 ", "-6 --ipv6"),
            ("ipvsadm -D -t 192.0.2.1:80 ", ""),
            ("ipvsadm -A -t 192.0.2.1:80 --s", "--scheduler --sched-flags"),
            ("ipvsadm -At 192.0.2.1:80 -s rr --s", "--sched-flags"),
            ("ipvsadm -e -t 192.0.2.1:80 -r 10.8.8.33 -g --", EDIT_SERVER),
            ("ipvsadm -L --t", "--tcp-service --timeout --thresholds --tun-info"),
            ("ipvsadm -L --timeout --d", ""),
            ("ipvsadm -Ln --e", "--exact"),
            ("ipvsadm -R ", "--compat"),
            ("ipvsadm -S ", "-n --numeric"),
            ("ipvsadm -C ", ""),
            ("ipvsadm --set 900 ", ""),
            ("ipvsadm nonsense ", ""),
        ],
    );
}

const EDIT_SERVER: &str =
    "--weight --u-threshold --l-threshold --tun-type --tun-port --tun-nocsum --tun-csum --tun-remcsum";

#[test]
fn ipvsadm_offers_values() {
    let schedulers = ENTRIES.iter().map(|entry| entry.name).collect::<Vec<_>>().join(" ");
    check(
        &Shell::running(),
        &[
            ("ipvsadm -A -t 192.0.2.1:81 -s ", &schedulers),
            ("ipvsadm -A -t 192.0.2.1:81 -s", "-s"),
            ("ipvsadm -A -t 192.0.2.1:81 -sw", "-swrr -swlc"),
            ("ipvsadm -A -t 192.0.2.1:81 --scheduler=lb", "lblc lblcr"),
            ("ipvsadm -A -t 192.0.2.1:81 -s sh -b ", "sh-fallback sh-port"),
            ("ipvsadm -A -t 192.0.2.1:81 -smh -b mh-fallback,", "mh-fallback,mh-port"),
            ("ipvsadm -A -t 192.0.2.1:81 -b ", "flag-1 flag-2 flag-3"),
            ("ipvsadm -A -t 192.0.2.1:81 --pe ", "sip"),
            ("ipvsadm -A -t 192.0.2.1:81 -p -", AFTER_PERSISTENT),
            ("ipvsadm -A -t 192.0.2.1:81 -p ", ""),
            ("ipvsadm -a -t 192.0.2.1:80 -r 10.8.8.36 -i --tun-type ", "ipip gue gre"),
            ("ipvsadm --start-daemon ", "master backup"),
            ("ipvsadm --stop-daemon b", "backup"),
            ("ipvsadm --start-daemon master --mcast-interface l", "lo"),
        ],
    );
}

const AFTER_PERSISTENT: &str = "-s --scheduler -M --netmask -o --ops --pe -b --sched-flags";

#[test]
fn ipvsadm_offers_what_is_running() {
    check(
        &Shell::running(),
        &[
            ("ipvsadm -D -t ", "192.0.2.1:80 [2001:db8::1]:443"),
            ("ipvsadm -L -u ", "192.0.2.1:53"),
            ("ipvsadm -D -t 192.0.2.1:", "80"),
            ("ipvsadm -D --tcp-service=192", "192.0.2.1:80"),
            ("ipvsadm -D -t [2001:db8:", ":1]:443"),
            ("ipvsadm -Z -f ", "80 81"),
            ("ipvsadm -A -t ", ""),
            ("ipvsadm -a -t ", "192.0.2.1:80 [2001:db8::1]:443"),
            ("ipvsadm -a -t 192.0.2.1:80 -r ", ""),
            ("ipvsadm -d -t 192.0.2.1:80 -r ", "10.8.8.33:80 10.8.8.34:8080"),
            ("ipvsadm -et 192.0.2.1:80 -r 10.8.8.34:", "8080"),
            ("ipvsadm -d -f 80 -r ", "10.8.8.35:0"),
            ("ipvsadm -d -f 81 -6 -r ", "[2001:db8::36]:0"),
            ("ipvsadm -d -f 81 -r ", ""),
        ],
    );
}

#[test]
fn without_a_daemon_nothing_runs_and_nothing_is_said() {
    let shell = Shell::with("echo \"Can't initialize ipvs: Protocol not available\" >&2; exit 2");
    check(
        &shell,
        &[
            ("ipvsadm -D -t ", ""),
            ("ipvsadm -d -t 192.0.2.1:80 -r ", ""),
            ("xlvs drain tcp ", ""),
            ("ipvsadm -A -t 192.0.2.1:81 -s w", "wrr wlc"),
        ],
    );
}

#[test]
fn xlvs_offers_commands_options_words_and_files() {
    let shell = Shell::running();
    fs::write(shell.place.path().join("site.cf"), "").unwrap();
    check(
        &shell,
        &[
            ("xlvs re", "reload"),
            ("xlvs apply --con", "--confirm"),
            ("xlvs plan site.", "site.cf"),
            ("xlvs run --m", "--marks --marks6"),
            ("xlvs run --config site.", "site.cf"),
            (
                "xlvs run --bare ",
                "--config --marks --marks6 --settings --bare --forceactive --take-over --apart",
            ),
            ("xlvs run --settings=site.", "site.cf"),
            ("xlvs check site.cf ", "bin ipvsadm.bash site.cf xlvs.bash"),
            ("xlvs status ", "--json"),
            ("xlvs proc ip_vs_s", "ip_vs_stats ip_vs_stats_percpu"),
            ("xlvs drain ", "tcp udp sctp fwmark fwmark6"),
            ("xlvs drain tcp ", "192.0.2.1:80 [2001:db8::1]:443"),
            ("xlvs drain tcp 192.0.2.1:80 10.8.8.33:", "80"),
            ("xlvs drain fwmark6 81 ", "[2001:db8::36]:0"),
            ("xlvs drain fwmark 80 10.8.8.35:0 ", "--deadline --wait --undo --json"),
            ("xlvs sysctl net.ipv4.vs.drop_", "net.ipv4.vs.drop_entry net.ipv4.vs.drop_packet"),
            ("xlvs sysctl xlvs.reset", "xlvs.reset_on_expiry"),
            ("xlvs man ", "ipvsadm xlvs lvs.cf"),
            ("xlvs completion bash ", "ipvsadm xlvs"),
        ],
    );
}

#[test]
fn shellcheck_finds_nothing() {
    let shell = Shell::running();
    let files: Vec<PathBuf> =
        PROGRAMS.iter().map(|program| shell.place.path().join(program).with_extension("bash")).collect();
    let drive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/completion/drive.bash");
    let output = Command::new("shellcheck").args(&files).arg(drive).output();
    let output = output.expect("shellcheck is missing; tests/install.sh test installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
