//! Drop-in for ipvsadm 1.31 that speaks to the xlvs daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    xlvs::admin::program::ipvsadm(&std::env::args_os().skip(1).collect::<Vec<_>>())
}
