"""A stage that is declared in one file gets everything that stages have: plan, status, verification, repair,
another try, retention, progress, packing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner, Result

import flows.display.views
from flows.cli.main import app
from flows.cli.retry import retry_jobs
from flows.display.terminal import StageProgress
from flows.engine.runners import open_runner
from flows.engine.stages import StageError, StageRunner, check_only
from flows.reenact import run_stages
from portrait_core.errors import InputError
from portrait_core.pipeline import Job, Pipeline, register
from portrait_core.pipeline.job import make_stage_keys
from portrait_core.pipeline.ledger import Ledger, quarantine_reason
from portrait_core.pipeline.plan import StagePlan, plan
from portrait_core.pipeline.redo import mark_undone
from portrait_core.pipeline.results import StageRecord
from portrait_core.pipeline.retention import drop, droppable_bytes, stale_outputs
from portrait_core.pipeline.state import look_up_state, read_jobs, read_states, save_job, update_states
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Output, Store, repair_unit, verify_unit
from tasks.running import functions_of
from tests.pipeline.toy import ADDED, FRAMES, LONGER, SQUARES, TOY, toy_job
from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job

SUM = sum(i * i for i in range(FRAMES))
PLAIN = ("runner.frames_per_task=2", "runner.workers=2", "runner.retry_delay_s=0", "device=cpu")


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the pipelines for one test: others go through all that are registered."""
    module = sys.modules[Pipeline.__module__]
    monkeypatch.setattr(module, "_known", dict(module._known))
    for pipeline in (TOY, LONGER):
        register(pipeline)


def _settings(*changes: str) -> Settings:
    return load_settings("embedded", [*PLAIN, *changes])


def _job(folder: Path, *changes: str) -> Job:
    return toy_job(folder, _settings(*changes))


@pytest.fixture
def finished(tmp_path: Path) -> Job:
    """A job that has been run."""
    job = _job(tmp_path)
    run_stages(job)
    return job


def _planned(job: Job, forced: Sequence[str] = ()) -> dict[str, list[tuple[int, str]]]:
    """Parts to do and why, by stage."""

    def parts(one: StagePlan) -> list[tuple[int, str]]:
        return [(sum(len(run) for run in part.runs), part.reason) for part in one.parts]

    return {one.stage: parts(one) for one in plan(job, forced)}


def _done(records: Mapping[str, StageRecord]) -> dict[str, int]:
    """Parts that each stage did."""
    return {name: record.frames_done for name, record in records.items()}


def _command(*line: object) -> Result:
    return CliRunner().invoke(app, [str(part) for part in line])


def test_it_runs_on_threads_and_a_second_time_does_nothing(tmp_path: Path) -> None:
    job = _job(tmp_path)
    records = run_stages(job)
    assert _done(records) == {"squares": FRAMES, "added": 1}
    assert len(records["squares"].results) == FRAMES // 2
    assert job.output("added").read("sum").tolist() == [SUM]
    assert job.output("added").get_bytes("sum.txt") == f"{SUM} at {job.settings.output.crf}".encode()
    assert job.output("added").read_note("told") == {"sum": SUM}
    assert run_stages(job) == {}


def test_it_runs_on_a_stage_runner_stage_by_stage(tmp_path: Path) -> None:
    job = _job(tmp_path)
    with pytest.raises(InputError, match="nothing of squares yet"):
        check_only(job, ["added"])
    with open_runner(job.settings) as runner:
        StageRunner(job, runner, only=["squares"]).run_all()
    assert Ledger(job).done_frames("squares").all()
    assert not Ledger(job).is_finished()


