//! The `ipvsadm` front end against what the real ipvsadm 1.31 printed. `ipvsadm/*.txt` hold command lines with their
//! output and exit code; `10-more-errors.txt` was recorded from the real program with a stand-in for the kernel's side.
#![expect(clippy::unwrap_used, reason = "a sample that cannot be read fails the test with its story")]

mod meaning;
mod restoring;
mod socket;
mod tables;

use std::ffi::OsString;

use xlvs::admin::{self, NoNames, Transport, TransportError};
use xlvs::director::protocol::{Reply, Request};
use xlvs::ipvs::edit::{Edit, Errno};

use crate::support::names::SampleNames;
use crate::support::samples::{self, Sample};

/// Answers every edit alike and every question from what the sample shows; keeps what it was asked.
#[derive(Default)]
struct Scripted {
    answer: Option<Reply>,
    asked: Vec<Request>,
}

impl Transport for Scripted {
    fn call(&mut self, request: Request) -> Result<Reply, TransportError> {
        self.asked.push(request);
        Ok(self.answer.clone().unwrap_or(Reply::Done))
    }
}

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(|word| if word == "\"\"" { "".into() } else { word.into() }).collect()
}

/// What a run printed, and how it ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Output {
    stdout: String,
    stderr: String,
    code: u8,
}

fn run_with(
    line: &str,
    input: &str,
    transport: &mut dyn Transport,
    resolver: &dyn admin::Resolver,
) -> Output {
    let mut stdout = Vec::new();
    let outcome = admin::run(&words(line), &mut input.as_bytes(), &mut stdout, transport, resolver);
    let stdout = String::from_utf8(stdout).expect("text");
    Output { stdout, stderr: outcome.stderr, code: outcome.code }
}

fn run(line: &str, input: &str, answer: Option<Reply>) -> (Output, Vec<Request>) {
    let mut transport = Scripted { answer, asked: Vec::new() };
    let output = run_with(line, input, &mut transport, &SampleNames);
    (output, transport.asked)
}

/// The kernel's error number behind a message; `None` for what ipvsadm finds wrong by itself.
fn errno_behind(message: &str) -> Option<Errno> {
    Some(match message.trim_end() {
        "Service already exists" | "Destination already exists" => Errno::EEXIST,
        "Scheduler or persistence engine not found" | "No such destination" => Errno::ENOENT,
        "No such service" | "Service not defined" => Errno::ESRCH,
        "Invalid operation.  Possibly wrong module version, address not unicast, ..." => Errno::EINVAL,
        "Numerical result out of range" => Errno::ERANGE,
        "Daemon has already run" => Errno::EEXIST,
        "No daemon is running" => Errno::ESRCH,
        "No such device" => Errno::ENODEV,
        _ => return None,
    })
}

/// Samples of things that xlvs has not or that are other programs.
fn is_out_of_scope(sample: &Sample) -> bool {
    let command = sample.command.as_str();
    let shell = ["|", ";", ">", "cat ", "ls ", "lsmod", "unshare", "setpriv", "ipvsadm-restore"];
    shell.iter().any(|word| command.contains(word))
        || command.starts_with("ip ")
        || (command.contains("--tun-type g") && sample.code == 0)
}

fn check(sample: &Sample, story: &str, output: &Output) {
    let got = (output.stdout.as_str(), output.stderr.as_str(), output.code);
    let want = (sample.stdout.as_str(), sample.stderr.as_str(), sample.code);
    assert!(
        got == want,
        "{story}: $ ipvsadm {}\n--- the real one (exit {})\n{}{}--- ours (exit {})\n{}{}",
        sample.arguments(),
        want.2,
        want.0,
        want.1,
        got.2,
        got.0,
        got.1
    );
}

#[test]
fn every_sampled_command_line_is_answered_as_by_the_real_one() {
    let (mut replayed, mut skipped) = (0, Vec::new());
    for (file, sample) in samples::all() {
        if is_out_of_scope(&sample) {
            skipped.push(sample.command.clone());
            continue;
        }
        let answer = match errno_behind(&sample.stderr) {
            Some(errno) => Some(Reply::Refused(errno)),
            None => tables::reply_behind(&sample),
        };
        let (output, asked) = run(&sample.arguments(), "", answer);
        check(&sample, &file, &output);
        let found_by_ipvsadm = sample.code != 0 && errno_behind(&sample.stderr).is_none();
        assert!(!found_by_ipvsadm || asked.is_empty(), "{file}: {} asked {asked:?}", sample.command);
        replayed += 1;
    }
    assert!(replayed > 400, "only {replayed} samples replayed; skipped: {skipped:#?}");
}

