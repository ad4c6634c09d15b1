"""What decides a stage's key, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import pytest

from portrait_core.pipeline import Array, Job, Pipeline, all_pipelines
from portrait_core.pipeline.job import make_stage_keys, stem, unit_name
from portrait_core.settings import Settings, load_settings
from portrait_core.store import KINDS, recipe_key
from portrait_core.template.registry import FACE_MODELS
from portrait_core.tracking.array_names import DECA_CODE, MOUTH
from tasks.pipelines import CLIP, EDITED, FLOW_PIPELINE
from tasks.running import functions_of

ALL = set(CLIP.names)
FROM_TUNING = {"tuning", "pose", "render", "encode", "measure"}
FROM_TEMPLATE = ALL - {"portrait", "layers", "landmarks", "person", "fit", "retarget"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


WEIGHTS = {
    name: _digest(name)
    for name in ("face_detector_256", "face_landmarks_468", "iris_landmarks", "head", "generator")
}


def _inputs(portrait: str = "p", video: str = "v") -> dict[str, str]:
    return {"portrait": _digest(portrait), "video": _digest(video)}


def _keys(
    settings: Settings | None = None,
    portrait: str = "p",
    video: str = "v",
    frames: int = 9,
    **weights: str,
) -> dict[str, str]:
    used = WEIGHTS | {name: _digest(text) for name, text in weights.items()}
    return make_stage_keys(CLIP, _inputs(portrait, video), frames, settings or Settings(), used)


def _changed(other: dict[str, str]) -> set[str]:
    return _different(_keys(), other)


def _different(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    assert one.keys() == other.keys()
    return {stage for stage in one if one[stage] != other[stage]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("output.crf=30", {"encode"}),
        ("composite.feather_px=1", {"pose", "render", "encode", "measure"}),
        ("tuning.steps=9", FROM_TUNING),
        ("inversion.first_steps=9", FROM_TUNING | {"inversion"}),
        ("template.mouth_gain=0.5", FROM_TEMPLATE | {"retarget"}),
        ("tracking.shape_frames=9", ALL - {"landmarks", "person"}),
        ("tracking.min_face_score=0.5", ALL),
        ("tracking.looks=1", ALL),
        ("media.portrait_max_side=512", ALL - {"landmarks", "person", "fit"}),
        ("generator.precision=bf16", FROM_TUNING | {"inversion"}),
        ("seed=5", FROM_TUNING | {"inversion"}),
    ],
)
def test_a_setting_changes_the_stages_that_read_it_and_those_after(override: str, expected: set[str]) -> None:
    assert _changed(_keys(load_settings("embedded", [override]))) == expected


@pytest.mark.parametrize(
    "override",
    [
        "runner.workers=7",
        "runner.kind=local_cluster",
        "tracking.batch=1",
        "runner.checkpoint_s=5",
        "runner.compile=true",
        "runner.pack=false",
    ],
)
def test_how_the_work_is_done_changes_no_key(override: str) -> None:
    assert _changed(_keys(load_settings("embedded", [override]))) == set()


def test_inputs_and_weights_change_what_comes_from_them() -> None:
    assert _changed(_keys(portrait="q")) == ALL - {"landmarks", "person", "fit"}
    assert _changed(_keys(video="w")) == ALL - {"portrait", "layers"}
    assert _changed(_keys(frames=8)) == ALL - {"portrait", "layers"}
    assert _changed(_keys(generator="other")) == FROM_TUNING | {"inversion"}
    assert _changed(_keys(iris_landmarks="other")) == ALL


@pytest.mark.parametrize("pipeline", all_pipelines(), ids=lambda pipeline: pipeline.name)
def test_every_stage_says_what_it_writes(pipeline: Pipeline) -> None:
    for stage in pipeline.stages:
        assert stage.writes, stage.name
        assert stage.unit in KINDS
        for item in stage.writes:
            if isinstance(item, Array) and item.per == "frame":
                assert stage.per_frame, (stage.name, item.name)
            elif isinstance(item, Array) and stage.per_frame:  # one function for it, another for frames
                assert len(functions_of(stage.done_by)) > 1, (stage.name, item.name)
        names = [item.name for item in stage.writes]
        assert len(names) == len(set(names)), stage.name


@pytest.mark.parametrize("pipeline", all_pipelines(), ids=lambda pipeline: pipeline.name)
def test_every_stage_has_a_version_that_can_be_raised(pipeline: Pipeline) -> None:
    inputs, weights = {**_inputs(), "labels": _digest("l")}, WEIGHTS | {"flow": _digest("flow")}
    before = make_stage_keys(pipeline, inputs, 9, Settings(), weights)
    for stage in pipeline.stages:
        raised = [replace(s, version=s.version + 1) if s is stage else s for s in pipeline.stages]
        after = make_stage_keys(
            Pipeline("raised", "x", tuple(raised), pipeline.ends), inputs, 9, Settings(), weights
        )
        assert _different(before, after) == {stage.name, *pipeline.dependents(stage.name)}


def test_units_are_named_by_content_and_not_by_files() -> None:
    inputs, keys = _inputs(), _keys()
    names = {kind: unit_name(kind, inputs, keys, WEIGHTS) for kind in ("portrait", "video", "reenactment")}
    assert names["portrait"] == _digest("p")[:16]
    assert names["video"] == _digest("v")[:16]
    assert names["reenactment"] == recipe_key(inputs)
    job = Job(
        store="s", frames=9, inputs=inputs, stage_keys=keys, weights=WEIGHTS, settings=Settings(), label="one"
    )
    moved = job.model_copy(update={"label": "other", "portrait": "/else/where.png", "store": "t"})
    assert moved.id == job.id
    assert [moved.unit_of(stage) for stage in job.stages] == [job.unit_of(stage) for stage in job.stages]
    assert {job.unit_of(stage)[0] for stage in job.stages} == set(names)


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/a/b/My portrait (1).JPG", "My portrait (1)"),
        ("https://host/a/émile.png?token=secret", "émile"),
        ("s3://bucket/folder/", "folder"),
        ("", "input"),
    ],
)
def test_labels_are_the_names_of_files(place: str, name: str) -> None:
    assert stem(place) == name


PAPER = WEIGHTS | {name: _digest(name) for name in (*FACE_MODELS["deca"].files, "phi")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deca", ALL - {"landmarks", "person"}),
        ("uv_face_eye_mask", ALL - {"portrait", "landmarks", "person", "fit"}),
        ("flame", ALL - {"landmarks", "person"}),
        ("deep3d", ALL - {"landmarks", "person"}),
        ("phi", FROM_TUNING | {"inversion"}),
        ("face_detector_256", ALL),
    ],
)
def test_the_papers_weights_are_in_the_keys(name: str, expected: set[str]) -> None:
    paper = load_settings("paper")
    before, after = (
        make_stage_keys(CLIP, _inputs(), 9, paper, weights)
        for weights in (PAPER, PAPER | {name: _digest("other")})
    )
    assert _different(before, after) == expected


def test_a_trackers_own_arrays_are_part_of_what_is_done() -> None:
    def arrays(settings: Settings, stage: str) -> set[str]:
        return set(CLIP.stage(stage).declared(settings).arrays)

    paper, driven = load_settings("paper"), load_settings("paper", ["template.eyes=driven"])
    assert arrays(paper, "portrait") - arrays(Settings(), "portrait") == set(DECA_CODE)
    assert arrays(driven, "retarget") - arrays(paper, "retarget") == {"eyes"}
    assert arrays(driven, "fit") == arrays(Settings(), "fit") - set(MOUTH)
    lips = load_settings("embedded", ["template.mouth_inside=lips"])
    assert arrays(Settings(), "retarget") == {"expression", "jaw", *MOUTH}
    assert arrays(lips, "retarget") == {"expression", "jaw"}


def test_what_labels_pictures_is_in_the_keys_of_what_it_labels() -> None:
    exact = WEIGHTS | {"flow": _digest("flow")}
    for pipeline, stages in ((EDITED, {"edit"}), (FLOW_PIPELINE, {"sample", "flow"})):
        keys = [
            make_stage_keys(pipeline, _inputs(), 1, Settings(), exact | more)
            for more in ({}, {"age_gender": _digest("a")}, {"age_gender": _digest("b")})
        ]
        assert _different(keys[0], keys[1]) == stages
        assert _different(keys[1], keys[2]) == stages


def test_what_recognises_a_person_is_in_the_keys_of_the_edit_it_measures() -> None:
    exact = WEIGHTS | {"flow": _digest("flow")}
    one, other = (
        make_stage_keys(EDITED, _inputs(), 1, Settings(), exact | {"face_recognition": _digest(name)})
        for name in "ab"
    )
    assert _different(one, other) == {"edit"}


def test_what_an_edit_shares_with_others_has_keys_that_know_nothing_of_the_edit() -> None:
    exact = WEIGHTS | {"flow": _digest("flow")}
    one, other = (
        make_stage_keys(
            EDITED, _inputs(), 1, load_settings("embedded", [f"edit.attributes=[{asked!r}]"]), exact
        )
        for asked in ("age=+20", "beard=0.9")
    )
    assert _different(one, other) == {"edit"}