def test_a_plan_says_what_it_will_do_and_why(tmp_path: Path) -> None:
    job = _job(tmp_path)
    assert _planned(job) == {"squares": [(FRAMES, "new")], "added": [(1, "new")]}
    run_stages(job)
    assert _planned(job) == {"squares": [], "added": []}
    assert _planned(job, ["squares"]) == {"squares": [(FRAMES, "forced")], "added": [(1, "forced")]}
    assert all(one.seconds is not None for one in plan(job)), "the store has a history now"

    crf = job.settings.output.crf
    later = _job(tmp_path, "output.crf=30")
    assert _planned(later) == {"squares": [], "added": [(1, f"output.crf {crf} -> 30")]}
    seeded = _job(tmp_path, "seed=5")
    changed = f"seed {job.settings.seed} -> 5"
    assert _planned(seeded) == {"squares": [(FRAMES, changed)], "added": [(1, "squares changed")]}

    job.output("squares").uncommit([2])
    assert _planned(job)["squares"] == [(1, "new")]
    job.output("squares").commit([2])
    job.output("squares").drop_array("picture")
    assert _planned(job)["squares"] == [(FRAMES, "its data is missing from the store")]


def test_a_higher_version_is_a_reason(finished: Job) -> None:
    raised = register(Pipeline("raised", "toy", (replace(SQUARES, version=2), ADDED), ends=("added",)))
    keys = make_stage_keys(raised, finished.inputs, FRAMES, finished.settings, {})
    job = finished.model_copy(update={"goal": "raised", "stage_keys": keys})
    assert _planned(job) == {
        "squares": [(FRAMES, "its code changed (version 1 -> 2)")],
        "added": [(1, "squares changed")],
    }


def test_its_plan_is_printed_with_its_titles(tmp_path: Path) -> None:
    console = Console(record=True, width=120)
    flows.display.views.show_plan(_job(tmp_path), console)
    said = console.export_text()
    assert SQUARES.title in said
    assert ADDED.title in said
    assert f"0-{FRAMES - 1}: new" in said


def test_status_knows_it(tmp_path: Path) -> None:
    job = _job(tmp_path)
    save_job(job)
    store = Store(job.store)
    store.check_format(write=True)
    (begun,) = update_states(store, read_states(store), job.settings)
    assert (begun.state, [(one.stage, one.done, one.total) for one in begun.stages]) == (
        "unfinished",
        [("squares", 0, FRAMES), ("added", 0, 1)],
    )
    run_stages(job)
    (kept,) = read_states(store)
    assert kept.state == look_up_state(job).state == "done"
    assert kept.goal == "toy"
    assert [(one.stage, one.done) for one in kept.stages] == [("squares", FRAMES), ("added", 1)]
    assert all(one.bytes > 0 and one.task_seconds > 0 for one in kept.stages)
    (read,) = read_jobs(store, "one", job.settings)
    assert read.id == job.id
    assert read.stage_keys == job.stage_keys


def test_the_command_status_shows_it(finished: Job) -> None:
    shown = _command("status", finished.store)
    assert shown.exit_code == 0, shown.output
    assert "one-two-three: done" in shown.output
    assert SQUARES.title in shown.output
    assert ADDED.title in shown.output
    (line,) = _command("status", finished.store, "--json").output.splitlines()
    assert {one["stage"]: one["done"] for one in json.loads(line)["stages"]} == {
        "squares": FRAMES,
        "added": 1,
    }
    run_stages(_job(Path(finished.store).parent, "seed=5"))
    shown = _command("status", finished.store)
    assert "2 clips: 2 done" in shown.output
    assert f"{FRAMES}/{FRAMES}" in shown.output


def _damage_chunk(output: Output, root: Path) -> None:
    (path,) = root.glob(f"{output.path}/square/c.2")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def _damage_whole_array(output: Output, root: Path) -> None:
    (path,) = root.glob(f"{output.path}/sum/c.0")
    path.unlink()


def _damage_file(output: Output, root: Path) -> None:
    (path,) = root.glob(f"{output.path}/files/sum.*")
    path.write_bytes(b"another")


def _damage_note(output: Output, root: Path) -> None:
    (root / output.path / "notes" / "told.json").unlink()


