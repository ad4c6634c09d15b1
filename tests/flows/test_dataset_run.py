"""Clips on one set of workers: looked at ahead, failing apart, and stopped together when the store fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.dataset import ended
from flows.dataset_run import STORE_FAILURES, Clip, ClipResult, DatasetRun
from flows.progress import Tally
from flows.runners import open_runner
from flows.stages import Functions, StageError
from portrait_core.config import Settings, load_settings
from portrait_core.errors import StoreError
from portrait_core.pipeline import Job
from portrait_core.pipeline.results import StageResult
from portrait_core.pipeline.state import read_states
from portrait_core.store import Store
from tasks.running import StageFunction, stage_function
from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job

refused: dict[str, int] = {}
"""How often the store refuses the portrait of a clip, by the clip's label."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, StubSettings(size=32, generator_mb=0.01).model_dump_json())
    refused.clear()


@stage_function("portrait")
def refusing(job: Job) -> StageResult:
    """Track a portrait, unless the store refuses it."""
    if refused.get(job.label, 0) > 0:
        refused[job.label] -= 1
        raise StoreError(job.store, "refuses (403)", 1)
    return STUBS["portrait"][0](job=job)


def _functions(function: StageFunction) -> Functions:
    return (STUBS | {function.stage: (function,)}).__getitem__


def _settings(*changes: str) -> Settings:
    return load_settings("embedded", ("runner.workers=1", "runner.retry_delay_s=0", *changes))


def _clips(folder: Path, settings: Settings, count: int) -> list[Clip]:
    jobs = [stub_job(str(folder), f"clip-{i}", 2, settings) for i in range(count)]
    return [Clip(i, job.label, job) for i, job in enumerate(jobs)]


def _run(
    clips: list[Clip],
    settings: Settings,
    functions: Functions,
    look: Callable[[Clip], Clip | ClipResult] = lambda clip: clip,
) -> dict[str, str]:
    with open_runner(settings) as runner:
        results = DatasetRun(runner, settings, None, Tally(), functions=functions).run(clips, look)
    return {result.name: result.outcome for result in results}


def test_the_first_clip_begins_before_the_last_row_is_looked_at(tmp_path: Path) -> None:
    settings = _settings("runner.clips=1")
    begun, looked = threading.Event(), list[str]()

    @stage_function("portrait")
    def first(job: Job) -> StageResult:
        begun.set()
        return STUBS["portrait"][0](job=job)

    def look(clip: Clip) -> Clip:
        looked.append(clip.name)
        if len(looked) > 3:  # a window of two, and one at work
            assert begun.wait(60), "every row was looked at before any clip began"
        return clip

    globals()["first"] = first  # where workers look for it
    found = _run(_clips(tmp_path, settings, 7), settings, _functions(_named(first, "first")), look)
    assert set(found.values()) == {"done"}
    assert len(looked) == 7


def _named(function: StageFunction, name: str) -> StageFunction:
    return StageFunction(function.stage, __name__, name, function.ranged, function.run)


def test_a_clip_that_the_store_refuses_stops_no_other(tmp_path: Path) -> None:
    settings = _settings("runner.clips=1")
    refused["clip-1"] = 1
    clips = _clips(tmp_path, settings, 3)
    found = _run(clips, settings, _functions(refusing))
    assert found == {"clip-0": "done", "clip-1": "failed", "clip-2": "done"}
    states = {state.label: state for state in read_states(Store(tmp_path))}
    assert states["clip-1"].state == "failed"
    assert "refuses (403)" in states["clip-1"].message
    again = _run(clips, settings, _functions(refusing))
    assert set(again.values()) == {"done"}, "a store's failure sets nothing aside"


def test_a_store_that_fails_for_many_clips_in_a_row_ends_the_run(tmp_path: Path) -> None:
    settings, count = _settings("runner.clips=1"), STORE_FAILURES + 2
    refused.update({f"clip-{i}": 99 for i in range(count)})
    clips = _clips(tmp_path, settings, count)
    with pytest.raises(StageError, match=rf"refuses \(403\).* It finds 3 of {count} clips to do"):
        _run(clips, settings, _functions(refusing))
    assert sum(99 - left for left in refused.values()) == STORE_FAILURES, "it went on asking"
    refused.clear()
    assert set(_run(clips, settings, _functions(refusing)).values()) == {"done"}


def _result(outcome: str, message: str = "") -> ClipResult:
    return ClipResult(1, "a", outcome, message)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outcomes", "name"),
    [
        (["done", "held"], "Completed"),
        (["done", "failed"], "Partial"),
        (["done", "aside"], "Partial"),
        (["failed", "failed"], "Failed"),
    ],
)
def test_a_flow_run_whose_clips_failed_is_not_green(outcomes: list[str], name: str) -> None:
    state = ended([_result(outcome) for outcome in outcomes])
    assert state.name == name
    assert state.is_completed() == (name == "Completed")
