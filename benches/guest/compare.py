#!/usr/bin/python3
"""Instructions of the router per packet, for several routers one after the other. Runs in the guest (tests/guest/boot.sh
--count), where a nanosecond of processor time is an instruction; elsewhere it would give nanoseconds.

What is counted is all that the router's threads execute: those of its two interfaces and those of the process, if it is
one. The source and the sink have threads of their own, which are not counted. All share one processor; the order of their
priorities (router, process, sink, source) sees to it that no queue overflows."""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import counting
import lab
import profiling
import report
import routers

def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True, metavar="DIR", help="where xlvs and ipvsadm are")
    parser.add_argument("--forwarder", required=True, metavar="FILE", help="the AF_XDP forwarder; it need not be there")
    parser.add_argument("--object", required=True, metavar="FILE", help="packets.bpf.c, compiled")
    parser.add_argument("--out", required=True, metavar="DIR", help="where guest.md and guest.json go")
    parser.add_argument("--packets", type=int, default=20000, help="to measure with (default 20000)")
    parser.add_argument("--flows", type=int, default=1000, help="they belong to, at most 60000 (default 1000)")
    parser.add_argument("--repeats", type=int, default=1, help="of each measurement; the median counts (default 1)")
    parser.add_argument("--rows", help="only these, such as ipvs,xlvs")
    parser.add_argument("--profile", type=int, default=0, metavar="PACKETS",
                        help="and so many in which perf samples where the instructions go (attribute.py reads the result)")
    return parser.parse_args()


def settle():
    """Waits until what was sent has been worked off; everything that works goes before this."""
    time.sleep(0.3)


def measure(programs, processes, packets):
    """One measurement: packets delivered, and instructions per packet by thread."""
    delivered, before = programs.count("delivered"), counting.used(processes)
    programs.send(packets)
    settle()
    after, delivered = counting.used(processes), programs.count("delivered") - delivered
    if delivered == 0:
        raise lab.Failure("no packet has arrived at the servers")
    cost = {name: (after[name] - before.get(name, 0)) / delivered for name in after}
    return {"delivered": delivered, "cost": cost, "router": sum(cost.get(name, 0) for name in counting.ROUTER_THREADS)}


def measure_router(router, programs, options):
    lab.build()
    programs.attach("s0", "sink")
    with tempfile.TemporaryDirectory() as directory, router.running(programs, directory) as processes:
        programs.plan(router.destination, options.flows)
        counting.arrange(processes, router.sink_first)
        # Opens all flows, and warms whatever there is to warm.
        programs.send(max(8 * options.flows, 8192))
        settle()
        results = [measure(programs, processes, options.packets) for _ in range(options.repeats)]
        if options.profile:
            profile(router, programs, processes, results[0]["cost"], options)
    return results


def profile(router, programs, processes, cost, options):
    taken = profiling.Profile()
    with taken.sampling(processes):
        measure(programs, processes, options.profile)
    taken.write(pathlib.Path(options.out, f"guest-profile-{router.name}.json"), cost)


def measure_all(programs, options):
    rows = []
    for router in chosen(options):
        try:
            row = report.row(router, measure_router(router, programs, options), options)
        except routers.Unsupported as reason:
            row = report.missing(router, str(reason))
        finally:
            lab.remove()
        rows.append(row)
        print(report.line(row, rows), flush=True)
    return rows


def chosen(options):
    everything = routers.all_routers(options.programs, options.forwarder)
    if not options.rows:
        return everything
    wanted = options.rows.split(",")
    unknown = set(wanted) - {router.name for router in everything}
    if unknown:
        raise lab.Failure(f"no such row: {', '.join(sorted(unknown))}")
    return [router for router in everything if router.name in wanted]


def main():
    options = read_arguments()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as directory:
        programs = lab.Programs(options.object, directory)
        try:
            rows = measure_all(programs, options)
        finally:
            programs.close()
    report.write(rows, options)


if __name__ == "__main__":
    try:
        main()
    except (lab.Failure, subprocess.SubprocessError) as failure:
        sys.exit(f"compare: {failure}")
