"""The paths through the router, each set up as its users would."""

import os
import subprocess
from pathlib import Path

from commands import RigError, wait_until, within
from lab import INSIDE, MACS, OUTSIDE, ROUTER, SERVERS, SINK_PORT, SOURCE_PORT, VIRTUAL

HAPROXY = """\
global
    maxconn 4000
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen web
    bind {virtual}:80 backlog 4000
    balance roundrobin
    server one {one}:80
    server two {two}:80
"""

NFT = """\
table ip balancer {{
    chain prerouting {{
        type nat hook prerouting priority dstnat
        ip daddr {virtual} tcp dport 80 dnat to numgen inc mod 2 map {{ 0 : {one}, 1 : {two} }}
        ip daddr {virtual} udp dport 80 dnat to numgen inc mod 2 map {{ 0 : {one}, 1 : {two} }}
    }}
}}
"""


class Unavailable(Exception):
    """This path cannot be had here, and why."""


class Balancer:
    """One way through the router. `destination` is where clients send to; what arrives has one of `arrivals`."""

    packets = streams = True
    direct = False
    destination = VIRTUAL
    arrivals = SERVERS

    def __init__(self, name, label, short):
        self.name, self.label, self.short = name, label, short

    def start(self, lab):
        """Sets it up in the lab's router. Returns the process that does the work, if there is one."""

    def limit(self, lab, connections):
        """Bounds the table, where there is one that can be bounded."""

    def finish(self, lab, process):
        """Checks what can only be seen at the end."""


class Cable(Balancer):
    """No router at all: what source, sink and end hosts take by themselves."""

    direct = True
    destination = SERVERS[0]


class Forwarding(Balancer):
    """The kernel's routing to a server's own address."""

    destination = SERVERS[0]


class Nft(Balancer):
    """DNAT by nftables with the kernel's connection tracking."""

    def start(self, lab):
        within(ROUTER, "nft", "-f", "-", text=NFT.format(virtual=VIRTUAL, one=SERVERS[0], two=SERVERS[1]))


class HaProxy(Balancer):
    """A TCP proxy: no packets of its own accord."""

    packets = False

    def start(self, lab):
        config = lab.directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(virtual=VIRTUAL, one=SERVERS[0], two=SERVERS[1]))
        process = lab.spawn(ROUTER, ["haproxy", "-db", "-f", config], [lab.cores.router], favoured=True)
        wait_until("haproxy to listen", lambda: process.require() or ":80 " in within(ROUTER, "ss", "-Hltn"))
        return process


class Peer(Balancer):
    """Our own bounds, tools/peer.c: `rewrite` within XDP, `forward` over bare AF_XDP."""

    def __init__(self, name, label, short, mode, tools):
        super().__init__(name, label, short)
        self.mode, self.tools = mode, tools
        if mode == "forward":
            self.destination = SERVERS[0]

    def start(self, lab):
        command = [
            self.tools / "peer",
            self.mode,
            self.tools / "peer.bpf.o",
            OUTSIDE,
            MACS[SOURCE_PORT],
            INSIDE,
            MACS[SINK_PORT],
            VIRTUAL,
            *SERVERS,
        ]
        process = lab.spawn(ROUTER, command, [lab.cores.router], favoured=True, pipes=True)
        if process.hear().strip() != "ready":
            raise RigError(f"{self.label} did not start: {process.last_words()}")
        return process


class Xlvs(Balancer):
    """The daemon with a table made by ipvsadm."""

    def __init__(self, name, label, short, programs, shortcut, settings=""):
        super().__init__(name, label, short)
        self.programs, self.shortcut, self.settings = Path(programs), shortcut, settings

    def run(self, lab, program, *arguments):
        """A client of the daemon."""
        environment = dict(os.environ, XLVS_SOCKET=str(lab.directory / "control.sock"))
        return subprocess.run(
            [self.programs / program, *arguments], env=environment, capture_output=True, text=True
        )

    def write_files(self, lab):
        """Settings, and no marks."""
        for name in ("iptables", "ip6tables"):
            (lab.directory / name).write_text("*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n")
        settings = lab.directory / "xlvs.toml"
        plain = f'ports = ["{OUTSIDE}", "{INSIDE}"]\ncontrol_socket = "{lab.directory}/control.sock"\n{self.settings}'
        settings.write_text(f"shortcut = {str(self.shortcut).lower()}\n{plain}")
        done = self.run(lab, "xlvs", "check", settings)
        if done.returncode and self.shortcut:
            raise Unavailable("this xlvs knows no setting `shortcut`")
        if done.returncode:
            settings.write_text(plain)
        return settings

    def start(self, lab):
        settings = self.write_files(lab)
        command = [
            self.programs / "xlvs",
            "run",
            "--bare",
            "--settings",
            settings,
            "--marks",
            lab.directory / "iptables",
            "--marks6",
            lab.directory / "ip6tables",
        ]
        process = lab.spawn(ROUTER, command, [lab.cores.router], favoured=True)
        wait_until(
            "xlvs to answer", lambda: process.require() or self.run(lab, "xlvs", "status").returncode == 0
        )
        for option in ("-t", "-u"):
            self.edit(lab, "-A", option, f"{VIRTUAL}:80", "-s", "wlc")
            for server in SERVERS:
                self.edit(lab, "-a", option, f"{VIRTUAL}:80", "-r", f"{server}:80", "-m")
        return process

    def limit(self, lab, connections):
        done = self.run(lab, "xlvs", "sysctl", "-w", f"xlvs.conn_max={connections}")
        if done.returncode:
            raise RigError(f"xlvs sysctl: {done.stderr.strip()}")

    def edit(self, lab, *arguments):
        """One ipvsadm command."""
        done = self.run(lab, "ipvsadm", *arguments)
        if done.returncode:
            raise RigError(f"ipvsadm {' '.join(arguments)}: {done.stderr.strip()}")

    def finish(self, lab, process):
        if not lab.stop(process):
            raise RigError(f"xlvs did not end in order: {process.last_words()}")


def all_paths(tools, programs):
    """Every path of the rig, in the order of the table."""
    return [
        Cable("cable", "no router", "cable"),
        Forwarding("forward", "kernel forwarding", "kernel"),
        Nft("nft", "nftables DNAT", "nft"),
        HaProxy("haproxy", "HAProxy TCP", "HAProxy"),
        Peer("afxdp", "bare AF_XDP forwarder", "AF_XDP", "forward", tools),
        Xlvs("xlvs", "xlvs", "xlvs", programs, shortcut=False),
        Peer("xdp", "XDP rewrite and redirect", "XDP", "rewrite", tools),
        Xlvs("shortcut", "xlvs with the shortcut", "shortcut", programs, shortcut=True),
    ]
