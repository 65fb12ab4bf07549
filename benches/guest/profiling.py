"""Where a row's instructions go, by sampling the guest's processor."""

import contextlib
import pathlib
import signal
import subprocess
import time

PERIOD = 20_000  # nanoseconds, which are instructions


@contextlib.contextmanager
def sampled(name, options):
    if not options.profile:
        yield
        return
    data = pathlib.Path(options.out, f"profile-{name}.data")
    perf = subprocess.Popen(["perf", "record", "-q", "-a", "-e", "cpu-clock", "-c", str(PERIOD), "-o", data],
                            stderr=subprocess.DEVNULL)
    # It opens its counters first.
    time.sleep(2)
    yield
    perf.send_signal(signal.SIGINT)
    perf.wait()
    text = subprocess.run(["perf", "report", "-i", data, "--no-children", "--stdio", "--sort", "comm,dso,sym"],
                          capture_output=True, text=True).stdout
    pathlib.Path(options.out, f"profile-{name}.txt").write_text(text)
