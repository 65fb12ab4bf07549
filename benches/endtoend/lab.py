"""The rig's wires, in network namespaces, and who of the kernel's threads does the router's work.

    xlvs-bench-source            xlvs-bench-router                    xlvs-bench-sink
    198.18.1.2            xbc0 - xbr0 198.18.1.1
    198.18.64.0/18 flows              198.18.2.1 xbr1 -          xbs0 198.18.2.11, 198.18.2.12

198.18.0.0/15 is for benchmarks (RFC 2544). A veth is served where its sender runs, unless its NAPI is threaded: then
that thread can be pinned, and its CPU time is that of the receiving side alone.
"""

import os
import shutil
import time
from pathlib import Path

from commands import RigError, call, within
from cpu import (
    FAVOURED,
    PROGRAM_SLICE_NS,
    SINK_PRIORITY,
    SOFTIRQ_SLICE_NS,
    core_nanoseconds,
    cpu_nanoseconds,
    napi_threads,
    schedule,
)
from process import Process

SOURCE, ROUTER, SINK = NAMESPACES = ("xlvs-bench-source", "xlvs-bench-router", "xlvs-bench-sink")
RUN = Path("/run/xlvs-bench")
CLIENT, FLOWS, ROUTER_OUTSIDE, ROUTER_INSIDE = "198.18.1.2", "198.18.64.0", "198.18.1.1", "198.18.2.1"
VIRTUAL = "198.18.1.100"
SERVERS = ("198.18.2.11", "198.18.2.12")
SOURCE_PORT, OUTSIDE, INSIDE, SINK_PORT = "xbc0", "xbr0", "xbr1", "xbs0"
MACS = {
    SOURCE_PORT: "02:00:00:12:01:02",
    OUTSIDE: "02:00:00:12:01:01",
    INSIDE: "02:00:00:12:02:01",
    SINK_PORT: "02:00:00:12:02:02",
}


def remove_leftovers():
    """Namespaces and files, also those of a run that was killed; its processes ended with it."""
    for namespace in NAMESPACES:
        if Path("/run/netns", namespace).exists():
            call("ip", "netns", "del", namespace)
    shutil.rmtree(RUN, ignore_errors=True)


def interface_script(port, *addresses):
    """Lines for `ip -batch`."""
    lines = [f"addr add {address} dev {port}" for address in addresses]
    return "\n".join(["link set lo up", *lines, f"link set {port} up", ""])