@pytest.mark.parametrize(
    ("stage", "damage", "kind", "lost"),
    [
        ("squares", _damage_chunk, "corrupt", {"squares": 1, "added": 0}),
        ("added", _damage_whole_array, "absent", {"squares": 0, "added": 1}),
        ("added", _damage_file, "corrupt", {"squares": 0, "added": 1}),
        ("added", _damage_note, "absent", {"squares": 0, "added": 1}),
    ],
    ids=["array of frames", "array", "file", "note"],
)
def test_what_is_damaged_is_found_and_made_again(
    tmp_path: Path, stage: str, damage: Callable[[Output, Path], None], kind: str, lost: dict[str, int]
) -> None:
    job = _job(tmp_path, "runner.pack=false")
    run_stages(job)
    unit = job.unit(stage)
    expected = {(name, job.stage_keys[name]): job.declared(name) for name in job.stages}
    assert verify_unit(unit, expected).findings == []
    whole = flows.display.views.content_digest(job)

    damage(job.output(stage), Path(job.store))
    report = verify_unit(unit, expected)
    assert kind in {found.kind for found in report.damaged}
    assert _command("verify", job.store).exit_code == 1
    assert repair_unit(unit, report)
    assert {name: int((~Ledger(job).done_frames(name)).sum()) for name in job.stages} == lost
    run_stages(job)
    assert verify_unit(unit, expected).findings == []
    assert flows.display.views.content_digest(job) == whole
    assert _command("verify", job.store).exit_code == 0


def test_the_command_verify_repairs_what_is_packed_too(finished: Job) -> None:
    (path,) = Path(finished.store).glob("*/*/squares.*/square/c/0")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = _command("verify", finished.store, "--repair")
    assert found.exit_code == 1
    assert "corrupt" in found.output
    assert int((~Ledger(finished).done_frames("squares")).sum()) == 1
    run_stages(finished)
    assert look_up_state(finished).state == "done"
    assert _command("verify", finished.store).exit_code == 0


def test_a_frame_that_fails_is_set_aside_and_taken_up_by_retry(tmp_path: Path) -> None:
    job = _job(tmp_path)
    (tmp_path / "fails").mkdir()
    (tmp_path / "fails" / "3").touch()
    with pytest.raises(StageError, match=r"squares stopped with 5 of 6 .*portrait retry"):
        run_stages(job)
    assert np.flatnonzero(Ledger(job).quarantined_frames("squares")).tolist() == [3]
    state = look_up_state(job)
    assert (state.state, [one.failed for one in state.stages]) == ("failed", [1, 0])
    assert [one.quarantined for one in plan(job)] == [1, 0]
    assert _command("status", job.store).exit_code == 1

    out, console = tmp_path / "out", Console(record=True, width=120)
    left = retry_jobs([job], ["squares"], ["poison"], "keep", out, job.settings, console)
    assert left == 0
    assert "one-two-three: squares frame 3 again" in console.export_text()
    assert job.output("added").read("sum").tolist() == [SUM]
    assert (out / job.label / "sum.txt").read_bytes() == job.output("added").get_bytes("sum.txt")


def test_the_command_retry_knows_its_stages(tmp_path: Path) -> None:
    job = _job(tmp_path)
    (tmp_path / "fails").mkdir()
    (tmp_path / "fails" / "0").touch()
    with pytest.raises(StageError):
        run_stages(job)
    sets = [part for change in PLAIN for part in ("--set", change)]
    unknown = _command("retry", job.store, "--stage", "cubes", *sets)
    assert unknown.exit_code == 2
    assert "squares" in unknown.output
    taken = _command("retry", job.store, "--stage", "squares", "--class", "poison", *sets)
    assert taken.exit_code == 0, taken.output
    assert look_up_state(job).state == "done"


def test_what_fails_as_a_whole_is_set_aside_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise FloatingPointError("there is no sum")

    job = _job(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Output, "write_whole", fails)
        with pytest.raises(StageError, match="there is no sum"):
            run_stages(job)
    assert quarantine_reason(job) == "added: FloatingPointError: there is no sum"
    assert retry_jobs([job], [], ["poison"], "keep", None, job.settings, Console(quiet=True)) == 0


