"""Programs that run while something is measured."""

import contextlib
import subprocess
from pathlib import Path

from commands import PATIENCE_S, RigError
from cpu import FAVOURED, PREFERRED, prefer


class Process:
    """A program in a namespace. It ends with the rig, however that ends."""

    def __init__(self, namespace, command, cpus, log, favoured=False, pipes=False):
        wrapped = ["ip", "netns", "exec", namespace, "taskset", "-c", ",".join(map(str, cpus))]
        wrapped += ["setpriv", "--pdeathsig", "TERM", *command]
        self.name = Path(command[0]).name
        self.log = Path(log)
        with open(log, "a") as errors:
            self.process = subprocess.Popen(
                wrapped,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else errors,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self.pid = self.process.pid
        prefer(self.pid, FAVOURED if favoured else PREFERRED)

    def running(self):
        """Whether it has not ended by itself."""
        return self.process.poll() is None

    def require(self):
        """Fails with the end of its log if it has ended."""
        if not self.running():
            raise RigError(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")

    def last_words(self):
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def ask(self, line):
        """Writes a line to its input and returns the line that it answers."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        return self.hear()

    def hear(self):
        """The next line that it prints."""
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait(5)
            self.require()
        return answer

    def stop(self):
        """In order, or by force. Returns whether it went in order."""
        if not self.running():
            return False
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
            return True
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return False
