"""What a connection of xlvs takes: growth of its resident memory, by connections of UDP opened from many addresses."""

from pathlib import Path

from lab import RigError
from packets import Traffic

# Slow enough that none is lost on the way, and then once more for those that were.
OPENING_RATE = 100_000


def resident(process):
    """Bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RigError(f"{process.name} has ended")


def connections(lab, path):
    """As `ipvsadm -Ln` counts them."""
    rows = (line.split() for line in path.run(lab, "ipvsadm", "-Ln").stdout.splitlines())
    return sum(int(row[4]) + int(row[5]) for row in rows if row[:1] == ["->"] and row[-1].isdigit())


def measure(lab, path, process, tools, options, say):
    """Bytes for each connection, as {measurement: value}."""
    traffic = Traffic(lab, path, process, tools, options.flows)
    traffic.require(traffic.send(OPENING_RATE, 0.1), "opening the first flows")
    before, had = resident(process), connections(lab, path)
    say(f"{options.connections} connections")
    for _ in range(2):
        traffic.send(OPENING_RATE, options.connections / OPENING_RATE * 1.05, flows=options.connections)
    grown, have = resident(process) - before, connections(lab, path)
    if have < options.connections * 0.9:
        raise RigError(f"{path.label}: {have} connections in the table after packets of {options.connections} flows")
    return {"memory": grown / (have - had), "memory_connections": have}
