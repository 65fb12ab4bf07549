"""What a measurement needs before it begins, and an end that takes its namespaces down."""

import fcntl
import os
import signal
import sys

from commands import RigError
from cpu import PREFERRED, prefer
from lab import remove_leftovers


def prepare(programs):
    """What would otherwise fail in the middle. Returns the lock, held as long as it lives."""
    if os.geteuid() != 0:
        raise RigError("network namespaces need root: run this with sudo")
    for name in ("xlvs", "ipvsadm"):
        if not (programs / name).exists():
            raise RigError(f"{programs}/{name} is missing: run make build")
    lock = os.open("/run", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RigError("another bench or demo is running") from None
    remove_leftovers()
    prefer(os.getpid(), PREFERRED)
    return lock


def end_in_order(number, _):
    """A signal becomes an exception, so that every lab is taken down; a second one does not disturb that."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def heed_signals():
    """From now on they end everything in order."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, end_in_order)
