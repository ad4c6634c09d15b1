"""Who is at work on a unit, so that two runs on one store at once do little work twice.

Safety never rests on leases; it rests on idempotent commits: whoever works without one, or goes on after
losing one, writes the same bytes and harms nothing. A lease only saves the work.

A lease is one JSON object, ``lease.json``, rewritten ("beaten") by its holder. Object stores offer no
lock that works everywhere, so taking it is: see that it is free, write, wait a little, read back; whoever
wrote last has it. What that guarantees, and what not:

- Two who try at the same moment see the same last writer, and the other one goes on waiting.
- If a writer is held up between looking and writing for longer than the little wait, both believe that they
  hold the lease until the next beat of the one that was overwritten (a third of the time to live, plus what
  the store takes), which then knows that it is :attr:`Lease.lost`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from portrait_core.store.documents import canonical_json, parse_json
from portrait_core.store.unit import Unit

_SETTLE_LOCAL_S = 0.1
_SETTLE_REMOTE_S = 0.5
_LONGEST_POLL_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """What a lease says of the one who holds it."""

    owner: str
    """Random, hexadecimal, of one :class:`Lease` object."""
    host: str
    pid: int
    process_started: int
    """Clock ticks from the host's start to the process's (Linux), else 0: tells a process from a later one
    of the same number."""
    stage: str
    """What is being worked on."""
    beat: int
    """Counts up while the holder lives."""
    time_utc: str
    """Time of the last beat by the holder's clock, ISO 8601."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def age_s(self) -> float:
        """Seconds since the last beat: approximate, for people, as two hosts' clocks are compared."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.time_utc)).total_seconds()

    def is_dead_here(self) -> bool:
        """Tell whether the holder was a process of this host that is gone. False says nothing: it may live,
        or be on another host.

        Containers that share a host name but not their processes look dead to each other: work is then done
        twice.
        """
        return self.host == socket.gethostname() and _process_started(self.pid) != self.process_started


def read_holder(unit: Unit) -> Holder | None:
    """Who holds a unit's lease, alive or not; None when nobody does or the record is damaged."""
    found = parse_json(unit._files.get_one(_name(unit)))
    if not isinstance(found, dict):
        return None
    try:
        read = Holder(**{field: kind(found[field]) for field, kind in _FIELDS.items()})
        _ = read.age_s  # a time that is none counts as damage
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return read


class Lease:
    """An advisory lease on a unit: ``with Lease(unit): ...``, or :meth:`acquire` and :meth:`release`.

    While it is held a daemon thread beats every third of the time to live. Not to be shared by processes.
    """

    def __init__(self, unit: Unit, ttl_s: float = 30.0) -> None:
        """A lease that is not held yet.

        Args:
            unit: what is to be worked on.
            ttl_s: seconds without a beat after which others take the lease over.
        """
        self._unit = unit
        self._ttl_s = ttl_s
        self._owner = secrets.token_hex(8)
        self._stage = ""
        self._beat = 0
        self._lost = False
        self._ends = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def owner(self) -> str:
        """What the lease's record says while it is ours (:class:`Holder`)."""
        return self._owner

    @property
    def lost(self) -> bool:
        """Whether another has taken the lease over since it was acquired; seen at a beat."""
        return self._lost

    def acquire(
        self,
        on_wait: Callable[[Holder], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> bool:
        """Wait until the lease is ours; at once when it is already.

        It is taken from a dead process of this host at once, from any other holder when its beat has stood
        still for ``ttl_s`` by our own clock: clocks of different hosts are never compared.

        Args:
            on_wait: called once, with the holder, when waiting begins.
            stop: asked while another holds it, about once a second; True gives up (always True: do not wait).

        Returns:
            Whether the lease is ours: False only when ``stop`` said so.
        """
        if self._thread is not None and not self._lost:
            return True
        watch = _Watch(self._ttl_s)
        told = False
        while True:
            found = read_holder(self._unit)
            if found is None or found.owner == self._owner or found.is_dead_here() or watch.is_stale(found):
                if self._claim():
                    self._start_beating()
                    return True
                continue
            if on_wait is not None and not told:
                on_wait(found)
            told = True
            if stop is not None and stop():
                return False
            time.sleep(min(self._ttl_s / 10, _LONGEST_POLL_S))

    def set_stage(self, stage: str) -> None:
        """Say what is being worked on; written at once, by the beating thread."""
        self._stage = stage
        self._wake.set()

    def release(self) -> None:
        """Give the lease back, if it is still ours. Never raises: one that cannot be deleted goes stale."""
        if self._thread is None:
            return
        self._ends = True
        self._wake.set()
        self._thread.join(self._ttl_s)  # not for ever: its store may hang
        self._thread = None
        try:
            if self._is_ours():
                self._unit._files.delete([_name(self._unit)])
        except Exception as error:
            _log.warning("the lease of %s cannot be given back (%s); it goes stale", self._unit, error)

    def _claim(self) -> bool:
        """Write our name and see whether it stands.

        The wait is there every time: whoever writes first cannot know that there is a rival. It has to
        outlast what a rival needs from seeing the lease free to having written.
        """
        self._write()
        time.sleep(_SETTLE_LOCAL_S if self._unit._files.is_local else _SETTLE_REMOTE_S)
        return self._is_ours()

    def _is_ours(self) -> bool:
        found = read_holder(self._unit)
        return found is not None and found.owner == self._owner

    def _write(self) -> None:
        self._beat += 1
        said = Holder(
            owner=self._owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=_process_started(os.getpid()) or 0,
            stage=self._stage,
            beat=self._beat,
            time_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        self._unit._files.put({_name(self._unit): canonical_json(asdict(said))})

    def _start_beating(self) -> None:
        self._lost = self._ends = False
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self._thread.start()

    def _keep_beating(self) -> None:
        while not self._ends:
            self._wake.wait(self._ttl_s / 3)
            self._wake.clear()
            # A store that fails now may answer at the next beat.
            with contextlib.suppress(Exception):
                found = read_holder(self._unit)
                if found is not None and found.owner != self._owner:
                    self._lost = True
                    return
                if not self._ends:
                    self._write()


class _Watch:
    """Tells when a beat has stood still for too long, by this process's monotonic clock."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._seen: tuple[str, int] | None = None
        self._since = 0.0

    def is_stale(self, found: Holder) -> bool:
        now = time.monotonic()
        if self._seen != (found.owner, found.beat):
            self._seen, self._since = (found.owner, found.beat), now
        return now - self._since > self._ttl_s


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "owner": str,
    "host": str,
    "pid": int,
    "process_started": int,
    "stage": str,
    "beat": int,
    "time_utc": str,
}


def _name(unit: Unit) -> str:
    return f"{unit.path}/lease.json"


def _process_started(pid: int) -> int | None:
    """Start of a process of this host in clock ticks; 0 where that cannot be told, None when it is gone."""
    if not Path("/proc/self/stat").exists():
        return 0 if _is_running(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # killed, but not yet buried


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
