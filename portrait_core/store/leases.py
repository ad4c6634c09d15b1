"""Leases on units, so that two runs on one store do little work twice.

Safety never rests on leases; it rests on idempotent commits: a run without a lease, or one that goes on after
losing it, writes the same bytes and does no harm. A lease only saves work.

A lease is one JSON object, ``lease.json``, rewritten ("beaten") by its holder. Object stores offer no lock
that works everywhere, so a lease is taken in steps: check that it is free, write, wait for a short time, read
back; the last writer has it. Its guarantees and limits:

- Two that try at the same moment see the same last writer, and the other one goes on waiting.
- If a writer is delayed between checking and writing for longer than the short wait, both believe that they
  hold the lease until the next beat of the one that was overwritten (a third of the time to live, plus the
  store's latency), which then knows that it is :attr:`Lease.lost`.
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

from portrait_core.store.documents import canonical_json, read_json
from portrait_core.store.unit import Unit

_SETTLE_LOCAL_S = 0.1
_SETTLE_REMOTE_S = 0.5
_MAX_POLL_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The record of a lease: its holder."""

    owner: str
    """Random hexadecimal identifier of one :class:`Lease` object."""
    host: str
    pid: int
    process_started: int
    """Clock ticks from the host's start to the process's (Linux), else 0; distinguishes a process from a
    later one with the same number."""
    stage: str
    """Stage that is at work."""
    beat: int
    """Counter that increases while the holder lives."""
    time_utc: str
    """Time of the last beat by the holder's clock, ISO 8601."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def age_s(self) -> float:
        """Seconds since the last beat. Approximate, for people: it compares two hosts' clocks."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.time_utc)).total_seconds()

    def is_dead_here(self) -> bool:
        """Tell whether the holder was a process of this host that is gone.

        False proves nothing: the process may live, or run on another host. Containers that share a host name
        but not their processes look dead to each other; work is then done twice.
        """
        return self.host == socket.gethostname() and _process_started(self.pid) != self.process_started


def read_holder(unit: Unit) -> Holder | None:
    """Read the holder of a unit's lease, alive or not; None when there is none or the record is damaged."""
    record = read_json(unit._files, _name(unit))
    if not isinstance(record, dict):
        return None
    fields: dict[str, Any] = {name: record.get(name) for name in (*_TEXTS, *_COUNTS)}
    if not all(isinstance(fields[name], str) and len(fields[name]) <= _MAX_CHARACTERS for name in _TEXTS):
        return None
    if not all(type(fields[name]) is int and 0 <= fields[name] <= most for name, most in _COUNTS.items()):
        return None
    parsed = Holder(**fields)
    try:
        _ = parsed.age_s  # an invalid time counts as damage
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed


class Lease:
    """An advisory lease on a unit: ``with Lease(unit): ...``, or :meth:`acquire` and :meth:`release`.

    While it is held, a daemon thread beats every third of the time to live. Processes must not share it.
    """

    def __init__(self, unit: Unit, ttl_s: float = 30.0) -> None:
        """Prepare a lease that is not held yet.

        Args:
            unit: unit of the work.
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
        """``owner`` of the lease's record while this object holds it (:class:`Holder`)."""
        return self._owner

    @property
    def lost(self) -> bool:
        """True if another has taken the lease over since it was acquired; noticed at a beat."""
        return self._lost

    def acquire(
        self,
        on_wait: Callable[[Holder], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> bool:
        """Wait until this object holds the lease; return at once when it already does.

        The lease is taken from a dead process of this host at once, and from any other holder when its beat
        has not changed for ``ttl_s`` by this process's clock: clocks of different hosts are never compared.

        Args:
            on_wait: called once, with the holder, when waiting begins.
            stop: called about once per second while another holds the lease; True gives up (a function that
                always returns True does not wait).

        Returns:
            True if this object holds the lease; False only when ``stop`` returned True.
        """
        if self._thread is not None and not self._lost:
            return True
        watch = _Watch(self._ttl_s)
        was_reported = False
        while True:
            current = read_holder(self._unit)
            if (
                current is None
                or current.owner == self._owner
                or current.is_dead_here()
                or watch.is_stale(current)
            ):
                if self._claim():
                    self._start_beating()
                    return True
                continue
            if on_wait is not None and not was_reported:
                on_wait(current)
            was_reported = True
            if stop is not None and stop():
                return False
            time.sleep(min(self._ttl_s / 10, _MAX_POLL_S))

    def set_stage(self, stage: str) -> None:
        """Set the stage that is at work; the beating thread writes it at once."""
        self._stage = stage
        self._wake.set()

    def release(self) -> None:
        """Give the lease back if it is still held. Never raises: a lease that stays goes stale."""
        if self._thread is None:
            return
        self._ends = True
        self._wake.set()
        self._thread.join(self._ttl_s)  # with a limit, because its store may hang
        self._thread = None
        try:
            if self._is_ours():
                self._unit._files.delete([_name(self._unit)])
        except Exception as error:
            _log.warning("the lease of %s cannot be given back (%s); it goes stale", self._unit, error)

    def _claim(self) -> bool:
        """Write this object's name and check whether it stands.

        The wait takes place every time, because the first writer cannot know about a rival. It has to be
        longer than a rival needs between seeing the lease free and having written.
        """
        self._write()
        time.sleep(_SETTLE_LOCAL_S if self._unit._files.is_local else _SETTLE_REMOTE_S)
        return self._is_ours()

    def _is_ours(self) -> bool:
        current = read_holder(self._unit)
        return current is not None and current.owner == self._owner

    def _write(self) -> None:
        self._beat += 1
        record = Holder(
            owner=self._owner,
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=_process_started(os.getpid()) or 0,
            stage=self._stage,
            beat=self._beat,
            time_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        self._unit._files.put({_name(self._unit): canonical_json(asdict(record))})

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
                current = read_holder(self._unit)
                if current is not None and current.owner != self._owner:
                    self._lost = True
                    return
                if not self._ends:
                    self._write()


class _Watch:
    """Tells when a beat has not changed for too long, by this process's monotonic clock."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._seen: tuple[str, int] | None = None
        self._since = 0.0

    def is_stale(self, current: Holder) -> bool:
        now = time.monotonic()
        if self._seen != (current.owner, current.beat):
            self._seen, self._since = (current.owner, current.beat), now
        return now - self._since > self._ttl_s


_TEXTS = ("owner", "host", "stage", "time_utc")
_MAX_CHARACTERS = 300
"""Characters of a text in a lease; a host's name has 255 at most."""
_COUNTS = {"pid": 2**31 - 1, "process_started": 2**63, "beat": 2**63}
"""Largest values of a lease's numbers."""


def _name(unit: Unit) -> str:
    return f"{unit.path}/lease.json"


def _process_started(pid: int) -> int | None:
    """Return the start of a process of this host in clock ticks; 0 if unknown, None if it is gone."""
    if not Path("/proc/self/stat").exists():
        return 0 if _is_running(pid) else None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])  # killed, but not yet reaped


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
