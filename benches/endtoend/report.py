"""The table: medians over the rounds with the least and the greatest, ratios within each round, and what the goals say."""

import json
from statistics import median

import defence
from packets import CURVE, LOADS, PERCENTILES, SATURATED

MICRO, MILLION, GIGA = 1e3, 1e6, 1e9
PACKETS = [
    ("CPU a packet, ns", "cost", 1),
    ("offered, Mpps", "offered", MILLION),
    ("delivered, Mpps", "delivered", MILLION),
    ("of its peak, %", "kept", 0.01),
    ("loss-free, Mpps", "loss_free", MILLION),
    ("CPU a packet there, ns", "loss_free_cost", 1),
]
STREAMS = [
    ("new connections/s", "connections", 1),
    ("CPU each, µs", "connection_cost", MICRO),
    ("requests/s", "requests", 1),
    ("CPU each, µs", "request_cost", MICRO),
    ("bulk, Gbit/s", "bulk", GIGA),
    ("CPU a KiB, ns", "bulk_cost", 1),
]
BUSY = {
    "delivered": "busy",
    "connections": "connections_busy",
    "requests": "requests_busy",
    "bulk": "bulk_busy",
}
COST_GOALS = [
    ("CPU a packet", "cost", "xlvs", "afxdp", 1.1, True),
    ("CPU a packet", "cost", "xlvs", "nft", 1.0, True),
    ("CPU a packet", "cost", "shortcut", "xdp", 1.3, True),
    ("CPU a packet", "cost", "shortcut", "nft", 1 / 3, True),
]
DEFENCE = [
    ("SYNs, Mpps", "offered", MILLION),
    ("flows' packets delivered, %", "share", 0.01),
    ("p50, µs", "p50", MICRO),
    ("p99, µs", "p99", MICRO),
    ("lost before the router, % of all", "before", 0.01),
    ("SYNs delivered, %", "opened", 0.01),
]
MEMORY = [("bytes a connection", "memory", 1), ("connections", "memory_connections", 1)]


def latency_columns(kind):
    """Microseconds at each load."""
    return [
        (f"{name.replace('p999', 'p99.9')} at {load} %", f"{kind}_{load}_{name}", MICRO)
        for load in LOADS
        for name in PERCENTILES
    ]


def number(value):
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


class Results:
    """What every round of every path found."""

    def __init__(self, labels):
        self.labels = labels
        self.rounds = {name: [] for name in labels}
        self.notes = []
        self.failures = []

    def add(self, name, number, found):
        """Measurements of one round."""
        rounds = self.rounds[name]
        while len(rounds) <= number:
            rounds.append({})
        rounds[number].update(found)

    def values(self, name, key):
        """Of all rounds that have it."""
        return [found[key] for found in self.rounds.get(name, []) if found.get(key) is not None]

    def middle(self, name, key):
        """The median, or None."""
        values = self.values(name, key)
        return median(values) if values else None

    def paired(self, name, other, key):
        """Ratios of two paths within each round: what changed between rounds cancels."""
        pairs = zip(self.rounds.get(name, []), self.rounds.get(other, []))
        return [one[key] / two[key] for one, two in pairs if one.get(key) is not None and two.get(key)]


def spread(values, unit=1):
    """Median, and the least and the greatest of several."""
    if not values:
        return "–"
    text = number(median(values) / unit)
    return text if len(values) == 1 else f"{text} ({number(min(values) / unit)}–{number(max(values) / unit)})"


