"""Leases between real processes, some of them killed or stopped."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portrait_core.store import Holder, Lease, Store, Unit, read_holder

HOLDS = """
import socket, sys, time
from portrait_core.store import Lease, Store
if sys.argv[2]:
    socket.gethostname = lambda: sys.argv[2]
lease = Lease(Store(sys.argv[1]).unit("video", "a"), ttl_s=float(sys.argv[3]))
lease.set_stage("inversion")
lease.acquire()
print("held", flush=True)
while not lease.lost:
    time.sleep(0.05)
print("lost", flush=True)
"""

RACES = """
import os, sys, time
from portrait_core.store import Lease, Store, read_holder
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
unit = Store(sys.argv[1]).unit("video", "a")
print("ready", flush=True)
for _ in sys.stdin:
    lease = Lease(unit)
    if lease.acquire(stop=lambda: True):
        os.write(log, f"begin {os.getpid()}\\n".encode())
        lease.set_stage("beats now")
        while not lease.lost and (found := read_holder(unit)) is not None and found.stage != "beats now":
            time.sleep(0.01)
        os.write(log, f"end {os.getpid()} {lease.lost}\\n".encode())
        lease.release()
    print("ready", flush=True)
"""


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Store(tmp_path).unit("video", "a")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``start(script, *arguments)`` runs Python; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def _says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _at_once() -> bool:
    return True


def _after(polls: int) -> Callable[[], bool]:
    count = itertools.count(1)
    return lambda: next(count) >= polls


def _write(tmp_path: Path, **fields: Any) -> Path:
    path = tmp_path / "video" / "a" / "lease.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "owner": "ab",
        "host": "elsewhere",
        "pid": 1,
        "process_started": 0,
        "stage": "tuning",
        "beat": 7,
        "time_utc": "2026-01-01T00:00:00+00:00",
    }
    path.write_text(json.dumps(said | fields))
    return path


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_lease_is_told_and_given_back(tmp_path: Path, scheme: str) -> None:
    unit = Store(f"{scheme}://{tmp_path}").unit("video", "a")
    assert read_holder(unit) is None
    with Lease(unit) as lease:
        assert lease.acquire()  # it is ours already
        lease.set_stage("tuning")
        while (found := read_holder(unit)) is not None and found.stage != "tuning":
            time.sleep(0.02)
        assert found is not None
        assert found.pid == os.getpid()
        assert not found.is_dead_here()
        assert found.age_s >= 0
        waits: list[Holder] = []
        assert not Lease(unit, ttl_s=1).acquire(on_wait=waits.append, stop=_after(3))
        assert [wait.owner for wait in waits] == [found.owner]
    assert read_holder(unit) is None
    assert not lease.lost
    assert Lease(unit).acquire(stop=_at_once)


def test_killed_holder_of_this_host_is_followed_at_once(
    tmp_path: Path, unit: Unit, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(HOLDS, tmp_path, "", 3600)
    assert _says(process) == "held"
    lease = Lease(unit, ttl_s=3600)
    assert not lease.acquire(stop=_at_once)
    process.kill()
    process.wait()
    waits: list[Holder] = []
    assert lease.acquire(on_wait=waits.append, stop=_at_once)  # no wait for the time to live
    assert not waits
    lease.release()


def test_another_process_of_the_same_number_is_not_the_holder(tmp_path: Path, unit: Unit) -> None:
    with Lease(unit):
        found = read_holder(unit)
    assert found is not None
    _write(tmp_path, **dataclasses.asdict(dataclasses.replace(found, owner="ab")))
    assert not Lease(unit).acquire(stop=_at_once)
    _write(tmp_path, **dataclasses.asdict(dataclasses.replace(found, process_started=1)))
    assert Lease(unit).acquire(stop=_at_once)


def test_stopped_holder_of_another_host_is_followed_after_a_while_and_knows(
    tmp_path: Path, unit: Unit, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(HOLDS, tmp_path, "elsewhere", 1.2)
    assert _says(process) == "held"
    lease = Lease(unit, ttl_s=1.2)
    assert not lease.acquire(stop=_after(15))  # for longer than the time to live: it beats
    process.send_signal(signal.SIGSTOP)
    waits: list[Holder] = []
    assert lease.acquire(on_wait=waits.append)
    assert [(wait.host, wait.stage) for wait in waits] == [("elsewhere", "inversion")]
    process.send_signal(signal.SIGCONT)
    assert _says(process) == "lost"
    assert not lease.lost
    lease.release()
    assert read_holder(unit) is None


def test_two_that_race_do_not_both_go_on_believing(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """Both may believe for a moment; then the one that was overwritten knows that its lease is lost."""
    log = tmp_path / "log"
    log.touch()
    rivals = [start(RACES, tmp_path / "store", log) for _ in range(2)]
    for _ in range(20):
        assert [_says(rival) for rival in rivals] == ["ready", "ready"]
        for rival in rivals:
            assert rival.stdin is not None
            rival.stdin.write("go\n")
            rival.stdin.flush()
    assert [_says(rival) for rival in rivals] == ["ready", "ready"]
    believing: set[str] = set()
    overlap: set[str] = set()
    begins = 0
    for what, who, *lost in (line.split() for line in log.read_text().splitlines()):
        if what == "begin":
            begins += 1
            believing.add(who)
            overlap |= believing if len(believing) > 1 else set()
            continue
        believing.discard(who)
        if lost == ["True"]:
            overlap.clear()
        elif not believing:
            assert not overlap, "both held the lease to the end"
    assert begins >= 20  # in every round somebody got it


def test_lease_of_another_is_not_deleted(tmp_path: Path, unit: Unit) -> None:
    lease = Lease(unit, ttl_s=3600)
    lease.acquire()
    path = _write(tmp_path)
    lease.release()
    assert path.exists()
    assert lease.lost


def test_failing_store_does_not_end_the_beating(tmp_path: Path, unit: Unit) -> None:
    folder = tmp_path / "video" / "a"
    with Lease(unit, ttl_s=0.3) as lease:
        folder.rename(tmp_path / "away")
        folder.write_bytes(b"")  # no folder: nothing can be written there
        time.sleep(0.5)
        folder.unlink()
        while read_holder(unit) is None:
            time.sleep(0.05)
        assert not lease.lost


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": "ab"}', b"\xff"])
def test_damaged_lease_is_free(tmp_path: Path, unit: Unit, content: bytes) -> None:
    _write(tmp_path).write_bytes(content)
    assert read_holder(unit) is None


def test_a_time_that_is_none_is_damage(tmp_path: Path, unit: Unit) -> None:
    for time_utc in ("yesterday", "2026-01-01T00:00:00"):
        _write(tmp_path, time_utc=time_utc)
        assert read_holder(unit) is None
    _write(tmp_path)
    found = read_holder(unit)
    assert found is not None
    assert found.beat == 7
