"""What small packets cost: those of many established flows, one way, sent by tools/traffic.c."""

import json
from dataclasses import dataclass, field

from commands import RigError
from lab import FLOWS, MACS, OUTSIDE, SINK, SINK_PORT, SOURCE, SOURCE_PORT, RouterClock

# A rate at which no more than this share is lost counts as free of loss: the rings of a veth hold 256 packets, so a core
# that is taken away for a millisecond loses some whatever the balancer does.
LOSS_ALLOWED = 0.001
# What the source can do at most; nothing is asked of it beyond.
FASTEST = 5e6
# The one of middling cost counts.
FLOODS = 3
# Slow enough for any path.
OPENING_RATE = 50_000
WARM_UP_PACKETS = 20
# Of a path's own capacity, in hundredths.
LOADS = (10, 80)
CURVE = (2, 10, 30, 55, 80)
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
# From this share of its core on the router has nothing left.
SATURATED = 0.95


@dataclass
class Trial:
    """One stretch of sending at one rate."""

    sent: int
    flood: int
    arrived: int
    openings: int
    bad: int
    checked: int
    seconds: float
    router: int
    foreign: float
    latency: list = field(repr=False, default_factory=list)

    @property
    def rate(self):
        """Packets a second that arrived."""
        return self.arrived / self.seconds

    @property
    def offered(self):
        """Packets a second that were sent."""
        return self.sent / self.seconds

    @property
    def cost(self):
        """Router's CPU nanoseconds for each packet that arrived."""
        return self.router / max(self.arrived, 1)

    @property
    def busy(self):
        """Share of the router's core."""
        return self.router / 1e9 / self.seconds

    @property
    def lost(self):
        """Share of what was sent that did not arrive."""
        return 1 - self.arrived / max(self.sent, 1)


def percentile(histogram, share):
    """Nanoseconds that this share of [nanoseconds, count] pairs stays below."""
    wanted = share * sum(count for _, count in histogram)
    for nanoseconds, count in histogram:
        wanted -= count
        if wanted <= 0:
            return nanoseconds
    return None


class Traffic:
    """Source and sink of one lab."""

    def __init__(self, lab, path, process, tools, options):
        self.path, self.flows, self.peak = path, options.flows, 0
        self.tcp = options.protocol == "tcp"
        next_port = SINK_PORT if lab.direct else OUTSIDE
        command = [
            tools / "traffic",
            options.protocol,
            tools / "traffic.bpf.o",
            SOURCE,
            SOURCE_PORT,
            SINK,
            SINK_PORT,
            MACS[SOURCE_PORT],
            MACS[next_port],
            FLOWS,
            path.destination,
            *expected(path),
        ]
        self.traffic = lab.spawn(SOURCE, command, [lab.cores.source], favoured=True, pipes=True)
        self.traffic.hear()
        self.clock = RouterClock(lab, process)

    def send(self, rate, seconds, flows=None, stamped=False, flood=None):
        """Sends at a rate, 0 for all that goes, and waits until the rest has arrived; beside it a flood of SYNs, if wished."""
        trial = self.order("send", rate, seconds, flows or self.flows, stamped, flood)
        self.peak = max(self.peak, trial.rate)
        return trial

    def order(self, verb, rate, seconds, flows, stamped, flood=None):
        """One trial of tools/traffic.c."""
        self.clock.start()
        beside = "" if flood is None else flood
        said = json.loads(self.traffic.ask(f"{verb} {rate} {seconds} {flows} {int(stamped)} {beside}"))
        router = self.clock.nanoseconds()
        trial = Trial(router=router, foreign=self.clock.foreign_share(router), **said)
        if trial.bad:
            raise RigError(
                f"{self.path.label}: {trial.bad} of {trial.checked} packets arrived with a wrong address or checksum"
            )
        return trial

    def open(self, flows):
        """Establishes flows, slowly, and twice for those that were lost on the way."""
        seconds = max(0.05, flows / OPENING_RATE * 1.05)
        for verb in ["open", "send"] * 2 if self.tcp else ["send"] * 2:
            self.require(
                self.order(verb, OPENING_RATE, seconds, flows, stamped=False), f"opening {flows} flows"
            )

    def warm_up(self):
        """Some packets of each flow, for those who treat a flow otherwise once they know it."""
        self.send(OPENING_RATE, WARM_UP_PACKETS * self.flows / OPENING_RATE)

    def require(self, trial, what):
        """A path that delivers nothing is broken, however fast it is."""
        if not trial.arrived:
            raise RigError(f"{self.path.label}: {what}: none of {trial.sent} packets arrived")
        return trial


def expected(path):
    """The two addresses that packets may arrive at."""
    if path.destination in path.arrivals:
        return (path.destination, path.destination)
    return path.arrivals


def free_of_loss(traffic, highest, steps, seconds):
    """The highest rate without loss, by bisection: the last trial that passed, or None. A rate counts as lost when it fails
    twice, since the machine's own hiccups lose packets too."""
    low, high, best = 0, highest, None
    for _ in range(steps):
        rate = (low + high) / 2
        trials = (traffic.send(rate, seconds) for _ in range(2))
        passed = next((trial for trial in trials if trial.lost <= LOSS_ALLOWED), None)
        if passed:
            low, best = rate, passed
        else:
            high = rate
    return best


def at_loads(kind, loads, capacity, histogram_at):
    """Percentiles at parts of a capacity, as {measurement: value}; `histogram_at(rate)` measures. Each with its rate, since what
    source and sink take by themselves depends on it."""
    found = {}
    for load in loads:
        rate = capacity * load / 100
        histogram = histogram_at(rate)
        found[f"{kind}_{load}_rate"] = rate
        for name, share in PERCENTILES.items():
            found[f"{kind}_{load}_{name}"] = percentile(histogram, share)
    return found


def loads_of(path):
    """The path without a router is looked at more closely: it is what the others are held against."""
    return CURVE if path.direct else LOADS


def measure(lab, path, process, tools, options, say):
    """One round of the packet rows of one path, as {measurement: value}."""
    traffic = Traffic(lab, path, process, tools, options)
    traffic.open(options.flows)
    traffic.warm_up()
    say("flood")
    floods = [traffic.require(traffic.send(0, options.packet_seconds), "flood") for _ in range(FLOODS)]
    flood = sorted(floods, key=lambda trial: trial.cost)[FLOODS // 2]
    lab.at_once(process, True)
    say("loss-free rate")
    best = free_of_loss(traffic, min(FASTEST, flood.rate * 1.5), options.steps, options.packet_seconds / 2)
    found = {
        "delivered": flood.rate,
        "offered": flood.offered,
        "cost": flood.cost,
        "busy": flood.busy,
        "foreign": flood.foreign,
        "kept": flood.rate / traffic.peak,
        "loss_free": best.rate if best else 0,
        "loss_free_cost": best.cost if best else None,
    }
    say("latency")

    def histogram_at(rate):
        return traffic.require(
            traffic.send(rate, options.packet_seconds, stamped=True), f"{rate:.0f} packets/s"
        ).latency

    return found | at_loads("latency", loads_of(path), best.rate if best else flood.rate / 2, histogram_at)
