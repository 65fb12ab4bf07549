"""Processor time of the router's threads, which are known by the interface that they serve or by their process."""

import os
import pathlib

# All that is the router's.
ROUTER_THREADS = ("napi/r0", "napi/r1", "process")
# Of SCHED_FIFO. The source has none.
INTERFACE, PROCESS, SINK = 50, 40, 30
SINK_FIRST = 45


def name_of(pid):
    return pathlib.Path("/proc", pid, "comm").read_text().strip()


def time_of(pid, task):
    """In nanoseconds."""
    return int(pathlib.Path("/proc", pid, "task", task, "schedstat").read_text().split()[0])


def threads(processes):
    """Yields (process id, thread id, name) of what belongs to the interfaces and the processes."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name = "process" if int(pid) in processes else name_of(pid)
            if name == "process" or name.startswith("napi/"):
                for task in os.listdir(f"/proc/{pid}/task"):
                    # napi/INTERFACE-NUMBER
                    yield pid, task, name.split("-")[0]
        except (FileNotFoundError, ProcessLookupError):
            # It has ended meanwhile.
            continue


def used(processes):
    """Processor time so far by name."""
    times = {}
    for pid, task, name in threads(processes):
        times[name] = times.get(name, 0) + time_of(pid, task)
    return times


def arrange(processes, sink_first):
    """Gives every thread its priority."""
    priorities = {"process": PROCESS, "napi/s0": SINK_FIRST if sink_first else SINK}
    for _, task, name in threads(processes):
        os.sched_setscheduler(int(task), os.SCHED_FIFO, os.sched_param(priorities.get(name, INTERFACE)))
