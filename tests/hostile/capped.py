"""Commands in child processes whose memory, output and time are capped, and what each of them took.

Run as a program, this file starts the command: the peak of a child counts the memory of the process that
started it, so that has to be a small one. It imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY = 8 << 30
"""Bytes of address space of a child: more than any innocent command takes, less than the machine has."""
SECONDS = 60.0
"""Seconds after which a child that does nothing is killed; one that works has them of processor time."""
_PATIENCE = 5
"""Times as many seconds of wall clock that a child may work on a busy machine."""
_IDLE = 0.05
"""Part of a processor below which a child does nothing."""
_FILE = 4 << 30
_SHOWN = 1 << 20


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it took."""

    code: int | None
    """Exit code, negative for a signal; None where the time ran out and it was killed."""
    seconds: float
    """Seconds of wall clock."""
    cpu_s: float
    """Seconds of processor time, its own children included."""
    peak_mb: float
    """Largest resident memory of it or of one of its children, in megabytes (10^6 bytes)."""
    output: str
    """The beginning and the end of what it printed, errors among the rest."""

    @property
    def last_line(self) -> str:
        """The last line that says something."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    @property
    def crashed(self) -> bool:
        """True if it ended by a signal, by a traceback, or not at all."""
        return self.code is None or self.code < 0 or "Traceback (most recent call last)" in self.output


def run_capped(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> Ended:
    """Run a command in a session of its own; kill it and its children when the time runs out."""
    job = json.dumps([list(command), dict(environment), str(folder), seconds, memory])
    starter = [sys.executable, "-I", "-S", __file__]
    done = subprocess.run(starter, input=job, capture_output=True, text=True, errors="replace", check=True)
    return Ended(*json.loads(done.stdout))


def _start(
    command: list[str], environment: dict[str, str], folder: str, seconds: float, memory: int
) -> list[object]:
    def cap() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with tempfile.TemporaryFile() as printed:
        begin = time.monotonic()
        child = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=printed,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=cap,
        )  # fmt: skip
        ended = 0
        while not ended and not _is_over(child.pid, time.monotonic() - begin, seconds):
            time.sleep(0.02)
            ended, status, used = os.wait4(child.pid, os.WNOHANG)
        if not ended:
            os.killpg(child.pid, signal.SIGKILL)
            _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
        code = child.returncode if ended else None
        peak_mb = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
        took = time.monotonic() - begin
        return [code, took, used.ru_utime + used.ru_stime, peak_mb, _ends_of(printed.fileno())]


def _is_over(child: int, elapsed: float, seconds: float) -> bool:
    """Tell whether a child's time is over: a busy machine makes it slow, and does not make it hang."""
    if elapsed < seconds:
        return False
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    worked = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own and its children's
    return worked > seconds or worked < _IDLE * elapsed or elapsed > _PATIENCE * seconds


def _ends_of(handle: int) -> str:
    size = os.fstat(handle).st_size
    data = os.pread(handle, _SHOWN, 0)
    if size > 2 * _SHOWN:
        data += b"\n...\n"
    if size > _SHOWN:
        data += os.pread(handle, _SHOWN, max(_SHOWN, size - _SHOWN))
    return data.decode("utf-8", "replace")


if __name__ == "__main__":
    print(json.dumps(_start(*json.load(sys.stdin))))
