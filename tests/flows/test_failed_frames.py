"""Frames that fail: recorded, held, passed over by the chain, set aside, taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import portrait_core.inversion.chain
import tasks.stages.inversion
import tasks.stages.template
from flows.cli.main import app
from flows.engine.runners import Pending
from flows.engine.stages import StageRunner
from portrait_core.media import probe
from portrait_core.runtime import cancellation
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import Settings
from portrait_core.store import Store, Unit
from tasks.running import Call
from tests.flows.conftest import FRAMES, Arguments, stage_output
from tests.simulation.stub import STUBS, stub_job

FAILS = 1
"""Frame that diverges: not the last one before the blackened frame, a cut at which the chain begins anew."""
CHAIN = ("inversion.init=mean", "inversion.steps=2")


@pytest.fixture(autouse=True)
def _nothing_in_memory() -> Iterator[None]:
    forget_models()
    yield
    forget_models()


@pytest.fixture
def diverging(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """One frame diverges until the returned function is called."""
    right = portrait_core.inversion.chain.invert_frame

    def invert(*arguments: Any) -> Any:
        if arguments[3] == FAILS:
            raise FloatingPointError("the loss is nan at step 1; lower the learning rate")
        return right(*arguments)

    monkeypatch.setattr(portrait_core.inversion.chain, "invert_frame", invert)
    return lambda: monkeypatch.setattr(portrait_core.inversion.chain, "invert_frame", right)


def _unit(store: Path) -> Unit:
    (name,) = Store(store).units("reenactment")
    return Store(store).unit("reenactment", name)


def _summary(out: Path) -> Any:
    return json.loads((out / "summary.json").read_text())


def _computed(out: Path) -> dict[str, int]:
    return {s["stage"]: s["frames_done"] for s in _summary(out)["stages"] if s["frames_done"]}


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def _latents(store: Path) -> np.ndarray:
    output = stage_output(store, "inversion")
    return np.concatenate([output.read("latents", i, i + 1) for i in range(FRAMES) if i != FAILS])


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_frame_that_diverges_is_held_set_aside_and_taken_up(
    tmp_path: Path, arguments: Arguments, diverging: Callable[[], None]
) -> None:
    store, out = tmp_path / "store", tmp_path / "out"
    command = arguments(store, out, *CHAIN)
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 1, first.output
    assert _summary(out)["held_frames"]["not_rendered"] == [FAILS]
    assert probe(out / "reenactment.mp4").frame_count == FRAMES
    assert probe(out / "reenactment.mp4").has_audio
    rows = _unit(store).failures()
    assert rows[["stage", "frame", "cls"]].values.tolist() == [["inversion", FAILS, "poison"]]

    before = _latents(store)
    second = CliRunner().invoke(app, command)
    assert second.exit_code == 1
    assert _computed(out) == {}, "what was set aside is not tried again by itself"
    plan = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "1 set aside" in plan.output
    assert "nothing to do" in plan.output
    shown = _call("status", store)
    assert "the loss is nan" in shown.output

    diverging()
    tuned = stage_output(store, "tuning").get_bytes("tuned_generator.safetensors")
    again = _call("retry", store, "--out", tmp_path / "again")
    assert f"inversion frame {FAILS} again" in again.output
    assert again.exit_code == 0, again.output
    (made,) = (tmp_path / "again").iterdir()
    assert _computed(made) == {"inversion": 1, "render": 1, "encode": 1, "measure": 1}
    assert _summary(made)["held_frames"]["not_rendered"] == []
    assert stage_output(store, "tuning").get_bytes("tuned_generator.safetensors") == tuned
    np.testing.assert_array_equal(_latents(store), before)  # what came after the gap is kept
    assert "nothing of class" in _call("retry", store).output


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_gaps_redo_gives_what_a_run_without_failures_gives(
    tmp_path: Path, arguments: Arguments, diverging: Callable[[], None]
) -> None:
    store, whole = tmp_path / "store", tmp_path / "whole"
    assert CliRunner().invoke(app, arguments(store, tmp_path / "out", *CHAIN)).exit_code == 1
    diverging()
    assert CliRunner().invoke(app, arguments(whole, tmp_path / "out2", *CHAIN)).exit_code == 1  # no face in 3
    assert not np.array_equal(_latents(store), _latents(whole))  # the chain went on from another latent
    assert _call("retry", store, "--gaps", "redo").exit_code == 0
    for stage, name in (("inversion", "latents"), ("render", "frames")):
        redone, undisturbed = (stage_output(s, stage).read(name) for s in (store, whole))
        np.testing.assert_array_equal(redone, undisturbed, err_msg=name)
    digests = [_call("verify", s).output.split("digest ")[1].split()[0] for s in (store, whole)]
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.each_change
@pytest.mark.timeout(900)
def test_a_template_that_cannot_be_made_costs_its_frame_alone(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tasks.stages.template._as_bytes
    store, out = tmp_path / "store", tmp_path / "out"
    rendered: list[int] = []

    def wrong(mask: Any) -> Any:
        rendered.append(len(mask))
        if len(rendered) == 1 or (len(rendered) == 2 and len(mask) == 1):
            raise ValueError("a mask that makes no sense")  # the first batch, then its first frame
        return right(mask)

    monkeypatch.setattr(tasks.stages.template, "_as_bytes", wrong)
    ended = CliRunner().invoke(app, arguments(store, out, "runner.workers=1"))
    assert ended.exit_code == 1, ended.output
    (gap,) = _summary(out)["held_frames"]["not_rendered"]
    assert gap == 0  # the inversion starts from the next frame, and the clip with it
    rows = _unit(store).failures()
    assert rows[["stage", "frame", "cls"]].values.tolist() == [["template", gap, "poison"]]
    assert probe(out / "reenactment.mp4").frame_count == FRAMES


@pytest.mark.timeout(900)
def test_a_stage_all_of_whose_frames_fail_stops_the_run_and_says_why(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> Any:
        raise RuntimeError("a part that is broken")

    monkeypatch.setattr(portrait_core.inversion.chain, "invert_frame", never)
    ended = CliRunner().invoke(app, arguments(tmp_path / "store", tmp_path / "out"))
    assert ended.exit_code == 1
    said = " ".join(ended.output.split())
    assert "a part that is broken" in said
    assert "portrait retry" in said


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_task_that_fails_as_a_whole_sets_no_frame_aside(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_weights(*arguments: Any) -> Any:
        raise FileNotFoundError("weights that this worker does not see")

    store, out = tmp_path / "store", tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(tasks.stages.inversion, "_inverter", no_weights)
        assert CliRunner().invoke(app, arguments(store, out)).exit_code == 1
    assert _unit(store).failures()["frame"].isna().all()
    assert CliRunner().invoke(app, arguments(store, out)).exit_code == 1  # no face in frame 3
    assert _summary(out)["held_frames"]["not_rendered"] == []


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot schedule new futures after shutdown"), CancelledError()]
)
def test_what_a_stop_breaks_off_is_no_failure(tmp_path: Path, error: Exception) -> None:
    """A pool that closes refuses and cancels tasks while clips of a dataset go on in their threads."""

    class Closing:
        def submit(
            self, call: Call, priority: int = 0, check_progress: Callable[[], None] = lambda: None
        ) -> Pending:
            cancellation.request()
            raise error

        def stop(self) -> None: ...

        def drop_loaded_models(self) -> None: ...

    job = stub_job(str(tmp_path), "clip", 4, Settings())
    try:
        with pytest.raises(cancellation.StopRequested):
            StageRunner(job, Closing(), functions=STUBS.__getitem__).run_all()
    finally:
        cancellation.clear()
    assert Store(tmp_path).failures("portrait").empty
