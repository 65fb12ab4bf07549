//! Compiles the XDP programs with clang.

use std::path::Path;
use std::process::{Command, exit};

const PROGRAMS: [&str; 2] = ["xlvs", "inject"];
const HEADERS: [&str; 5] = ["bpf/bpf_call.h", "bpf/front.h", "bpf/packet.h", "bpf/shortcut.h", "bpf/trial.h"];

fn main() {
    let out = std::env::var("OUT_DIR").unwrap_or_else(|_| fail("OUT_DIR is not set; build with cargo"));
    println!("cargo::rerun-if-changed=bpf/build.rs");
    for header in HEADERS {
        println!("cargo::rerun-if-changed={header}");
    }
    for program in PROGRAMS {
        let source = format!("bpf/{program}.bpf.c");
        println!("cargo::rerun-if-changed={source}");
        compile(&source, &Path::new(&out).join(format!("{program}.bpf.o")));
    }
}

fn compile(source: &str, object: &Path) {
    let status = Command::new("clang")
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-c", source, "-o"])
        .arg(object)
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(_) => fail(&format!(
            "clang could not compile {source}; if a header is missing: apt-get install linux-libc-dev libc6-dev"
        )),
        Err(error) => fail(&format!("cannot run clang ({error}): apt-get install clang linux-libc-dev")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(1)
}
