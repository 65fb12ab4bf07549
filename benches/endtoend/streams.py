"""What real connections see: nginx behind the path, wrk and tools/asker.c before it."""

import hashlib
import json
import os
import subprocess

from commands import RigError, wait_until, within
from lab import SERVERS, SINK, SOURCE, RouterClock
from packets import at_loads, loads_of

# Clients at once. Ones that open a connection for each request; ones that keep theirs; ones that load a large file.
OPENING, KEEPING, LOADING, ASKING = 128, 64, 8, 32
BODY_LENGTH = 16 << 20
TIMEOUT_S = 30

NGINX = """\
daemon off;
worker_processes {workers};
pid nginx.pid;
error_log error.log;
user root;
events {{ worker_connections 4000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    sendfile on;
    tcp_nopush on;
    server {{
        listen {one}:80 backlog=4000 reuseport;
        listen {two}:80 backlog=4000 reuseport;
        location = /body {{ root {directory}; }}
        location / {{ return 200 "ok\\n"; }}
    }}
    client_body_temp_path temporary; proxy_temp_path temporary; fastcgi_temp_path temporary;
    uwsgi_temp_path temporary; scgi_temp_path temporary;
}}
"""


class WebServer:
    """nginx on both server addresses, with a page of three bytes and a body of 16 MiB."""

    def __init__(self, lab):
        directory = lab.directory / "web"
        directory.mkdir()
        self.body = os.urandom(BODY_LENGTH)
        (directory / "body").write_bytes(self.body)
        workers = max(1, len(lab.cores.ends))
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(workers=workers, one=SERVERS[0], two=SERVERS[1], directory=directory))
        command = ["nginx", "-e", directory / "error.log", "-p", directory, "-c", config]
        self.process = lab.spawn(SINK, command, lab.cores.ends)
        wait_until("nginx to listen", lambda: self.process.require() or ":80 " in within(SINK, "ss", "-Hltn"))

    def place(self, cpus):
        """Moves master and workers."""
        for pid in subprocess.run(
            ["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True
        ).stdout.split():
            os.sched_setaffinity(int(pid), cpus)


class Clients:
    """Those who connect to one path."""

    def __init__(self, lab, path, process, tools):
        self.lab, self.path, self.process, self.tools = lab, path, process, tools
        self.server = WebServer(lab)
        self.clock = RouterClock(lab, process)
        self.cpus = lab.cores.ends

    def place(self, cpus, at_once):
        """Where clients, servers and their kernel sides run from now on, and whether all kernel sides do so at once."""
        self.cpus = cpus
        self.server.place(cpus)
        self.lab.place_ends(cpus, real_time=at_once)
        self.lab.at_once(self.process, at_once)

    def run(self, *command):
        """A client program to its end: what it printed as JSON."""
        cpus = ",".join(map(str, self.cpus))
        text = within(SOURCE, "taskset", "-c", cpus, *map(str, command))
        return json.loads(text.splitlines()[-1])

    def wrk(self, connections, seconds, target="/", *headers):
        """Requests as fast as answers come. What came back is all there is to check."""
        self.clock.start()
        options = [word for header in headers for word in ("-H", header)]
        threads = min(len(self.cpus), connections)
        said = self.run(
            "wrk",
            f"-t{threads}",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}",
            "--timeout",
            f"{TIMEOUT_S}s",
            *options,
            "-s",
            self.tools / "wrk.lua",
            f"http://{self.path.destination}{target}",
        )
        said["router"] = self.clock.nanoseconds()
        if not said["requests"] or said["status"]:
            raise RigError(
                f"{self.path.label}: {target}: {said['requests']} answers, {said['status']} of them not 200"
            )
        return said

    def ask(self, rate, seconds):
        """Requests at a steady rate over connections that stay."""
        said = self.run(self.tools / "asker", self.path.destination, ASKING, rate, seconds)
        if not said["answered"]:
            raise RigError(f"{self.path.label}: none of {said['asked']} requests was answered")
        return said["latency"]

    def check_body(self):
        """A large body arrives as it was sent."""
        command = [
            "ip",
            "netns",
            "exec",
            SOURCE,
            "curl",
            "-sS",
            "--noproxy",
            "*",
            "--max-time",
            str(TIMEOUT_S),
            f"http://{self.path.destination}/body",
        ]
        done = subprocess.run(command, capture_output=True)
        if hashlib.sha256(done.stdout).digest() != hashlib.sha256(self.server.body).digest():
            raise RigError(
                f"{self.path.label}: of a body of {BODY_LENGTH} bytes {len(done.stdout)} came, and not as they were "
                f"sent: {done.stderr.decode().strip()}"
            )


def busy(said):
    """Share of the router's core."""
    return said["router"] / 1e9 / said["seconds"]


def throughput(clients, options, say):
    """As many as go, the end hosts on every core they may have."""
    clients.place(clients.lab.cores.ends, at_once=False)
    say("new connections")
    opened = clients.wrk(OPENING, options.stream_seconds, "/", "Connection: close")
    say("requests")
    kept = clients.wrk(KEEPING, options.stream_seconds)
    say("bulk")
    clients.lab.offload(True)
    loaded = clients.wrk(LOADING, options.stream_seconds / 2, "/body")
    clients.lab.offload(False)
    return {
        "connections": opened["requests"] / opened["seconds"],
        "connection_cost": opened["router"] / opened["requests"],
        "connections_busy": busy(opened),
        "requests": kept["requests"] / kept["seconds"],
        "request_cost": kept["router"] / kept["requests"],
        "requests_busy": busy(kept),
        "bulk": loaded["bytes"] * 8 / loaded["seconds"],
        "bulk_cost": loaded["router"] / max(loaded["bytes"] / 1024, 1),
        "bulk_busy": busy(loaded),
    }


def request_latency(clients, options, say):
    """At parts of the path's own capacity, the router alone on its core."""
    clients.place(clients.lab.cores.ends_apart, at_once=True)
    say("capacity for requests")
    kept = clients.wrk(ASKING, options.stream_seconds / 2)
    say("latency of answers")
    return at_loads(
        "answer",
        loads_of(clients.path),
        kept["requests"] / kept["seconds"],
        lambda rate: clients.ask(rate, options.stream_seconds),
    )


def measure(lab, path, process, tools, options, say):
    """One round of the stream rows of one path, as {measurement: value}."""
    clients = Clients(lab, path, process, tools)
    say("a body of 16 MiB")
    clients.check_body()
    return throughput(clients, options, say) | request_latency(clients, options, say)
