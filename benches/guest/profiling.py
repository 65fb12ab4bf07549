"""Where a router's instructions go: the guest's processor is sampled, and each thread's cost, as measured without sampling,
is shared out among the functions by their samples."""

import collections
import contextlib
import json
import os
import pathlib
import re
import subprocess
import tempfile

import counting
import lab

# Nanoseconds, which are instructions; no multiple or fraction of a packet's cost.
PERIOD = 19_937
SYSTEM_CALL = re.compile(r"__x64_sys_(\w+)")
INTERRUPT = re.compile(r"asm_sysvec|asm_common_interrupt")


class Profile:
    """Samples by thread, cause and address."""

    def __init__(self):
        self.samples = collections.Counter()

    @contextlib.contextmanager
    def sampling(self, processes):
        """What runs meanwhile is sampled."""
        # In memory: writing to the machine outside would be among what is sampled.
        with tempfile.TemporaryDirectory() as directory:
            data = pathlib.Path(directory, "perf.data")
            perf = Perf(data)
            names = {task: name for _, task, name in counting.threads(processes)}
            yield
            perf.stop()
            self.read(data, names)

    def read(self, data, names):
        script = subprocess.run(["perf", "script", "-i", data, "-F", "tid,ip,sym,dso"], capture_output=True, text=True)
        for sample in script.stdout.split("\n\n"):
            task, *frames = sample.strip().split("\n")
            if names.get(task.strip()) in counting.ROUTER_THREADS and frames:
                self.samples[names[task.strip()], cause(frames), frames[0].strip()] += 1

    def write(self, path, cost):
        """`cost`: instructions per packet by thread."""
        lines = [[*key, count] for key, count in self.samples.most_common()]
        path.write_text(json.dumps({"cost": cost, "samples": lines}))


class Perf:
    """perf record of the whole guest; it samples once this has been made."""

    def __init__(self, data):
        control, self.orders = os.pipe()
        self.answers, acknowledge = os.pipe()
        self.process = subprocess.Popen(
            ["perf", "record", "-q", "-a", "-g", "--no-buildid", "-e", "cpu-clock", "-c", str(PERIOD), "-o", data,
             "--delay=-1", f"--control=fd:{control},{acknowledge}"],
            stderr=subprocess.DEVNULL, pass_fds=(control, acknowledge))
        os.close(control)
        os.close(acknowledge)
        self.order("enable")

    def order(self, word):
        os.write(self.orders, word.encode() + b"\n")
        if not os.read(self.answers, 64):
            raise lab.Failure("perf record has ended before its time")

    def stop(self):
        self.order("stop")
        self.process.wait()
        os.close(self.orders)
        os.close(self.answers)


def cause(frames):
    """What had the thread execute its innermost frame: its own code, a system call, an interrupt."""
    for frame in frames:
        if INTERRUPT.search(frame):
            return "interrupt"
    for frame in frames:
        if found := SYSTEM_CALL.search(frame):
            return found[1]
    return "kernel" if "[kernel" in frames[0] or "bpf_prog" in frames[0] else "own"
