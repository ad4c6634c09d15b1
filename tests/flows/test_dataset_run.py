"""Clips on one set of workers: looked at ahead, failing apart, and stopped together when the store fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import flows.cli.retry
import flows.engine.runners
from flows.dataset import ended
from flows.dataset_run import STORE_FAILURES, Clip, ClipResult, DatasetRun
from flows.display.progress import Tally
from flows.engine.environment import refuse_secrets
from flows.engine.runners import open_runner
from flows.engine.stages import Functions, StageError, stop_request_cleared
from portrait_core.errors import StoreError
from portrait_core.pipeline import Job
from portrait_core.pipeline.classification import StalledTaskError
from portrait_core.pipeline.ledger import Ledger, record_failures
from portrait_core.pipeline.results import StageResult
from portrait_core.pipeline.retention import droppable_bytes
from portrait_core.pipeline.state import read_states, record_state, save_job
from portrait_core.runtime import cancellation
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Failure, Store
from tasks.deliver import SUMMARY, deliver
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


@pytest.mark.slow
@pytest.mark.each_change
def test_a_store_that_fails_for_many_clips_in_a_row_ends_the_run(tmp_path: Path) -> None:
    settings, count = _settings("runner.clips=1"), STORE_FAILURES + 2
    refused.update({f"clip-{i}": 99 for i in range(count)})
    clips = _clips(tmp_path, settings, count)
    with pytest.raises(StageError, match=rf"refuses \(403\).* The next run finds 3 of {count} clips to do"):
        _run(clips, settings, _functions(refusing))
    assert sum(99 - left for left in refused.values()) == STORE_FAILURES, "it went on asking"
    refused.clear()
    assert set(_run(clips, settings, _functions(refusing)).values()) == {"done"}


def test_a_store_that_fails_while_rows_are_looked_at_ends_the_run_too(tmp_path: Path) -> None:
    settings, looked = _settings("runner.clips=1"), list[int]()

    def look(number: int) -> ClipResult:
        looked.append(number)
        return ClipResult(number, f"clip-{number}", "failed", "store: refuses (403)", cls="store")

    with (
        open_runner(settings) as runner,
        pytest.raises(StageError, match=r"refuses \(403\).* The next run finds 36 of 40 clips to do"),
    ):
        DatasetRun(runner, settings, None, Tally()).run(list(range(40)), look)
    assert len(looked) < 20, "it went on asking"


@pytest.mark.timeout(120)
def test_an_error_of_looking_ends_the_run_instead_of_waiting_for_it(tmp_path: Path) -> None:
    def look(clip: Clip) -> Clip:
        raise ZeroDivisionError("a fault of the program")

    settings = _settings()
    with pytest.raises(ZeroDivisionError):
        _run(_clips(tmp_path, settings, 3), settings, STUBS.__getitem__, look)


_free = threading.Event()


@stage_function("tuning")
def hanging(job: Job) -> StageResult:
    """Tune; of the first clip hang."""
    if job.label == "clip-0":
        _free.wait(600)
    return STUBS["tuning"][0](job=job)


@pytest.mark.timeout(120)
def test_a_thread_that_hangs_ends_the_run_of_all_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its place among the workers: the others would wait for it for ever."""
    monkeypatch.setattr(flows.engine.runners, "CHECK_INTERVAL_S", 0.05)
    settings = _settings("runner.clips=2", "runner.stall_s=0.5")
    try:
        with stop_request_cleared(), pytest.raises(StageError, match="tuning got no further") as stopped:
            _run(_clips(tmp_path, settings, 3), settings, _functions(hanging))
        assert isinstance(stopped.value.__cause__, StalledTaskError)
    finally:
        _free.set()
        cancellation.clear()


def test_a_damaged_clip_is_made_again_when_it_is_handed_over(tmp_path: Path) -> None:
    settings = _settings()
    clip = _clips(tmp_path / "store", settings, 1)[0]
    assert _run([clip], settings, STUBS.__getitem__) == {"clip-0": "done"}
    file = next((tmp_path / "store").rglob("encode.*/files/reenactment.*.mp4"))
    good = file.read_bytes()
    file.write_bytes(b"damaged")
    with open_runner(settings) as runner:
        run = DatasetRun(runner, settings, tmp_path / "out", Tally(), functions=STUBS.__getitem__)
        assert [result.outcome for result in run.run([clip], lambda one: one)] == ["done"]
    assert (tmp_path / "out/clip-0/reenactment.mp4").read_bytes() == good


