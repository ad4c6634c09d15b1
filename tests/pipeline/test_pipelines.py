"""Pipelines: stages in an order in which they can run, found by name, and free of what runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portrait_core.pipeline import Array, File, Job, Note, Pipeline, Stage, all_pipelines, find_pipeline
from portrait_core.pipeline.retention import stale_outputs
from portrait_core.settings import Settings
from portrait_core.store import Store
from tasks.pipelines import CLIP, CLIP_2D, EDITED, FLOW_PIPELINE
from tasks.running import functions_of
from tests.simulation.stub import stub_job

FIRST = Stage("first", "first", 1, "reenactment", writes=(Array("a"),), per_frame=True)
SECOND = Stage("second", "second", 1, "reenactment", reads=("first",), writes=(File("b.txt"),))
THIRD = Stage("third", "third", 1, "reenactment", reads=("second",), writes=(Note("c"),))


def test_an_order_in_which_stages_cannot_run_is_refused() -> None:
    with pytest.raises(ValueError, match="pipeline x: second must come once, and after first"):
        Pipeline("x", "x", (SECOND, FIRST), ends=("second",))
    with pytest.raises(ValueError, match="first must come once"):
        Pipeline("x", "x", (FIRST, SECOND, FIRST), ends=("second",))


@pytest.mark.parametrize("ends", [(), ("fourth",)])
def test_a_pipeline_ends_with_stages_of_it(ends: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"its ends .* must be stages of it"):
        Pipeline("x", "x", (FIRST, SECOND), ends=ends)


def test_an_unknown_stage_is_named_with_those_there_are() -> None:
    made = Pipeline("x", "x", (FIRST, SECOND), ends=("second",))
    with pytest.raises(ValueError, match="there is no stage third; the stages are first, second"):
        made.stage("third")


def test_an_unknown_pipeline_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no pipeline 'film'; registered are clip, edit, flow"):
        find_pipeline("film")
    job = stub_job(str(tmp_path), "clip", 4, Settings()).model_copy(update={"goal": "film"})
    with pytest.raises(ValueError, match="film"):
        list(stale_outputs(Store(job.store), [job]))  # nothing may count as stale then


def test_the_programs_pipelines_are_registered() -> None:
    known = {"clip": CLIP, "clip_2d": CLIP_2D, "edit": EDITED, "flow": FLOW_PIPELINE}
    assert {name: find_pipeline(name) for name in known} == known
    assert known.keys() <= {pipeline.name for pipeline in all_pipelines()}


def test_readers_and_dependents_are_derived_from_what_stages_read() -> None:
    made = Pipeline("x", "x", (FIRST, SECOND, THIRD), ends=("third",))
    assert [made.reads(name) for name in made.names] == [(), ("first",), ("second",)]
    assert [made.readers(name) for name in made.names] == [("second",), ("third",), ()]
    assert made.dependents("first") == ["second", "third"]
    without = Pipeline("y", "y", (FIRST, THIRD), ends=("third",))
    assert without.reads("third") == ()  # a pipeline without what it reads elsewhere


@pytest.mark.parametrize(
    "pipeline", [CLIP, CLIP_2D, EDITED, FLOW_PIPELINE], ids=lambda pipeline: pipeline.name
)
def test_what_a_stage_waits_for_or_shows_it_reads(pipeline: Pipeline) -> None:
    everywhere = {stage.name for one in all_pipelines() for stage in one.stages}
    for stage in pipeline.stages:
        assert set(stage.reads) <= everywhere, stage.name
        assert {stage.needs_frame_of, stage.shows_gaps_of} - {None} <= set(stage.reads), stage.name
        assert stage.per_frame or not stage.parallel_over_frames, stage.name
    assert set(pipeline.names) == set(pipeline.ends).union(
        *(_before(pipeline, end) for end in pipeline.ends)
    ), "a stage that nothing reads"


def _before(pipeline: Pipeline, name: str) -> set[str]:
    return set(pipeline.reads(name)).union(*(_before(pipeline, one) for one in pipeline.reads(name)))


def test_the_last_stages_of_a_pipeline_are_kept_by_every_policy() -> None:
    for pipeline in (CLIP, CLIP_2D, EDITED, FLOW_PIPELINE):
        for end in pipeline.ends:
            assert pipeline.stage(end).drop_with is None


def test_the_same_stage_in_another_unit_is_the_same_declaration_elsewhere() -> None:
    here, there = CLIP.stage("inversion"), EDITED.stage("inversion")
    assert there == here.in_unit("inverted")
    assert (here.unit, there.unit) == ("reenactment", "inverted")
    assert there.declared(Settings()) == here.declared(Settings())


def test_stages_of_one_name_in_two_pipelines_are_done_by_their_own_functions() -> None:
    here, there = CLIP.stage("render"), CLIP_2D.stage("render")
    made = [[one.name for one in functions_of(stage.done_by)] for stage in (here, there)]
    assert made == [["render"], ["keep_source", "render_2d"]]
    assert CLIP_2D.stage("tuning") is CLIP.stage("tuning")
    assert "pose" not in CLIP_2D.names


def test_a_jobs_stages_are_asked_of_its_pipeline(tmp_path: Path) -> None:
    job: Job = stub_job(str(tmp_path), "clip", 7, Settings())
    assert job.stages == CLIP.names
    assert [job.total(name) for name in ("portrait", "landmarks", "fit", "render", "encode")] == [
        1,
        7,
        1,
        7,
        1,
    ]
    assert job.frame_input("render") == "inversion"
    assert job.frame_input("template") is None


def test_what_a_workers_task_imports_is_neither_prefect_nor_dask_nor_pytorch() -> None:
    """Every task of a Dask worker that has just started pays for these imports."""
    program = (
        "import sys; import tasks.running, tasks.pipelines, portrait_core.pipeline; "
        "print(*sorted({'prefect', 'torch', 'dask', 'distributed'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == []
