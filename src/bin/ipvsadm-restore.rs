//! Restores the table of the xlvs daemon from command lines.

use std::process::ExitCode;

fn main() -> ExitCode {
    xlvs::admin::program::restore(&std::env::args_os().skip(1).collect::<Vec<_>>())
}
