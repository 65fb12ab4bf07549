"""The network: a client, a router and the servers in namespaces, wired by veths, and the BPF programs around them.

    client c0 ── r0 router r1 ── s0 servers
"""

import ctypes
import json
import os
import pathlib
import socket
import struct
import subprocess
import time

CLIENT, ROUTER, SERVERS = "xlvs-bench-client", "xlvs-bench-router", "xlvs-bench-servers"
VIRTUAL_ADDRESS, PORT, MARK = "10.1.0.80", 80, 80
SERVER_ADDRESSES = ("10.2.0.11", "10.2.0.12")
CLIENT_ADDRESS = "198.18.0.1"
MACS = {"c0": "02:00:00:01:00:02", "r0": "02:00:00:01:00:01", "r1": "02:00:00:02:00:01", "s0": "02:00:00:02:00:02"}
HOMES = {"c0": CLIENT, "r0": ROUTER, "r1": ROUTER, "s0": SERVERS}
FRAME_LENGTH = 60
COUNTERS = {"sent": 0, "delivered": 1, "scheduled": 2}
BATCH = 64

C = ctypes.CDLL(None, use_errno=True)
SYS_BPF, BPF_OBJ_GET, BPF_PROG_TEST_RUN, LIVE_FRAMES = 321, 7, 10, 2


class Failure(Exception):
    """A command that went wrong, with what it said."""