def table(header, rows):
    """Markdown."""
    lines = [
        "| " + " | ".join(cells) + " |" for cells in [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    ]
    return "\n".join(lines) + "\n"


def cell(results, name, key, unit):
    """A spread, with a mark where the router's core had time left and so was not what bounded it."""
    text = spread(results.values(name, key), unit)
    share = results.middle(name, BUSY[key]) if key in BUSY else None
    if share is None or name == "cable" or share >= SATURATED:
        return text
    return f"{text} °{share * 100:.0f}"


def section(results, columns):
    """The paths that have any of these, in their order."""
    names = [name for name in results.labels if any(results.values(name, key) for _, key, _ in columns)]
    rows = [
        [results.labels[name], *(cell(results, name, key, unit) for _, key, unit in columns)]
        for name in names
    ]
    return table(["", *(title for title, _, _ in columns)], rows) if rows else ""


def defence_rows(results):
    """Flows and SYNs, a row for each load and flood."""
    rows = []
    for name, label in results.labels.items():
        for load in defence.LOADS:
            for flood in (None, *defence.FLOODS):
                cells = [spread(results.values(name, f"defence_{load}_{flood}_{key}"), unit) for _, key, unit in DEFENCE]
                if any(cell != "–" for cell in cells):
                    rows.append([f"{label} at {load} %, SYNs: {defence.NAMES[flood]}", *cells])
    return table(["", *(title for title, _, _ in DEFENCE)], rows) if rows else ""


def interpolate(points, at):
    """The value of a curve of (position, value), level beyond its ends."""
    for (low, first), (high, second) in zip(points, points[1:]):
        if low <= at <= high:
            return first + (second - first) * (at - low) / (high - low)
    return points[0][1] if at < points[0][0] else points[-1][1]


def curve(results, kind, name):
    """What source and sink take by themselves, by rate: medians."""
    points = [
        (results.middle("cable", f"{kind}_{load}_rate"), results.middle("cable", f"{kind}_{load}_{name}"))
        for load in CURVE
    ]
    return sorted(point for point in points if None not in point) or [(0, 0)]


def added(results, kind):
    """Copies of latencies less what the same source and sink take without a router at the same rate."""
    bare = Results({name: label for name, label in results.labels.items() if name != "cable"})
    bases = {name: curve(results, kind, name) for name in PERCENTILES}
    for path in bare.labels:
        for number_, found in enumerate(results.rounds[path]):
            for load in LOADS:
                for name, base in bases.items():
                    value = found.get(f"{kind}_{load}_{name}")
                    if value is not None:
                        less = max(0, value - interpolate(base, found[f"{kind}_{load}_rate"]))
                        bare.add(path, number_, {f"{kind}_{load}_{name}": less})
    return bare


def goal(results, what, key, name, other, limit, below):
    """One row: what was found beside the goal. Without another path it is a figure of this path alone."""
    values = results.paired(name, other, key) if other else results.values(name, key)
    title = f"{what}: " + " / ".join(results.labels.get(each, each) for each in (name, other) if each)
    wanted = f"{'≤' if below else '≥'} {limit:.2f}"
    if not values:
        return [title, "–", wanted, "not measured"]
    good = median(values) <= limit if below else median(values) >= limit
    return [title, spread(values), wanted, "holds" if good else "missed"]


def goals(results):
    """All of them."""
    both = [
        row
        for name in ("xlvs", "shortcut")
        for row in [
            ("new connections/s", "connections", name, "nft", 1.0, False),
            ("new connections/s", "connections", name, "haproxy", 1.7, False),
            # The same where end hosts, not the router's core, are the limit: what the core could do.
            ("CPU a new connection", "connection_cost", name, "haproxy", 1 / 1.7, True),
            *(
                (
                    f"p99 of an answer at {load} %, the ends' part too",
                    f"answer_{load}_p99",
                    name,
                    "haproxy",
                    1.0,
                    True,
                )
                for load in LOADS
            ),
            ("delivered in a flood, of its peak", "kept", name, None, 0.8, False),
        ]
    ]
    return [goal(results, *row) for row in [*COST_GOALS, *both]]


def ratios(results):
    """xlvs beside every other path."""
    keys = [
        ("CPU a packet", "cost"),
        ("delivered", "delivered"),
        ("loss-free", "loss_free"),
        ("new connections/s", "connections"),
        ("CPU a connection", "connection_cost"),
        ("requests/s", "requests"),
        ("CPU a request", "request_cost"),
        ("bulk", "bulk"),
        ("CPU a KiB", "bulk_cost"),
    ]
    rows = []
    for name in ("xlvs", "shortcut"):
        for other in results.labels:
            cells = [spread(results.paired(name, other, key)) for _, key in keys]
            if other not in (name, "cable") and any(cell != "–" for cell in cells):
                rows.append([f"{results.labels[name]} / {results.labels[other]}", *cells])
    return table(["", *(title for title, _ in keys)], rows) if rows else ""


def markdown(results, machine, parameters):
    """The whole page."""
    latency = added(results, "latency"), added(results, "answer")
    parts = [
        (
            "",
            "# End to end\n\n"
            + "".join(f"* {name}: {value}\n" for name, value in {**machine, **parameters}.items()),
        ),
        ("Notes", "".join(f"* {note}\n" for note in results.failures + results.notes)),
        ("Small packets, one way, all that the source can send", section(results, PACKETS)),
        (
            "Latency of packets added by the router, µs, one way",
            section(latency[0], latency_columns("latency")),
        ),
        ("Connections, requests, bulk", section(results, STREAMS)),
        (
            "Latency of answers added by the router, µs, there and back",
            section(latency[1], latency_columns("answer")),
        ),
        ("Established flows beside a flood of SYNs", defence_rows(results)),
        ("Memory", section(results, MEMORY)),
        ("xlvs beside each path, ratios within each round", ratios(results)),
        ("Goals", table(["", "found", "goal", ""], goals(results))),
    ]
    text = "\n".join(f"## {title}\n\n{body}" if title else body for title, body in parts if body)
    return (
        text
        + "\n°N: the router used N % of its core; something else was the limit, and the path can do more.\n"
    )


def as_json(results, machine, parameters):
    """Every value of every round, in the units of the program: nanoseconds, bits, a second."""
    return json.dumps(
        {
            "machine": machine,
            "parameters": parameters,
            "labels": results.labels,
            "rounds": results.rounds,
            "notes": results.notes,
            "failures": results.failures,
        },
        indent=1,
        ensure_ascii=False,
    )
