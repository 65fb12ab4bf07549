"""Which CPU and which priority a thread has, and how much CPU time it took."""

import ctypes
import errno
import os
import struct
from pathlib import Path

from commands import RigError

# Real-time, above all else on its core: a sink that waits for the source's batch to end would lose packets.
SINK_PRIORITY = 50
# Niceness of what is measured: as much for the kernel's threads as for a balancer's, so that neither starves the other.
FAVOURED = -20
# And of the end hosts: after the router where they share its core, before all that the rig has not started.
PREFERRED = -10
# A NIC's softirq comes before the balancer, but not for ever.
SOFTIRQ_SLICE_NS, PROGRAM_SLICE_NS = 100_000, 500_000
# The system call, which no library of Debian 12 wraps.
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}


def napi_threads():
    """Every thread that serves an interface, with its name."""
    found = {}
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = comm.read_text().strip()
        except OSError:
            continue
        if name.startswith("napi/"):
            found[int(comm.parent.name)] = name
    return found


class Cores:
    """Which CPU does what. The router has one of its own, the last; with just two, the end hosts of streams share it while
    throughput is measured."""

    def __init__(self):
        allowed = sorted(os.sched_getaffinity(0))
        self.alone = len(allowed) == 1
        self.router = allowed[-1]
        self.source = allowed[0]
        self.ends = allowed if len(allowed) <= 2 else allowed[:-1]
        self.ends_apart = allowed[:-1] or allowed


def schedule(thread, niceness, slice_ns):
    """A thread's share of its core, and how long it may keep others of the same share waiting; kernels before 6.12 know no
    slices and let it be a few ms."""
    attributes = struct.pack("=IIQiIQQQ", 48, 0, 0, niceness, 0, slice_ns, 0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(SCHED_SETATTR[os.uname().machine], thread, attributes, 0):
        raise RigError(f"cannot set the priority of thread {thread}: {os.strerror(ctypes.get_errno())}")


def prefer(pid, niceness):
    """The same for a process and its session, which has a share of its own where the kernel groups by session. A process
    whose ancestors never began a session is in the root group: that one's share is fixed, and needs no change."""
    schedule(pid, niceness, PROGRAM_SLICE_NS)
    try:
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
    except FileNotFoundError:
        pass  # this kernel does not group
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise RigError(f"cannot set the priority of the session of process {pid}: {error.strerror}") from error


def cpu_nanoseconds(thread_directory):
    """CPU time of one thread, or 0 once it is gone."""
    try:
        return int(Path(thread_directory, "schedstat").read_text().split()[0])
    except OSError:
        return 0


def core_nanoseconds(cpu):
    """Time that a CPU was not idle, for whomever, the hypervisor's other guests included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _, _, interrupts, softirqs, stolen = map(int, ticks[:8])
            return (
                (user + nice + system + interrupts + softirqs + stolen)
                * 1_000_000_000
                // os.sysconf("SC_CLK_TCK")
            )
    raise RigError(f"/proc/stat has no cpu{cpu}")