def run(command, input=None):
    """What the command prints; words are split at spaces."""
    done = subprocess.run(command.split(), input=input, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"{command}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def within(namespace, command, input=None):
    """The same in a namespace."""
    return run(f"ip netns exec {namespace} {command}", input)


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


def checksum(data):
    """RFC 1071, of an even number of bytes."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame_to(address):
    """A UDP packet of the client to the address; its source port is 0. It has a checksum, for IPVS would make one."""
    source, destination = socket.inet_aton(CLIENT_ADDRESS), socket.inet_aton(address)
    length = FRAME_LENGTH - 34
    pseudo = source + destination + struct.pack(">HH", socket.IPPROTO_UDP, length)
    udp = struct.pack(">HHHH", 0, PORT, length, 0) + bytes(length - 8)
    udp = udp[:6] + struct.pack(">H", checksum(pseudo + udp)) + udp[8:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0) + source + destination
    ip = ip[:10] + struct.pack(">H", checksum(ip)) + ip[12:]
    return mac_bytes(MACS["r0"]) + mac_bytes(MACS["c0"]) + b"\x08\x00" + ip + udp


class Programs:
    """The BPF programs of one object file, loaded, and their maps."""

    def __init__(self, object_file, directory):
        # Not below /sys: ip netns mounts another one.
        self.pins = pathlib.Path(directory, "bpf")
        self.pins.mkdir()
        run(f"mount -t bpf bpf {self.pins}")
        run(f"bpftool prog loadall {object_file} {self.pins}/programs type xdp pinmaps {self.pins}/maps")
        self.source = self._descriptor(self.pins / "programs/source")

    def close(self):
        run(f"umount {self.pins}")

    def attach(self, interface, program):
        run(f"ip -n {HOMES[interface]} link set dev {interface} xdpdrv pinned {self.pins}/programs/{program}")

    def plan(self, destination, flows):
        """Sets what the source sends, and what the routers that are XDP programs do."""
        value = struct.pack("<II", flows, interface_index("r1")) + socket.inet_aton(VIRTUAL_ADDRESS)
        value += b"".join(map(socket.inet_aton, SERVER_ADDRESSES))
        value += mac_bytes(MACS["s0"]) + mac_bytes(MACS["r1"]) + frame_to(destination)
        run(f"bpftool map update pinned {self.pins}/maps/plans key hex 00 00 00 00 value hex {value.hex(' ')}")

    def count(self, counter):
        key = struct.pack("<I", COUNTERS[counter]).hex(" ")
        shown = run(f"bpftool -j map lookup pinned {self.pins}/maps/counters key hex {key}")
        return int.from_bytes(bytes(int(byte, 16) for byte in json.loads(shown)["value"]), "little")

    def send(self, packets):
        """Has the client send that many packets out of c0; returns when the last is on its way."""
        frame, index = frame_to(VIRTUAL_ADDRESS), interface_index("c0")
        with Inside(CLIENT):
            self._send(frame, index, packets)

    def _send(self, frame, interface, packets):
        data = ctypes.create_string_buffer(frame, len(frame))
        # struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
        context = ctypes.create_string_buffer(struct.pack("<6I", 0, len(frame), 0, interface, 0, 0), 24)
        # The members of "test" in union bpf_attr of <linux/bpf.h>.
        attributes = struct.pack(
            "<IIIIQQIIIIQQIII", self.source, 0, len(frame), 0, ctypes.addressof(data), 0, packets, 0,
            len(context), 0, ctypes.addressof(context), 0, LIVE_FRAMES, 0, BATCH,
        )
        system_bpf(BPF_PROG_TEST_RUN, attributes)

    @staticmethod
    def _descriptor(path):
        name = ctypes.create_string_buffer(str(path).encode())
        return system_bpf(BPF_OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, 0))


def system_bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 144)
    result = C.syscall(SYS_BPF, command, buffer, len(buffer))
    if result < 0:
        raise Failure(f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return result


class Inside:
    """This process is in the namespace meanwhile."""

    def __init__(self, namespace):
        self.namespace = namespace

    def __enter__(self):
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        self._enter(there)
        os.close(there)

    def __exit__(self, *_):
        self._enter(self.home)
        os.close(self.home)

    @staticmethod
    def _enter(namespace):
        if C.setns(namespace, 0):
            raise Failure(f"setns: {os.strerror(ctypes.get_errno())}")


def interface_index(interface):
    with Inside(HOMES[interface]):
        return socket.if_nametoindex(interface)


def build():
    """The namespaces, with all neighbours known."""
    for namespace in (CLIENT, ROUTER, SERVERS):
        run(f"ip netns add {namespace}")
        within(namespace, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
    for left, right in (("c0", "r0"), ("r1", "s0")):
        run(f"ip link add {left} netns {HOMES[left]} address {MACS[left]} type veth"
            f" peer name {right} netns {HOMES[right]} address {MACS[right]}")
    for interface, home in HOMES.items():
        run(f"ip -n {home} link set {interface} up")
    for interface, home in HOMES.items():
        # GRO, once the interface is up, is what has a veth take redirected frames; its threads are what is measured.
        within(home, f"ethtool -K {interface} tx off gro on")
        within(home, f"tee /sys/class/net/{interface}/threaded", "1")
    give_addresses()
    within(ROUTER, "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.r0.rp_filter=0")


def give_addresses():
    for namespace, commands in (
        (CLIENT, ["addr add 10.1.0.2/24 dev c0", "route add default via 10.1.0.1",
                  f"neigh add 10.1.0.1 lladdr {MACS['r0']} dev c0"]),
        (ROUTER, ["link set lo up", "addr add 10.1.0.1/24 dev r0", f"addr add {VIRTUAL_ADDRESS}/32 dev r0",
                  "addr add 10.2.0.1/24 dev r1", "route add 198.18.0.0/15 via 10.1.0.2",
                  f"neigh add 10.1.0.2 lladdr {MACS['c0']} dev r0"]
         + [f"neigh add {server} lladdr {MACS['s0']} dev r1" for server in SERVER_ADDRESSES]),
        (SERVERS, [f"addr add {server}/24 dev s0" for server in SERVER_ADDRESSES]
         + ["route add default via 10.2.0.1", f"neigh add 10.2.0.1 lladdr {MACS['r1']} dev s0"]),
    ):
        run(f"ip -n {namespace} -batch -", "\n".join(commands))


def remove():
    for namespace in (CLIENT, ROUTER, SERVERS):
        if os.path.exists(f"/run/netns/{namespace}"):
            run(f"ip netns del {namespace}")
    # The kernel takes the interfaces of a namespace away some time later; threads among them.
    time.sleep(0.3)
