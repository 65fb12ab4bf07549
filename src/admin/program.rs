//! The programs `ipvsadm`, `ipvsadm-save` and `ipvsadm-restore`, between the command line and the exit code.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use super::{ControlSocket, Outcome, SystemResolver};

const SAVE_HELP: &str = "\
usage: ipvsadm-save [-n] > FILE

Prints the table as command lines that ipvsadm-restore takes; with -n in numbers, without looking up names.
";

const RESTORE_HELP: &str = "\
usage: ipvsadm-restore [--compat] < FILE

Replaces the table by what the command lines say; lines that begin with # are comments.
If a line is wrong or refused, nothing is changed. With --compat the table is cleared at
once and the lines are carried out one by one, as the original ipvsadm-restore does.
";

/// `ipvsadm`.
pub fn ipvsadm(args: &[OsString]) -> ExitCode {
    let mut socket = ControlSocket::from_environment();
    let mut stdout = BufWriter::new(io::stdout().lock());
    let resolver = SystemResolver::default();
    end(&super::run(args, &mut io::stdin().lock(), &mut stdout, &mut socket, &resolver))
}

/// `ipvsadm-save`: plain words are ignored, as by the original.
pub fn save(args: &[OsString]) -> ExitCode {
    let mut numeric = false;
    for word in args {
        match word.to_str() {
            Some("-n") => numeric = true,
            Some(word) if word.starts_with('-') => return end(&failed(SAVE_HELP.into())),
            _ => {}
        }
    }
    ipvsadm(&[if numeric { "-Sn" } else { "-S" }.into()])
}

/// `ipvsadm-restore`. The original ignores all words, and so would clear the table for one who asks for help.
pub fn restore(args: &[OsString]) -> ExitCode {
    let mut compatible = false;
    for word in args {
        match word.to_string_lossy().as_ref() {
            "--compat" => compatible = true,
            "-n" => {}
            "-h" | "--help" => return end(&Outcome { stderr: RESTORE_HELP.into(), code: 0 }),
            word => return end(&failed(format!("ipvsadm-restore: what is `{word}'?\n{RESTORE_HELP}"))),
        }
    }
    let mut socket = ControlSocket::from_environment();
    let mut stdout = BufWriter::new(io::stdout().lock());
    let resolver = SystemResolver::default();
    end(&super::restore(compatible, &mut io::stdin().lock(), &mut stdout, &mut socket, &resolver))
}

fn failed(stderr: String) -> Outcome {
    Outcome { stderr, code: 1 }
}

fn end(outcome: &Outcome) -> ExitCode {
    // With nobody to read the error the exit code still tells that there was one.
    let _ = io::stderr().write_all(outcome.stderr.as_bytes());
    ExitCode::from(outcome.code)
}