#[test]
fn a_user_without_rights_gets_the_sampled_answer_and_the_reason() {
    struct Forbidden;
    impl Transport for Forbidden {
        fn call(&mut self, _: Request) -> Result<Reply, TransportError> {
            Err(TransportError::NotPermitted { socket: "/run/xlvs/control.sock".into() })
        }
    }
    let output = run_with("-Ln", "", &mut Forbidden, &NoNames);
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str(), output.code),
        (
            "",
            "Can't initialize ipvs: Permission denied (you must be root)\n\
             Are you sure that IP Virtual Server is built in the kernel or as module?\n\
             the control socket /run/xlvs/control.sock of the xlvs daemon is not for this user; try as root\n",
            2
        )
    );
}

#[test]
fn restore_goes_on_after_refusals_and_stops_at_usage_errors() {
    let hint = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n";
    // Input, standard error, exit code, number of requests; recorded from the real program.
    let cases = [
        ("", "", 0, 0),
        ("\n\n", "", 0, 0),
        ("-Z", "", 0, 1),
        ("   -Z   \n", "", 0, 1),
        ("ipvsadm -Z\n-C\n", "", 0, 2),
        ("ipvsadm\n-Z\tipvsadm\n", "", 0, 1),
        ("bogus\n-Z\n", hint, 255, 0),
        ("-Z\n# comment\n-Z\n", hint, 255, 1),
        ("-Z # x\n-C\n", "unexpected argument #\n", 2, 0),
        ("-R\n-Z\n", hint, 255, 0),
        ("-A --bogus\n-Z\n", "--bogus: unknown option\n", 0, 1),
        ("-Z\n-A --bogus\n", "--bogus: unknown option\n", 255, 1),
        ("-A\n-Z\n", "You need to supply the 'service-address' option for the 'add-service' command\n", 2, 0),
        ("-A -t nosuch:80\n-Z\n", "illegal virtual server address[:port] specified\n", 2, 0),
        ("\r\n-A -t 1.2.3.4:80 -p\r\n-Z\r-t\t1.2.3.4:80\r\n", "", 0, 2),
        ("-Z -t 1.2.3.4:80\0x\n", "", 0, 1),
        ("-Z \0x\n", "unexpected argument \n", 2, 0),
        ("-A -t 1.2.3.4:80 -s 'a b'\n", "unexpected argument b'\n", 2, 0),
    ];
    for (input, stderr, code, requests) in cases {
        let (output, asked) = run("-R --compat", input, None);
        assert_eq!((output.stderr.as_str(), output.code, asked.len()), (stderr, code, requests), "{input:?}");
    }
    let (output, asked) = run("-R --compat", "-Z\n-S\n", Some(Reply::Refused(Errno::ESRCH)));
    assert_eq!((output.stderr.as_str(), output.code), ("No such service\nNo such service\n", 1));
    assert_eq!(asked, [Request::Edit(Edit::Zero(None)), Request::ListServices]);
    let (output, asked) = run("-R --compat", "-L -t 1.2.3.4:80\n-C\n", Some(Reply::Refused(Errno::ESRCH)));
    assert_eq!((output.stderr.as_str(), output.code, asked.len()), ("No such service\n", 1, 1));
}

#[test]
fn version_and_help_need_no_daemon_and_read_no_further() {
    let (version, asked) = run("-v foo", "", None);
    assert_eq!(version.stdout, "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n");
    assert_eq!((version.code, asked.len()), (0, 0));
    let (help, asked) = run("-R", "-h\n-Z\n", None);
    assert!(
        help.stdout.starts_with(&version.stdout) && help.stdout.contains("--persistent-conn"),
        "{help:?}"
    );
    assert_eq!((help.code, asked.len()), (0, 0));
}

#[test]
fn every_change_that_ldirectord_asked_for_is_understood() {
    let log = include_str!("ipvsadm/ldirectord-ipvsadm-calls.log");
    let calls = log.lines().filter_map(|line| line.strip_suffix("-> 0")?.split_once("ipvsadm "));
    let mut changes = 0;
    for (_, line) in calls.filter(|(_, line)| !line.starts_with("-L")) {
        let (output, asked) = run(&line.replace('\\', ""), "", None);
        let understood = output == Output::default() && matches!(asked.as_slice(), [Request::Edit(_)]);
        assert!(understood, "{line}: asked {asked:?}, answered {output:?}");
        changes += 1;
    }
    assert!(changes > 40, "only {changes} changes in the log");
}
