"""Two runs on one store at once, and one that was asleep and comes back as the late writer."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import MakeBench, Whole
from tests.faults.content import broken, different
from tests.faults.events import done_again, recomputed
from tests.faults.injected import faults_of, fired_file
from tests.faults.runs import DONE
from tests.faults.table import add_row, committed_count

MOST_TWICE = 0
"""Frames of stages that two runs may make twice. Without leases: all of a clip's."""
MOST_TWICE_LATE = 4
"""The same when one of them was stopped for a while: what its two threads had begun, two frames each."""
ASLEEP_S = 90
"""How long the late writer sleeps at most: it is woken earlier when the other run has finished."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_runs_at_once(bench: MakeBench, undisturbed: Whole) -> None:
    clip = bench()
    runs = [clip.start() for _ in range(2)]
    codes = [run.wait(900) for run in runs]
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, "two runs on one store", "from the start", 1, 0, wrong, runs[1])
    assert codes == [DONE, DONE], "".join(run.output[-2000:] for run in runs)
    assert wrong == []
    assert clip.is_finished
    assert broken(Path(clip.store)) == []
    assert recomputed(clip.events) <= MOST_TWICE
    assert sum(done_again(clip.events).values()) <= MOST_TWICE


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", ["inversion", "tuning", "render"])
def test_a_stopped_run_comes_back_as_the_late_writer(
    bench: MakeBench, undisturbed: Whole, stage: str
) -> None:
    clip = bench()
    fault = f"stop={stage}:before-data"
    late = clip.start(fault, warm=False)
    asleep = fired_file(clip.folder / "faults", faults_of(fault)[0])
    assert late.watch(asleep.exists), late.output
    before = committed_count(clip)
    other = clip.start(warm=False)
    limit = time.monotonic() + ASLEEP_S
    while not other.is_over() and time.monotonic() < limit:
        time.sleep(0.1)
    late.send(signal.SIGCONT)
    codes = [run.wait(900) for run in (late, other)]
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, "SIGSTOP, another run, SIGCONT", f"{stage}, before data", 1, before, wrong, late)
    assert codes == [DONE, DONE], late.output[-2000:] + other.output[-2000:]
    assert wrong == []
    assert clip.is_finished
    assert broken(Path(clip.store)) == []
    assert sum(done_again(clip.events).values()) <= MOST_TWICE_LATE
