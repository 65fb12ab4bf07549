//! Drop-in for ipvsadm 1.31 that speaks to the xlvs daemon.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use xlvs::admin::{self, ControlSocket, SystemResolver};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let mut socket = ControlSocket::from_environment();
    let output = admin::run(&args, &mut io::stdin().lock(), &mut socket, &SystemResolver::default());
    // Whoever reads our output may have gone; the exit code still tells what happened.
    let _ = io::stdout().write_all(output.stdout.as_bytes());
    let _ = io::stderr().write_all(output.stderr.as_bytes());
    ExitCode::from(output.code)
}
