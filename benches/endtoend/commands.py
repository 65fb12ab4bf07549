"""Commands, in namespaces too, and what is said when one fails."""

import subprocess
import time

# For what takes a moment on a quiet machine.
PATIENCE_S = 30


class RigError(Exception):
    """What went wrong and what to do about it, for the user to read."""


def call(*command, text=None):
    """Runs a command to its end and returns what it printed."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RigError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip() or done.returncode}")
    return done.stdout


def within(namespace, *command, text=None):
    """The same in a namespace."""
    return call("ip", "netns", "exec", namespace, *command, text=text)


def wait_until(what, ready):
    """Tries until it is so, or says what was waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise RigError(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(0.02)
