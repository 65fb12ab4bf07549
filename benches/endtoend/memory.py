"""What a connection of xlvs takes: growth of its resident memory, by connections opened from many addresses."""

import json
from pathlib import Path

from commands import RigError
from packets import Traffic


def resident(process):
    """Bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RigError(f"{process.name} has ended")


def connections(lab, path):
    """As `xlvs status` counts them."""
    return json.loads(path.run(lab, "xlvs", "status", "--json").stdout)["connections"]


def measure(lab, path, process, tools, options, say):
    """Bytes for each connection, as {measurement: value}."""
    traffic = Traffic(lab, path, process, tools, options)
    traffic.open(options.flows)
    before, had = resident(process), connections(lab, path)
    say(f"{options.connections} connections")
    traffic.open(options.connections)
    grown, have = resident(process) - before, connections(lab, path)
    if have <= had:
        raise RigError(
            f"{path.label}: {had} connections in the table, and {have} after packets of {options.connections} flows"
        )
    return {"memory": grown / (have - had), "memory_connections": have}
