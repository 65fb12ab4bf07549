//! The daemon and the operator's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    xlvs::admin::operator::main(std::env::args_os().skip(1).collect())
}
