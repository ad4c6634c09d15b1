"""One mutated input, given to one reader, in this process: does it take it, or refuse it as documented?

A finding is an error of another class, more memory than the target allows, or more time. Memory is the growth
of the process's resident peak, since torch, numpy and protobuf do not allocate through Python; time is the
processor's, so that a busy machine makes no findings.
"""

from __future__ import annotations

import hashlib
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

_HEADROOM = 4 << 30  # address space that an input may ask for beyond what is counted, before it is refused
_REFUSED_ALLOCATION = ("can't allocate", "cannot allocate", "bad_alloc", "bad allocation", "out of memory")


@dataclass(frozen=True)
class Target:
    """A reader and what it is fed with."""

    name: str
    """Name on the command line and in tests."""
    seeds: Callable[[], Sequence[bytes]]
    """Good inputs, small ones; mutations begin with them."""
    read: Callable[[bytes], object]
    """The reader."""
    refusals: tuple[type[Exception], ...]
    """Documented classes of error."""
    tokens: tuple[bytes, ...] = ()
    """Words of the format, which mutations insert."""
    memory_bytes: int = 256 << 20
    """Most bytes of memory that one input may take beyond what the process held."""
    seconds: float = 10.0
    """Most seconds of processor time of one input."""
    examples: int = 100
    """Inputs from which the tests are sized: by default an eighth of them, and the slow ones five times."""


@dataclass(frozen=True)
class Finding:
    """An input that a reader neither took nor refused as documented."""

    what: str
    """What happened, in one line."""
    place: str
    """Innermost line of this project that was involved."""
    data: bytes = field(repr=False)
    """The input."""

    @property
    def kind(self) -> tuple[str, str]:
        """Key under which findings of one cause fall together."""
        return self.what[:40], self.place

    def keep(self, folder: Path, target: str) -> Path:
        """Write the input into a folder, under a name made of the target and its digest."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{target}-{hashlib.sha256(self.data).hexdigest()[:12]}.bin"
        path.write_bytes(self.data)
        return path


@cache
def good_inputs(target: Target) -> tuple[bytes, ...]:
    """Return a target's good inputs, made once."""
    return tuple(target.seeds())


class _TooSlow(BaseException):
    """Raised inside a reader by its timer; no reader's ``except Exception`` takes it."""


def from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a reader of bytes that writes them to a temporary file of a name, for a reader of paths."""
    folder = tempfile.TemporaryDirectory(prefix="portrait-fuzz-")

    def read_bytes(data: bytes) -> object:
        path = Path(folder.name) / name
        path.write_bytes(data)
        return read(path)

    return read_bytes


def try_input(target: Target, data: bytes) -> Finding | None:
    """Give one input to a target's reader; return a finding, or None where all is well."""
    before = _restart_peak()
    try:
        with _bounded(target, before):
            target.read(data)
    except _TooSlow as error:
        return Finding(f"took more than {target.seconds:g} s", _place(error), data)
    except target.refusals as error:
        if _wanted_memory(error):
            return Finding(f"asked for too much memory: {error!s:.80}", _place(error), data)
    except Exception as error:
        return Finding(f"{type(error).__name__}: {error!s:.160}", _place(error), data)
    grown = _status("VmHWM") - before
    if grown > target.memory_bytes:
        return Finding(f"took {grown >> 20} MiB", "", data)
    return None


@contextmanager
def _bounded(target: Target, before: int) -> Iterator[None]:
    """Stop a reader that runs for too long or takes the machine's memory."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise _TooSlow

    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = _status("VmSize") + target.memory_bytes + _HEADROOM
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, target.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, handler)


def _restart_peak() -> int:
    """Make the resident peak count from now on; return what is resident, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Read one number of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


def _wanted_memory(error: BaseException | None) -> bool:
    """Tell whether an error was made of a refused allocation, which a larger machine would have made."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or any(text in str(error).lower() for text in _REFUSED_ALLOCATION):
            return True
        error = error.__cause__ or error.__context__
    return False


def _place(error: BaseException) -> str:
    frames: list[Any] = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "portrait_core" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
