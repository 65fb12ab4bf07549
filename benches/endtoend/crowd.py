"""Many connections through xlvs, spoken by tools/crowd.c, and what xlvs says of them meanwhile."""

import bisect
import json
import re
import time
from dataclasses import dataclass

from commands import RigError
from lab import FLOWS, MACS, OUTSIDE, SERVERS, SINK, SINK_PORT, SOURCE, SOURCE_PORT, RouterClock
from memory import resident

# Seconds that a closed connection stays: IPVS has no setting for it.
TIME_WAIT = 120
# A timer may be late by a turn of its wheel, and by what keeps the program from running.
LATE = 0.5
ROW = re.compile(r"^\s+-> (\S+):80\s+Masq\s+\d+\s+(\d+)\s+(\d+)\s*$")


class Crowd:
    """The clients and servers of one lab."""

    def __init__(self, lab, path, tools, held, others):
        command = [
            tools / "crowd",
            tools / "crowd.bpf.o",
            SOURCE,
            SOURCE_PORT,
            SINK,
            SINK_PORT,
            MACS[SOURCE_PORT],
            MACS[OUTSIDE],
            FLOWS,
            path.destination,
            *SERVERS,
            held,
            others,
        ]
        self.process = lab.spawn(SOURCE, command, [lab.cores.source], favoured=True, pipes=True)
        self.process.hear()
        self.times, self.sent, self.closed = [], [], []

    def order(self, line):
        """One command of tools/crowd.c; how far everything was then is kept."""
        said = json.loads(self.process.ask(line))
        if "closed" in said:
            self.times.append(time.monotonic())
            self.sent.append(said["churn"]["sent"])
            self.closed.append(said["closed"])
        return said

    def count(self):
        """How far everything is."""
        return self.order("count")

    def wait(self, window, say):
        """Until all of one window have been served or given up."""
        while True:
            said = self.count()
            if not said[window]["waiting"] and not said[window]["left"]:
                return said
            say(said)
            time.sleep(0.2)

    def closed_by(self, moment, rounded_up):
        """How many were closed at a moment that lies between two looks: at the one before, or at the one after."""
        at = bisect.bisect_left(self.times, moment) if rounded_up else bisect.bisect_right(self.times, moment) - 1
        return self.closed[min(at, len(self.closed) - 1)] if at >= 0 else 0

    def bounds(self, before, after):
        """How many connections may be neither established nor gone between two of our looks at the clients, the least and the
        most: those closed within TIME_WAIT, and those on the way there."""
        least = self.closed[before] - self.closed_by(self.times[after] - TIME_WAIT, rounded_up=True)
        most = self.sent[after] - self.closed_by(self.times[before] - TIME_WAIT - LATE, rounded_up=False)
        return max(0, least), most


@dataclass
class Sample:
    """What xlvs had at one moment, and what it must have had."""

    second: float
    resident: int
    busy: float
    active: list
    inactive: list
    active_least: int
    active_most: int
    inactive_least: int
    inactive_most: int
    answered: int
    closed: int

    @property
    def exact(self):
        """Whether both sums are among those that are possible."""
        active, inactive = sum(self.active), sum(self.inactive)
        return self.active_least <= active <= self.active_most and (
            self.inactive_least <= inactive <= self.inactive_most
        )


class Observer:
    """Takes samples."""

    def __init__(self, lab, path, process, crowd, held):
        self.lab, self.path, self.process, self.crowd, self.held = lab, path, process, crowd, held
        self.clock = RouterClock(lab, process)
        self.began = self.last = time.monotonic()

    def begin(self):
        """Seconds count from now."""
        self.began = self.last = time.monotonic()
        self.clock.start()

    def table(self):
        """ActiveConn and InActConn of each server, as ipvsadm prints them."""
        done = self.path.run(self.lab, "ipvsadm", "-Ln", "-t", f"{self.path.destination}:80")
        rows = {found[1]: found for found in map(ROW.match, done.stdout.splitlines()) if found}
        if done.returncode or set(rows) != set(SERVERS):
            raise RigError(f"ipvsadm -Ln: {done.stdout}{done.stderr}")
        return [[int(rows[server][column]) for server in SERVERS] for column in (2, 3)]

    def sample(self):
        """One look. Between the two questions to the clients some are on the way."""
        first = self.crowd.count()
        before = len(self.crowd.times) - 1
        active, inactive = self.table()
        second = self.crowd.count()
        least, most = self.crowd.bounds(before, len(self.crowd.times) - 1)
        now = time.monotonic()
        busy = self.clock.nanoseconds() / 1e9 / (now - self.last)
        self.clock.start()
        self.last = now
        return Sample(
            second=now - self.began,
            resident=resident(self.process),
            busy=busy,
            active=active,
            inactive=inactive,
            active_least=self.held,
            active_most=self.held + second["churn"]["sent"] - first["closed"],
            inactive_least=least,
            inactive_most=most,
            answered=second["answered"],
            closed=second["closed"],
        )

    def totals(self):
        """What the daemon counts."""
        return json.loads(self.path.run(self.lab, "xlvs", "status", "--json").stdout)
