//! Prints the table of the xlvs daemon as command lines.

use std::process::ExitCode;

fn main() -> ExitCode {
    xlvs::admin::program::save(&std::env::args_os().skip(1).collect::<Vec<_>>())
}
