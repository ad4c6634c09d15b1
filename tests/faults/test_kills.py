"""SIGKILL of the flow: at every step of every stage, at random moments, and SIGTERM, which leaves time."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tasks.pipelines import CLIP
from tests.faults.conftest import LONG, LONG_CHANGES, MakeBench, Whole
from tests.faults.content import broken, different
from tests.faults.events import Event, done_again, progress
from tests.faults.runs import INTERRUPTED, KILLED, Run
from tests.faults.table import add_row, committed_count

POINTS = ("before-data", "after-data", "after-marker")
KILLS = 50


@pytest.mark.slow
@pytest.mark.each_change
@pytest.mark.timeout(3600)
def test_kill_9_at_every_step_of_every_stage(bench: MakeBench, undisturbed: Whole) -> None:
    clip, wanted = bench(), undisturbed().content
    for stage in CLIP.names:
        for point in POINTS:
            run = clip.start(f"kill={stage}:{point}")
            assert run.wait() == KILLED, f"{stage} {point}: not killed\n{run.output[-3000:]}"
            assert broken(Path(clip.store)) == [], f"{stage} {point}: committed without its data"
    before = committed_count(clip)
    last = clip.finish()
    wrong = different(clip.store, wanted)
    times = len(CLIP.names) * len(POINTS)
    add_row(clip, "SIGKILL of the flow", "before data, after data, after marker", times, before, wrong, last)
    assert wrong == []
    assert clip.is_finished
    assert done_again(clip.events) == {}, "committed frames were written again"


def _is_work(event: Event) -> bool:
    return event.sort != "other" or event.name.endswith(".checkpoint")


def _early(kills: int, run: Run) -> str:
    return f"finished after {kills} kills of {KILLS}:\n{run.output[-2000:]}"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_at_random_moments(bench: MakeBench, undisturbed: Whole) -> None:
    whole = undisturbed(*LONG_CHANGES, frames=LONG)
    clip, chance = bench(*LONG_CHANGES, frames=LONG), random.Random(0)
    before = 0
    for kill in range(KILLS):
        # A little behind the clock, so that the last kills still have something to strike.
        ahead = progress(clip.events, whole.timeline) > 0.9 * kill / KILLS
        run, known = clip.start(), len(clip.events)
        if ahead:  # in its start, mostly, so that there is work left for the kills to come
            time.sleep(chance.uniform(0, 0.5))
        else:

            def worked(known: int = known) -> bool:
                return any(map(_is_work, clip.events[known:]))

            assert run.watch(worked), _early(kill, run)
            time.sleep(chance.uniform(0, whole.seconds / KILLS))
        assert run.kill() == KILLED, _early(kill, run)
        before = committed_count(clip)
        if kill % 10 == 9:  # it reads the whole store
            assert broken(Path(clip.store)) == [], f"kill {kill}: committed without its data"
    last = clip.finish()
    wrong = different(clip.store, whole.content)
    add_row(clip, "SIGKILL of the flow", f"random moments, {LONG} frames", KILLS, before, wrong, last)
    assert wrong == []
    assert clip.is_finished
    assert done_again(clip.events) == {}, "committed frames were written again"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "stage", ["inversion", pytest.param("tuning", marks=pytest.mark.each_change), "render"]
)
def test_sigterm_ends_in_time_and_the_next_run_finishes(
    bench: MakeBench, undisturbed: Whole, stage: str
) -> None:
    clip = bench()
    run = clip.start(warm=False)
    written = "/files/tuning." if stage == "tuning" else "/done/"
    assert run.watch(lambda: any(e.stage == stage and written in e.name for e in clip.events)), run.output
    run.send(signal.SIGTERM)
    assert run.wait(120) == INTERRUPTED, run.output
    assert "give the same command again" in run.output
    assert broken(Path(clip.store)) == []
    before = committed_count(clip)
    clip.finish()
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, "SIGTERM to the flow", stage, 1, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    assert done_again(clip.events) == {}
