//! The sampled command lines of the real ipvsadm once more, now all of a file one after the other, by the real programs, through
//! a shell, against the real daemon: the same bytes and exit codes. What cannot be the same is listed here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::dut::Dut;
use crate::support::ethernet::Neighbours;
use crate::support::names::{HOSTS, PORTS};
use crate::support::samples::{self, Sample};

/// Files that were recorded one after the other on one table, and what made it; there was traffic before those marked so.
const STORIES: &[(&[&str], &[&str])] = &[
    (&["00-empty"], &[]),
    (
        &["01-fwmark-persistent-before", "01-fwmark-persistent-after"],
        &[
            "ipvsadm -A -f 80 -s wlc -p 30",
            "ipvsadm -a -f 80 -r 10.8.8.33 -m",
            "ipvsadm -a -f 80 -r 10.8.8.34 -m",
        ],
    ),
    (&["02-tcp-setup", "02-tcp-after", "02-tcp-edit"], &[]),
    (
        &["03-udp"],
        &[
            "ipvsadm -A -u 10.10.1.30:53 -s rr -o",
            "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.33 -m",
            "ipvsadm -a -u 10.10.1.30:53 -r 10.8.8.34 -m",
            "ipvsadm -A -u 10.10.1.30:5000 -s wlc -p 50 -M 255.255.255.0",
            "ipvsadm -a -u 10.10.1.30:5000 -r 10.8.8.33:5001 -m",
            "ipvsadm -a -u 10.10.1.30:5000 -r 10.8.8.34:5001 -m",
        ],
    ),
    (&["04-schedulers"], &[]),
    (
        &["05-ipv6"],
        &[
            "ipvsadm -A -t [fd00:10::30]:80 -s wrr -p 30",
            "ipvsadm -a -t [fd00:10::30]:80 -r [fd00:8::33]:80 -m -w 2",
            "ipvsadm -a -t [fd00:10::30]:80 -r [fd00:8::34]:80 -m",
            "ipvsadm -A -u [fd00:10::30]:53 -s rr",
            "ipvsadm -a -u [fd00:10::30]:53 -r [fd00:8::33]:53 -m",
            "ipvsadm -A -f 6 -6 -s wlc -p 40 -M 64",
            "ipvsadm -a -f 6 -6 -r [fd00:8::33]:0 -m",
            "ipvsadm -a -f 6 -6 -r [fd00:8::34]:0 -m",
            "ipvsadm -A -t 10.10.1.30:80 -s wlc",
            "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33 -m",
        ],
    ),
    (
        &["06-hash-weights-thresholds"],
        &[
            "for s in sh mh dh; do P=$((P+1)); ipvsadm -A -t 10.10.1.30:$P -s $s; \
             for r in 33 34; do ipvsadm -a -t 10.10.1.30:$P -r 10.8.8.$r:80 -m -w $r; done; done",
            "ipvsadm -A -t 10.10.1.30:80 -s rr",
            "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33 -m -w 0",
            "ipvsadm -A -t 10.10.1.30:81 -s rr",
            "ipvsadm -a -t 10.10.1.30:81 -r 10.8.8.33:80 -m -x 1",
            "ipvsadm -A -t 10.10.1.30:82 -s rr",
        ],
    ),
    (&["07-set-daemon"], &[]),
    (
        &["08-errors", "09-save-restore"],
        &["ipvsadm -A -t 10.10.1.30:80 -s rr", "ipvsadm -a -t 10.10.1.30:80 -r 10.8.8.33:80 -m"],
    ),
    (&["12-odd-values"], &[]),
    // The last: it takes the address of eth1 away.
    (&["11-sync-daemons"], &[]),
];

/// Before these there was traffic, so that counts, rates and connections are not compared. That they are printed as they should
/// be is for the tests of the printing.
const AFTER_TRAFFIC: &[&str] = &[
    "01-fwmark-persistent-after",
    "02-tcp-after",
    "02-tcp-edit",
    "03-udp",
    "05-ipv6",
    "06-hash-weights-thresholds",
];

/// The kernel's order is that of a hash with a secret; ours is that of making. Services are compared in any order.
const IN_ANY_ORDER: &[&str] = &["--nosort", "/proc/net/ip_vs"];

/// Lines that have to be put otherwise, and why.
const OTHERWISE: &[(&str, &str)] = &[
    // There are no files; a program prints what would be in them.
    ("cat /proc/net/", "xlvs proc "),
    // Nor are there settings as files. Newer kernels have est_*, and others are those of modules that were not loaded.
    ("ls /proc/sys/net/ipv4/vs", "xlvs sysctl | sed '/vs.est_/d; /vs.lblc/d; s/net.ipv4.vs.//; s/ = .*//'"),
    // A bad line changes nothing unless the original's way is asked for.
    ("| ipvsadm -R", "| ipvsadm -R --compat"),
];

/// Lines that are left out, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("lsmod", "there is no kernel module"),
    ("cd /proc/sys", "some defaults depend on the machine"),
    ("unshare -U", "the control socket is root's, also of a root without capabilities"),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ipvsadm").join(name)
}

fn sampled(file: &str) -> Vec<Sample> {
    samples::parse(&fs::read_to_string(path(&format!("{file}.txt"))).unwrap())
}

