"""What is compared: each is a way to take a packet of the client to a server. A router is set up in the namespace
lab.ROUTER, and says which of its threads do the work beside those of the interfaces."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time

import lab

TABLE = {
    "nft": """table ip bench {{
        chain prerouting {{
            type nat hook prerouting priority -100;
            ip daddr {vip} udp dport {port} dnat to numgen inc mod 2 map {{ 0 : {servers[0]}, 1 : {servers[1]} }}
        }}
    }}""",
    "mark": """table ip bench {{
        chain prerouting {{
            type filter hook prerouting priority mangle;
            ip daddr {vip} udp dport {port} meta mark set {mark}
        }}
    }}""",
}
MARKS = """*mangle
:PREROUTING ACCEPT [0:0]
-A PREROUTING -d {vip}/32 -p udp -m udp --dport {port} -j MARK --set-xmark {mark:#x}/0xffffffff
COMMIT
"""
NAMES = dict(vip=lab.VIRTUAL_ADDRESS, port=lab.PORT, mark=lab.MARK, servers=lab.SERVER_ADDRESSES)


class Unsupported(Exception):
    """What is to be measured is not there, and why."""


class Router:
    """A router by the kernel's own means."""

    destination = lab.VIRTUAL_ADDRESS
    sink_first = False

    def __init__(self, name, description):
        self.name, self.description = name, description

    @contextlib.contextmanager
    def running(self, programs, directory):
        """Yields the ids of the processes that do the work."""
        self.set_up(programs)
        yield []

    def set_up(self, programs):
        """Nothing to do for plain routing."""


class Routing(Router):
    destination = lab.SERVER_ADDRESSES[0]


class Nft(Router):
    def set_up(self, programs):
        lab.within(lab.ROUTER, "nft -f -", TABLE["nft"].format(**NAMES))


class Ipvs(Router):
    def __init__(self, name, description, scheduler, mark=False):
        super().__init__(name, description)
        self.scheduler, self.mark = scheduler, mark

    def set_up(self, programs):
        lab.run("modprobe ip_vs")
        if self.mark:
            lab.within(lab.ROUTER, "nft -f -", TABLE["mark"].format(**NAMES))
        service = f"-f {lab.MARK}" if self.mark else f"-u {lab.VIRTUAL_ADDRESS}:{lab.PORT}"
        add_service("ipvsadm", service, self.scheduler)


class Xdp(Router):
    def set_up(self, programs):
        programs.attach("r0", self.name.removeprefix("xdp-"))


class Forwarder(Router):
    """What AF_XDP alone costs: a program of the end-to-end benchmarks, which moves packets and looks at nothing."""

    destination = lab.SERVER_ADDRESSES[0]

    def __init__(self, name, description, program):
        super().__init__(name, description)
        self.program = pathlib.Path(program)

    @contextlib.contextmanager
    def running(self, programs, directory):
        if not self.program.exists():
            raise Unsupported(f"there is no {self.program}: make bench builds it")
        forwarder = subprocess.Popen(
            ["ip", "netns", "exec", lab.ROUTER, self.program, "forward", self.program.with_suffix(".bpf.o"),
             "r0", lab.MACS["c0"], "r1", lab.MACS["s0"], lab.VIRTUAL_ADDRESS, *lab.SERVER_ADDRESSES],
            stdout=subprocess.DEVNULL)
        try:
            self.await_start(forwarder)
            yield [forwarder.pid]
        finally:
            stop(forwarder)

    def await_start(self, forwarder):
        for _ in range(100):
            time.sleep(0.1)
            if "prog/xdp" in lab.run(f"ip -n {lab.ROUTER} -details link show r1"):
                return
            if forwarder.poll() is not None:
                break
        raise lab.Failure(f"{self.program} does not start")


class Xlvs(Router):
    def __init__(self, name, description, programs, sink_first=False, shortcut=False):
        super().__init__(name, description)
        self.programs, self.sink_first, self.shortcut = pathlib.Path(programs), sink_first, shortcut

    @contextlib.contextmanager
    def running(self, programs, directory):
        known = self.knows_shortcut(pathlib.Path(directory, "shortcut.toml"))
        if self.shortcut and not known:
            raise Unsupported("not supported by this build: xlvs.toml has no key `shortcut`")
        files = Files(pathlib.Path(directory), f"shortcut = {str(self.shortcut).lower()}\n" if known else "")
        os.environ["XLVS_SOCKET"] = str(files.socket)
        with open(files.log, "w") as log:
            daemon = subprocess.Popen(
                ["ip", "netns", "exec", lab.ROUTER, self.programs / "xlvs", "run", "--bare", "--marks", files.marks,
                 "--marks6", files.marks6, "--settings", files.settings],
                stdout=log, stderr=log)
        try:
            self.await_start(daemon, files)
            add_service(self.programs / "ipvsadm", f"-f {lab.MARK}", "wlc")
            yield [daemon.pid]
        finally:
            stop(daemon)

    def knows_shortcut(self, file):
        file.write_text("shortcut = true\n")
        return subprocess.run([self.programs / "xlvs", "check", file], capture_output=True).returncode == 0

    def await_start(self, daemon, files):
        for _ in range(300):
            time.sleep(0.1)
            if daemon.poll() is not None:
                break
            if subprocess.run([self.programs / "xlvs", "status"], capture_output=True).returncode == 0:
                return
        raise lab.Failure(f"xlvs does not start:\n{files.log.read_text()}")


class Files:
    """What the daemon reads and writes."""

    def __init__(self, directory, more):
        self.socket, self.log = directory / "control.sock", directory / "xlvs.log"
        self.marks, self.marks6, self.settings = directory / "iptables", directory / "ip6tables", directory / "xlvs.toml"
        self.marks.write_text(MARKS.format(**NAMES))
        self.marks6.write_text("*mangle\nCOMMIT\n")
        self.settings.write_text(f'ports = ["r0", "r1"]\ncontrol_socket = "{self.socket}"\n{more}')


def add_service(ipvsadm, service, scheduler):
    lab.within(lab.ROUTER, f"{ipvsadm} -A {service} -s {scheduler}")
    for server in lab.SERVER_ADDRESSES:
        lab.within(lab.ROUTER, f"{ipvsadm} -a {service} -r {server}:{lab.PORT} -m")


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def all_routers(programs, forwarder):
    """In the order of the table. The first whose name begins with "ipvs" is what the others are compared with."""
    return [
        Routing("routing", "the kernel's forwarding, no balancing"),
        Nft("nft", "nftables DNAT, with conntrack"),
        Ipvs("ipvs", "kernel IPVS, NAT, rr", "rr"),
        Ipvs("ipvs-wlc", "kernel IPVS, NAT, wlc", "wlc"),
        Ipvs("ipvs-mark", "kernel IPVS, NAT, wlc, service by firewall mark", "wlc", mark=True),
        Forwarder("forwarder", "AF_XDP forwarder, no balancing", forwarder),
        Xlvs("xlvs", "xlvs over AF_XDP, the sink behind it", programs),
        Xlvs("xlvs-preempted", "xlvs over AF_XDP, the sink after each packet", programs, sink_first=True),
        Xlvs("xlvs-shortcut", "xlvs with the shortcut", programs, shortcut=True),
        Xdp("xdp-balance", "XDP, LRU flow table, redirect"),
        Xdp("xdp-rewrite", "XDP, no state, redirect"),
    ]