def test_its_data_is_dropped_as_it_says_and_made_again_where_it_is_read(finished: Job) -> None:
    assert droppable_bytes(finished, "pictures").keys() == {"squares"}
    assert drop(finished, "pictures") > 0
    assert finished.output("squares").array_info("square") is None
    assert look_up_state(finished).state == "done"
    assert run_stages(finished) == {}
    assert drop(finished, "pictures") == 0
    verified = _command("verify", finished.store)
    assert verified.exit_code == 0, verified.output

    later = _job(Path(finished.store).parent, "output.crf=30")
    assert _planned(later)["squares"] == [(FRAMES, "dropped, and added reads it")]
    assert {n: record.frames_done for n, record in run_stages(later).items()} == {
        "squares": FRAMES,
        "added": 1,
    }


def test_the_command_clean_drops_it_and_what_no_job_names(finished: Job) -> None:
    cleaned = _command("clean", finished.store)
    assert cleaned.exit_code == 0, cleaned.output
    assert "(squares)" in cleaned.output
    store = finished.open_store()
    assert list(stale_outputs(store, [finished])) == []
    other = _job(Path(finished.store).parent, "seed=5")
    run_stages(other)
    assert {output.path for output, _ in stale_outputs(store, [other])} == {
        finished.output(stage).path for stage in finished.stages
    }


def test_forgetting_it_forgets_what_reads_it(finished: Job) -> None:
    assert mark_undone(finished, ["squares"]) == ["squares", "added"]
    assert _planned(finished) == {"squares": [(FRAMES, "new")], "added": [(1, "new")]}


def test_its_bars_have_its_titles_and_count_its_frames(tmp_path: Path) -> None:
    job = _job(tmp_path)
    with Progress(console=Console(quiet=True)) as progress:
        bars = StageProgress(job, progress)
        bars.refresh()
        assert [(bar.description, bar.completed, bar.total) for bar in progress.tasks] == [
            (SQUARES.title, 0, FRAMES),
            (ADDED.title, 0, 1),
        ]
        with open_runner(job.settings) as runner:
            StageRunner(job, runner, only=["squares"]).run_all()
        bars.refresh()
        assert [bar.completed for bar in progress.tasks] == [FRAMES, 0]
        run_stages(job)
        bars.refresh()
        assert all(bar.finished for bar in progress.tasks)


def test_its_frames_are_packed_when_it_is_finished(finished: Job) -> None:
    contents = finished.output("squares").contents()
    assert contents.packed == {"square", "picture"}
    assert not contents.chunks
    assert contents.done == frozenset(range(FRAMES))
    group = zarr.open_group(f"{finished.store}/{finished.output('squares').path}", mode="r")
    opened = group["square"]
    assert isinstance(opened, zarr.Array)
    assert np.asarray(opened[:]).tolist() == [i * i for i in range(FRAMES)]
    assert finished.output("squares").read("square", 2, 4).tolist() == [4, 9]


def test_a_stage_behind_all_others_is_one_line_of_a_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, StubSettings(size=32, generator_mb=0.01).model_dump_json())
    clip = stub_job(str(tmp_path), "clip", 4, _settings())
    keys = make_stage_keys(LONGER, clip.inputs, 4, clip.settings, clip.weights)
    assert {name: keys[name] for name in clip.stages} == clip.stage_keys
    job = clip.model_copy(update={"goal": "longer", "stage_keys": keys})
    functions = STUBS | {"brightness": functions_of("brightness")}
    with open_runner(job.settings) as runner:
        StageRunner(clip, runner, functions=STUBS.__getitem__).run_all()
        longer = StageRunner(job, runner, functions=functions.__getitem__)
        longer.run_all()
    assert _done(longer.records) == {"brightness": 4}
    means = job.output("render").read("frames").mean((1, 2, 3))
    np.testing.assert_allclose(job.output("brightness").read("brightness"), means, rtol=1e-5)
    assert TOY.dependents("squares") == ["added"]
    assert LONGER.dependents("inversion")[-1] == "brightness"