class Lab:
    """The three namespaces, wired through the router or, `direct`, the source's cable straight to the sink."""

    def __init__(self, cores, direct=False):
        self.cores, self.directory, self.direct = cores, RUN, direct
        self.processes = []
        self.threads = {}

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()
        remove_leftovers()

    def build(self):
        """Namespaces, cables, addresses, neighbours, threads."""
        remove_leftovers()
        others = napi_threads()
        self.directory.mkdir(mode=0o700)
        for namespace in NAMESPACES:
            call("ip", "netns", "add", namespace)
            within(
                namespace,
                "sysctl",
                "-qw",
                "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv6.conf.default.disable_ipv6=1",
            )
        if self.direct:
            self.cable(SOURCE, SOURCE_PORT, SINK, SINK_PORT)
        else:
            self.cable(SOURCE, SOURCE_PORT, ROUTER, OUTSIDE)
            self.cable(ROUTER, INSIDE, SINK, SINK_PORT)
        self.configure_ends()
        if not self.direct:
            self.configure_router()
        for namespace, port in self.ports():
            self.serve_by_thread(namespace, port)
        self.find_threads(others)
        self.offload(False)
        self.place_ends([self.cores.source], real_time=True)

    def ports(self):
        """Every interface with its namespace."""
        router = [] if self.direct else [(ROUTER, OUTSIDE), (ROUTER, INSIDE)]
        return [(SOURCE, SOURCE_PORT), *router, (SINK, SINK_PORT)]

    @staticmethod
    def cable(one, port, other, peer):
        """One queue each, as only threads of queues in use are pinned."""
        queues = ("numtxqueues", "1", "numrxqueues", "1")
        call(
            "ip",
            "link",
            "add",
            port,
            "netns",
            one,
            "address",
            MACS[port],
            *queues,
            "type",
            "veth",
            "peer",
            "name",
            peer,
            "netns",
            other,
            "address",
            MACS[peer],
            *queues,
        )

    def configure_ends(self):
        """The hosts complete their checksums, as frames on a wire have them."""
        call("ip", "-n", SOURCE, "-batch", "-", text=interface_script(SOURCE_PORT, f"{CLIENT}/24"))
        call(
            "ip",
            "-n",
            SINK,
            "-batch",
            "-",
            text=interface_script(SINK_PORT, *(f"{server}/24" for server in SERVERS)),
        )
        inside = f"dev {SINK_PORT}" if self.direct else f"via {ROUTER_INSIDE}"
        outside = f"dev {SOURCE_PORT}" if self.direct else f"via {ROUTER_OUTSIDE}"
        call("ip", "-n", SOURCE, "-batch", "-", text=f"route add default {outside}\n")
        call("ip", "-n", SINK, "-batch", "-", text=f"route add default {inside}\n")
        for namespace, port in ((SOURCE, SOURCE_PORT), (SINK, SINK_PORT)):
            within(namespace, "ethtool", "-K", port, "tx", "off")
            within(
                namespace,
                "sysctl",
                "-qw",
                "net.ipv4.ip_local_port_range=1024 65535",
                "net.ipv4.tcp_tw_reuse=1",
                "net.core.somaxconn=16384",
                "net.ipv4.tcp_max_syn_backlog=16384",
            )

    def configure_router(self):
        """A router as administrators have it, with its neighbours known."""
        lines = [
            interface_script(OUTSIDE, f"{ROUTER_OUTSIDE}/24", f"{VIRTUAL}/32"),
            interface_script(INSIDE, f"{ROUTER_INSIDE}/24"),
            f"route add {FLOWS}/18 via {CLIENT}\n",
            f"neigh replace {CLIENT} lladdr {MACS[SOURCE_PORT]} dev {OUTSIDE}\n",
        ]
        lines += [f"neigh replace {server} lladdr {MACS[SINK_PORT]} dev {INSIDE}\n" for server in SERVERS]
        call("ip", "-n", ROUTER, "-batch", "-", text="".join(lines))
        within(
            ROUTER,
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            f"net.ipv4.conf.{OUTSIDE}.rp_filter=0",
            "net.ipv4.ip_local_port_range=1024 65535",
            "net.core.somaxconn=16384",
        )
        call(
            "ip",
            "-n",
            SOURCE,
            "neigh",
            "replace",
            ROUTER_OUTSIDE,
            "lladdr",
            MACS[OUTSIDE],
            "dev",
            SOURCE_PORT,
        )
        call("ip", "-n", SINK, "neigh", "replace", ROUTER_INSIDE, "lladdr", MACS[INSIDE], "dev", SINK_PORT)

    @staticmethod
    def serve_by_thread(namespace, port):
        """GRO is what gives a veth a NAPI without an XDP program, and it must be switched on when the interface is up."""
        within(namespace, "ethtool", "-K", port, "gro", "off")
        within(namespace, "ethtool", "-K", port, "gro", "on")
        within(namespace, "sh", "-c", f"echo 1 >/sys/class/net/{port}/threaded")

    def offload(self, wanted):
        """Whether the router's interfaces take segments to cut up, as NICs do. A veth that does hands packets to its peer past the
        peer's NAPI, and then the end hosts' part has to be kept from the router's CPU otherwise."""
        for port in [] if self.direct else (OUTSIDE, INSIDE):
            within(ROUTER, "ethtool", "-K", port, "tso", "on" if wanted else "off")
        cpus = 1 << self.cores.source if wanted else 0
        for namespace, port in ((SOURCE, SOURCE_PORT), (SINK, SINK_PORT)):
            within(namespace, "sh", "-c", f"echo {cpus:x} >/sys/class/net/{port}/queues/rx-0/rps_cpus")

    def find_threads(self, others):
        """The NAPI threads by interface, but for those of a lab that the kernel is still taking down."""
        for thread, name in napi_threads().items():
            for _, port in self.ports():
                if thread not in others and name.startswith(f"napi/{port}-"):
                    self.threads.setdefault(port, []).append(thread)
        for _, port in self.ports():
            if port not in self.threads:
                raise RigError(f"{port} has no NAPI thread: Linux 5.12 or newer is needed")
        for port in (OUTSIDE, INSIDE):
            for thread in self.threads.get(port, []):
                os.sched_setaffinity(thread, [self.cores.router])
                schedule(thread, FAVOURED, SOFTIRQ_SLICE_NS)

    def at_once(self, balancer, wanted):
        """Below what it can bear, the router's threads run the moment they have work, its softirqs first. Beyond, the kernel has
        softirq and balancer share the core, lest one starve the other."""
        if balancer:
            balancer.require()
        own = [int(task.name) for task in Path(f"/proc/{balancer.pid}/task").iterdir()] if balancer else []
        kernel = [thread for port in (OUTSIDE, INSIDE) for thread in self.threads.get(port, [])]
        for priority, slice_ns, threads in ((40, SOFTIRQ_SLICE_NS, kernel), (30, PROGRAM_SLICE_NS, own)):
            for thread in threads:
                if wanted:
                    os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(priority))
                else:
                    schedule(thread, FAVOURED, slice_ns)

    def wire_losses(self):
        """Frames that the rings of the veths had no room for, on the way to the router and behind it."""
        before, behind = 0, 0
        for namespace, port in self.ports():
            lost = int(within(namespace, "cat", f"/sys/class/net/{port}/statistics/tx_dropped"))
            if namespace == ROUTER:
                behind += lost
            else:
                before += lost
        return before, behind

    def place_ends(self, cpus, real_time):
        """Where and how the source's and the sink's kernel sides run."""
        for port in (SOURCE_PORT, SINK_PORT):
            for thread in self.threads[port]:
                os.sched_setaffinity(thread, cpus)
                if real_time:
                    os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(SINK_PRIORITY))
                else:
                    schedule(thread, FAVOURED, SOFTIRQ_SLICE_NS)

    def spawn(self, namespace, command, cpus, **options):
        """A process that ends with the lab."""
        log = self.directory / f"{Path(command[0]).name}.log"
        process = Process(namespace, [str(word) for word in command], cpus, log, **options)
        self.processes.append(process)
        return process

    def stop(self, process):
        """Ends one process before the lab. Returns whether it went in order."""
        self.processes.remove(process)
        return process.stop()