def test_what_is_dropped_is_summed_up_before_and_dropped_though_a_run_was_killed(tmp_path: Path) -> None:
    settings = _settings()
    first, killed = _clips(tmp_path / "store", settings, 2)
    _run([killed], settings, STUBS.__getitem__)  # as if killed before it dropped anything
    _run([killed], settings, STUBS.__getitem__)
    with open_runner(settings) as runner:
        run = DatasetRun(runner, settings, tmp_path / "out", Tally(), "clip", STUBS.__getitem__)
        assert [result.outcome for result in run.run([first, killed], lambda clip: clip)] == ["done", "done"]
    for clip in (first, killed):
        said = json.loads((tmp_path / "out" / clip.name / "summary.json").read_text())
        assert said["losses"]["inversion_frames"] == [0.0, 0.0]
        assert not droppable_bytes(clip.job, "clip")


def test_a_summary_shows_its_own_failures_and_no_secrets(tmp_path: Path) -> None:
    settings = _settings()
    clip = _clips(tmp_path, settings, 1)[0]
    _run([clip], settings, STUBS.__getitem__)
    row = Failure("render", 0, "poison", "of other settings", key="0123456789abcdef")
    clip.job.unit("render").record_failures([row])
    signed = {
        "portrait": "https://a:SESAME@host/a.png?X-Amz-Signature=SESAME",
        "video": "s3://b/v.mp4?k=SESAME",
    }
    Ledger(clip.job).output("encode").drop_note(SUMMARY)
    summary = deliver(clip.job.model_copy(update=signed), None, {}, 1.0)
    assert summary.failures == []
    assert "SESAME" not in summary.model_dump_json()


@pytest.mark.parametrize("note", [5, [], {"a": 1}, {"held_frames": 5, "stages": 5, "losses": []}])
def test_a_summary_of_another_kind_is_made_again(note: object, tmp_path: Path) -> None:
    settings = _settings()
    clip = _clips(tmp_path, settings, 1)[0]
    _run([clip], settings, STUBS.__getitem__)
    output = Ledger(clip.job).output("encode")
    sound = output.read_fields(SUMMARY)
    output.write_note(SUMMARY, note)
    made = deliver(clip.job, None, {}, 1.0)
    assert (made.frames, made.held_frames) == (sound["frames"], sound["held_frames"])
    assert output.read_note(SUMMARY) == made.model_dump(mode="json")


def _result(outcome: str, message: str = "") -> ClipResult:
    return ClipResult(1, "a", outcome, message)  # type: ignore[arg-type]  # one of its words


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


def test_retry_takes_up_a_clip_that_failed_without_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where the store itself refused: nothing could be written down but the state."""
    job = stub_job(str(tmp_path), "clip-0", 2, _settings())
    save_job(job)
    record_state(job, "the store refuses (403)", failed=True)
    asked: list[Clip] = []

    def run_clips(clips: list[Clip], *_: object) -> list[ClipResult]:
        asked.extend(clips)
        return [ClipResult(clip.number, clip.name, "done") for clip in clips]

    monkeypatch.setattr(flows.cli.retry, "run_clips", run_clips)
    left = flows.cli.retry.retry_jobs([job], (), ["store"], "keep", None, _settings(), Console())
    assert left == 0
    assert [clip.job.id for clip in asked] == [job.id]
    assert "retried (the store refuses (403))" in capsys.readouterr().out


def test_retry_says_of_which_clips_it_does_not_try_the_inputs_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = stub_job(str(tmp_path), "clip-0", 2, _settings())
    save_job(job)
    key = job.stage_keys["portrait"]
    record_failures(job, "portrait", [Failure("portrait", None, "input", "no face was found", key=key)])
    record_state(job, "no face was found", failed=True)
    left = flows.cli.retry.retry_jobs([job], (), ["poison"], "keep", None, _settings(), Console(width=200))
    said = capsys.readouterr().out
    assert left == 1
    assert "once more" not in said
    assert "clip-0: stays set aside" in said
    assert "no face was found" in said


def test_no_credentials_become_parameters_of_a_flow_run() -> None:
    with pytest.raises(ValueError, match=r"would store runner\.storage_options unencrypted"):
        refuse_secrets(["tuning.steps=4", 'runner.storage_options={"secret": "x"}'])
    refuse_secrets(["runner.workers=8"])
