"""Where and when it was measured, and how quiet the machine was."""

import os
import platform
import subprocess
import time
from pathlib import Path

VERSIONS = {
    "haproxy": ["haproxy", "-v"],
    "nft": ["nft", "--version"],
    "nginx": ["nginx", "-v"],
    "wrk": ["wrk", "-v"],
}


def first_line(command):
    """What a program says first, or that it is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "not there"
    return ((done.stdout or done.stderr).splitlines() or ["silent"])[0].strip()


def processor():
    """Its name, and whether it is a virtual one."""
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    virtual = " hypervisor" in text
    return f"{os.cpu_count()} × {names[0] if names else platform.machine()}{', virtual' if virtual else ''}"


def describe(root, programs):
    """Everything that a reader needs to judge the numbers by."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "xlvs": first_line([programs / "xlvs", "version"]),
        "commit": first_line(["git", "-c", "safe.directory=*", "-C", str(root), "describe", "--always", "--dirty"]),
        **{name: first_line(command) for name, command in VERSIONS.items()},
    }