/// A shell beside the daemon, with the names of the network that the samples were recorded in.
fn run(dut: &Dut, lines: &[String], directory: &Path) -> Vec<Sample> {
    let hosts = HOSTS.iter().fold(String::new(), |text, (address, name)| format!("{text}{address} {name}\n"));
    let ports = PORTS.iter().fold(String::new(), |mut text, (name, port, protocols)| {
        for protocol in *protocols {
            let _ = writeln!(text, "{name} {port}/{}", protocol.to_string().to_lowercase());
        }
        text
    });
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    write("hosts", &hosts);
    write("services", &ports);
    write("nsswitch.conf", "hosts: files\nservices: files\n");
    write("lines", &(lines.join("\n") + "\n"));
    let script = r#"
        cd "$1"
        for file in hosts services nsswitch.conf; do mount --bind $file /etc/$file; done
        while IFS= read -r line; do
            echo "\$ $line"
            bash -c "$line" 2>stderr </dev/null
            code=$?
            sed 's/^/stderr: /' stderr
            echo "[exit $code]"
        done <lines"#;
    let programs = Path::new(env!("CARGO_BIN_EXE_xlvs")).parent().unwrap().display();
    let output = Command::new("ip")
        .args(["netns", "exec", &dut.namespace(), "unshare", "--mount", "bash", "-c", script, "shell"])
        .arg(directory)
        .env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap()))
        .env("XLVS_SOCKET", format!("/run/{}/control.sock", dut.namespace()))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    samples::parse(&String::from_utf8_lossy(&output.stdout))
}

fn put(command: &str) -> String {
    OTHERWISE.iter().fold(command.to_owned(), |line, (theirs, ours)| line.replace(theirs, ours))
}

/// What is compared of an output.
fn essence(file: &str, sample: &Sample) -> (String, String, u8) {
    let mut stdout = sample.stdout.clone();
    if AFTER_TRAFFIC.contains(&file) {
        stdout = without_traffic(&sample.command, &stdout);
    }
    if IN_ANY_ORDER.iter().any(|text| sample.command.contains(text)) {
        stdout = in_order(&stdout);
    }
    // Below the original's answer stands what is really the matter.
    let stderr = sample.stderr.lines().filter(|line| !line.starts_with("modprobe:"));
    let stderr = stderr.fold(String::new(), |text, line| text + line + "\n");
    let stderr = match stderr.split_once("module?\n") {
        Some((answer, _)) => format!("{answer}module?\n"),
        None => stderr,
    };
    (stdout, stderr, sample.code)
}

/// Without connections, and with each count as a sign.
fn without_traffic(command: &str, stdout: &str) -> String {
    let is_connection = |line: &&str| {
        let lists = command.contains("-Lnc") || command.contains("-Lc") || command.contains("conn");
        lists && ["TCP ", "UDP ", "IP  "].iter().any(|protocol| line.starts_with(protocol))
    };
    let counts = match command {
        _ if command.contains("--stats") || command.contains("--rate") || command.contains("_stats") => 5,
        _ if command.contains("--persistent-conn") => 3,
        _ => 2,
    };
    let line = |line: &str| {
        let counted = line.starts_with("  -> ") || counts == 5;
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_count = |word: &&&str| word.chars().all(|letter| letter.is_ascii_hexdigit());
        if !counted || words.iter().rev().take_while(is_count).count() < counts {
            return line.to_owned();
        }
        let kept = &words[..words.len() - counts];
        format!("{} {}", kept.join(" "), vec!["#"; counts].join(" "))
    };
    stdout.lines().filter(|line| !is_connection(line)).map(|text| line(text) + "\n").collect()
}

/// Each service with its servers, by name; the servers stay in their order.
fn in_order(stdout: &str) -> String {
    let (titles, rows): (Vec<_>, Vec<_>) =
        stdout.lines().enumerate().partition(|(number, line)| *number < 3 || line.is_empty());
    let mut services = BTreeMap::new();
    let mut name = "";
    for (_, row) in rows {
        if !row.starts_with("  -> ") {
            name = row;
        }
        let text: &mut String = services.entry(name).or_default();
        *text += &format!("{row}\n");
    }
    titles.into_iter().map(|(_, line)| format!("{line}\n")).chain(services.into_values()).collect()
}

#[test]
fn sampled_command_lines_give_the_same_against_the_daemon() {
    let dut = Dut::new();
    let (mut differences, mut compared) = (String::new(), 0);
    for (files, setup) in STORIES {
        drop(dut.reset(Neighbours::Shared));
        let directory = tempfile::tempdir().unwrap();
        for made in
            run(&dut, &setup.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>(), directory.path())
        {
            assert_eq!((made.stderr.as_str(), made.code), ("", 0), "{}", made.command);
        }
        for file in *files {
            let mut wanted = sampled(file);
            wanted.retain(|sample| !LEFT_OUT.iter().any(|(text, _)| sample.command.starts_with(text)));
            let lines: Vec<String> = wanted.iter().map(|sample| put(&sample.command)).collect();
            let got = run(&dut, &lines, directory.path());
            assert_eq!(got.len(), wanted.len(), "{file}: the shell broke off");
            for (wanted, got) in wanted.iter().zip(&got) {
                let got = Sample { command: wanted.command.clone(), ..got.clone() };
                let (want, have) = (essence(file, wanted), essence(file, &got));
                if want != have {
                    let _ = writeln!(
                        differences,
                        "{file}: $ {}\n--- sampled (exit {})\n{}{}--- here (exit {})\n{}{}",
                        wanted.command, want.2, want.0, want.1, have.2, have.0, have.1
                    );
                }
                compared += 1;
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(compared > 350, "only {compared} command lines were compared");
}
