"""A run killed in the middle, or interrupted, goes on where it stopped and ends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flows.cli.outcome import INTERRUPTED
from tests.flows.conftest import Arguments, stage_output

DEADLINE_S = 400


def _start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        # A test run in the background of a shell has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _wait_until(process: subprocess.Popen[bytes], reached: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert process.poll() is None, f"ended too early:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"too slow:\n{log.read_text()}"
        time.sleep(0.02)


def _markers(store: Path) -> dict[str, int]:
    """Commit markers and when they were written."""
    found = store.glob("*/*/*/done/*")
    on_the_way = ".partial"  # gone a moment later
    return {str(p.relative_to(store)): p.stat().st_mtime_ns for p in found if p.suffix != on_the_way}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kill_9_in_two_stages_loses_no_committed_frame(tmp_path: Path, arguments: Arguments) -> None:
    store, log = tmp_path / "store", tmp_path / "log.txt"
    command = arguments(store, tmp_path / "out", "runner.pack=false")  # markers stay as they are
    kept: dict[str, int] = {}
    for stage in ("inversion", "render"):
        process = _start(command, log)
        _wait_until(process, lambda s=stage: any(f"/{s}." in name for name in _markers(store)), log)  # type: ignore[misc]  # mypy infers no type for a default
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = _markers(store)
        assert kept.items() <= now.items(), "a committed frame was made again"
        kept = now
    last = _start(command, log)
    assert last.wait(DEADLINE_S) == 1, log.read_text()  # one frame is held: see test_reenact
    assert kept.items() <= _markers(store).items(), "a committed frame was made again"

    whole = tmp_path / "whole"
    assert _start(arguments(whole, tmp_path / "out2"), log).wait(DEADLINE_S) == 1, log.read_text()
    for stage, name in (("template", "template"), ("inversion", "latents"), ("render", "frames")):
        pieces, at_once = (stage_output(s, stage).read(name) for s in (store, whole))
        np.testing.assert_array_equal(pieces, at_once, err_msg=name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("sent", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(
    tmp_path: Path, arguments: Arguments, sent: signal.Signals
) -> None:
    store, log = tmp_path / "store", tmp_path / "log.txt"
    process = _start(arguments(store, tmp_path / "out"), log)
    _wait_until(process, lambda: any("/landmarks." in name for name in _markers(store)), log)
    process.send_signal(sent)
    assert process.wait(60) == INTERRUPTED
    assert "give the same command again" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sigterm_under_prefect_ends_in_time_with_a_checkpoint(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    store, log = tmp_path / "store", tmp_path / "log.txt"
    changes = ("runner.prefect=always", "tuning.steps=20000", "runner.checkpoint_s=2")
    process = _start(arguments(store, tmp_path / "out", *changes), log)

    def checkpoints() -> set[str]:
        return {path.name for path in store.glob("*/*/tuning.*/files/*.checkpoint")}

    _wait_until(process, lambda: bool(checkpoints()), log)
    before = checkpoints()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == INTERRUPTED, log.read_text()
    assert "give the same command again" in log.read_text()
    assert len(checkpoints()) == 1
    assert checkpoints() != before, "the steps since the last checkpoint are lost"