class RouterClock:
    """CPU time of the router: its NAPI threads and the balancer's own threads. What other threads ran on its core meanwhile
    is not in it."""

    def __init__(self, lab, balancer):
        self.cpu = lab.cores.router
        self.kernel = [
            f"/proc/{thread}" for port in (OUTSIDE, INSIDE) for thread in lab.threads.get(port, [])
        ]
        self.balancer = balancer
        self.start()

    def threads(self):
        """Directories of all threads that count."""
        own = Path(f"/proc/{self.balancer.pid}/task").glob("*") if self.balancer else []
        return [*self.kernel, *own]

    def start(self):
        """Measures from now."""
        self.clock_began = time.monotonic_ns()
        self.core_began = core_nanoseconds(self.cpu)
        self.began = {str(thread): cpu_nanoseconds(thread) for thread in self.threads()}

    def nanoseconds(self):
        """CPU time since the start."""
        return sum(
            max(0, cpu_nanoseconds(thread) - self.began.get(str(thread), 0)) for thread in self.threads()
        )

    def foreign_share(self, own):
        """Share of the router's core that others had since the start, if `own` was the router's time. To a tick or two."""
        others = core_nanoseconds(self.cpu) - self.core_began - own
        return max(0, others / (time.monotonic_ns() - self.clock_began))
