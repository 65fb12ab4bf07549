"""What is left to established flows beside a flood of SYNs from addresses that nobody has."""

from packets import FASTEST, Traffic, free_of_loss, percentile

# Of a path's own loss-free rate, in hundredths.
LOADS = (10, 50)
# SYNs a second; 0: as many as the source can send besides.
FLOODS = (100_000, 500_000, 0)
NAMES = {None: "none", 100_000: "100,000", 500_000: "500,000", 0: "all that go"}
PATHS = ("cable", "forward", "nft", "xlvs", "shortcut")
# Entries of a table that has a bound: more than there are flows, and soon full.
CONNECTIONS = 100_000
TRIALS = (True, False, True, False)


def best_trial(lab, process, traffic, rate, options, flood):
    """The one of several in which most of the flows' packets arrived: the machine's own hiccups lose packets too. In half of them
    the router's softirqs come first, as is best below what it can bear; in half of them softirqs and balancer share the core."""
    trials = []
    for at_once in TRIALS[:2] if options.quick else TRIALS:
        lab.at_once(process, at_once)
        trials.append(trial(lab, traffic, rate, options.packet_seconds, flood))
    lab.at_once(process, False)
    return max(trials, key=lambda found: found["share"])


def trial(lab, traffic, rate, seconds, flood):
    """One stretch: what arrived of the flows' packets and when, and what was lost before the router."""
    before, behind = lab.wire_losses()
    found = traffic.send(rate, seconds, stamped=True, flood=flood)
    lost = lab.wire_losses()
    return {
        "share": (found.arrived - found.openings) / found.sent,
        "offered": found.flood / found.seconds,
        "opened": found.openings / max(found.flood, 1),
        "before": (lost[0] - before) / (found.sent + found.flood),
        "behind": (lost[1] - behind) / (found.sent + found.flood),
        "busy": found.busy,
        "p50": percentile(found.latency, 0.5),
        "p99": percentile(found.latency, 0.99),
    }


def measure(lab, path, process, tools, options, say):
    """One round of one path, as {measurement: value}."""
    traffic = Traffic(lab, path, process, tools, options)
    path.limit(lab, CONNECTIONS)
    traffic.open(options.flows)
    traffic.warm_up()
    say("loss-free rate")
    fastest = traffic.require(traffic.send(0, options.packet_seconds), "flood").rate * 1.5
    lab.at_once(process, True)
    best = free_of_loss(traffic, min(FASTEST, fastest), options.steps, options.packet_seconds / 2)
    capacity = best.rate if best else fastest / 4
    found = {"defence_capacity": capacity}
    for load in LOADS:
        for flood in (None, *FLOODS):
            say(f"flows at {load} %, SYNs a second: {NAMES[flood]}")
            rate = capacity * load / 100
            for name, value in best_trial(lab, process, traffic, rate, options, flood).items():
                found[f"defence_{load}_{flood}_{name}"] = value
    return found
