"""Compiles the rig's own programs, those in C, if they are older than their sources."""

import os
import shutil
import subprocess
from pathlib import Path

from commands import RigError

SOURCES = Path(__file__).parent / "tools"
WARNINGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror")
# XDP programs look at headers where they lie.
BPF = (
    "-target",
    "bpf",
    "-Wno-address-of-packed-member",
    f"-I/usr/include/{os.uname().machine}-linux-gnu",
    "-c",
)
PROGRAMS = {
    "traffic": (["traffic.c"], ["-lbpf"]),
    "traffic.bpf.o": (["traffic.bpf.c"], BPF),
    "peer": (["peer.c"], ["-lxdp", "-lbpf"]),
    "peer.bpf.o": (["peer.bpf.c"], BPF),
    "crowd": (["crowd.c"], ["-lbpf"]),
    "crowd.bpf.o": (["crowd.bpf.c"], BPF),
    "asker": (["asker.c"], []),
}


def outdated(target):
    """Whether any source is newer; headers belong to all of them."""
    return not target.exists() or any(
        source.stat().st_mtime > target.stat().st_mtime for source in SOURCES.iterdir()
    )


def compile_tools(directory):
    """Compiles into a directory and returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, (sources, options) in PROGRAMS.items():
        target = directory / name
        if not outdated(target):
            continue
        command = ["clang", *WARNINGS, *(SOURCES / source for source in sources), "-o", target, *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RigError(
                f"cannot compile {name} (tests/install.sh bench installs what it needs):\n{done.stderr}"
            )
    shutil.copy(SOURCES / "wrk.lua", directory)
    return directory
