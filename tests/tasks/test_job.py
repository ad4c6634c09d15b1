"""What decides a stage's key, and nothing else."""

from __future__ import annotations

import hashlib
from typing import get_args

import pytest

from portrait_core.config import Settings, load_settings
from portrait_core.models.needs import DECA_MODELS
from portrait_core.store import NUMERICS_VERSION
from tasks.job import ARRAYS, DECA_ARRAYS, PER_FRAME, STAGES, Job, Stage, make_stage_keys, unit_name

ALL = set(STAGES)
FROM_TUNING = {"tuning", "pose", "render", "encode", "measure"}
FROM_TEMPLATE = ALL - {"portrait", "landmarks", "fit", "retarget"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


WEIGHTS = {
    name: _digest(name)
    for name in ("face_detector_256", "face_landmarks_468", "iris_landmarks", "head", "generator")
}


def _keys(
    settings: Settings | None = None,
    portrait: str = "p",
    video: str = "v",
    frames: int = 9,
    **weights: str,
) -> dict[str, str]:
    used = WEIGHTS | {name: _digest(text) for name, text in weights.items()}
    return make_stage_keys(_digest(portrait), _digest(video), frames, settings or Settings(), used)


def _changed(other: dict[str, str]) -> set[str]:
    before = _keys()
    return {stage for stage in STAGES if other[stage] != before[stage]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("output.crf=30", {"encode"}),
        ("composite.feather_px=1", {"pose", "render", "encode", "measure"}),
        ("tuning.steps=9", FROM_TUNING),
        ("inversion.first_steps=9", FROM_TUNING | {"inversion"}),
        ("template.mouth_gain=0.5", FROM_TEMPLATE | {"retarget"}),
        ("tracking.shape_frames=9", ALL - {"landmarks"}),
        ("tracking.min_face_score=0.5", ALL),
        ("media.portrait_max_side=512", ALL - {"landmarks", "fit"}),
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
    ],
)
def test_how_the_work_is_done_changes_no_key(override: str) -> None:
    assert _changed(_keys(load_settings("embedded", [override]))) == set()


def test_inputs_and_weights_change_what_comes_from_them() -> None:
    assert _changed(_keys(portrait="q")) == ALL - {"landmarks", "fit"}
    assert _changed(_keys(video="w")) == ALL - {"portrait"}
    assert _changed(_keys(frames=8)) == ALL - {"portrait"}
    assert _changed(_keys(generator="other")) == FROM_TUNING | {"inversion"}
    assert _changed(_keys(iris_landmarks="other")) == ALL


def test_every_stage_with_a_marker_a_frame_says_which_arrays_it_writes() -> None:
    stages: set[Stage] = set(ARRAYS)
    assert stages >= PER_FRAME


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/My portrait (1).JPG", "My-portrait-1-01234567"),
        ("/a/émile.png", "mile-01234567"),
        ("/a/....png", "input-01234567"),
    ],
)
def test_unit_names_are_readable_and_safe(path: str, name: str) -> None:
    assert unit_name(path, "0123456789abcdef") == name


def test_every_stage_has_a_numerics_version_that_can_be_raised() -> None:
    assert set(STAGES) <= set(NUMERICS_VERSION) <= set(get_args(Stage))


PAPER = WEIGHTS | {name: _digest(name) for name in (*DECA_MODELS, "phi")}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deca", ALL - {"landmarks"}),
        ("uv_face_eye_mask", ALL - {"portrait", "landmarks", "fit"}),
        ("flame", ALL - {"landmarks"}),
        ("deep3d", ALL - {"landmarks"}),
        ("phi", FROM_TUNING | {"inversion"}),
        ("face_detector_256", ALL),
    ],
)
def test_the_papers_weights_are_in_the_keys(name: str, expected: set[str]) -> None:
    paper = load_settings("paper")
    before, after = (
        make_stage_keys(_digest("p"), _digest("v"), 9, paper, weights)
        for weights in (PAPER, PAPER | {name: _digest("other")})
    )
    assert {stage for stage in STAGES if before[stage] != after[stage]} == expected


def test_a_trackers_own_arrays_are_part_of_what_is_done() -> None:
    def arrays(settings: Settings, stage: Stage) -> set[str]:
        job = Job.model_construct(settings=settings)
        return set(job.arrays(stage))

    paper, driven = load_settings("paper"), load_settings("paper", ["template.eyes=driven"])
    assert arrays(paper, "portrait") - arrays(Settings(), "portrait") == set(DECA_ARRAYS["portrait"])
    assert arrays(driven, "retarget") - arrays(paper, "retarget") == {"eyes"}
    assert arrays(Settings(), "retarget") == {"expression", "jaw"}


def test_what_labels_pictures_is_in_the_keys_of_what_it_labels() -> None:
    exact = WEIGHTS | {"flow": _digest("flow")}
    for goal, stages in (("edit", {"edit"}), ("flow", {"sample", "flow"})):
        keys = [
            make_stage_keys(_digest("p"), "", 1, Settings(), exact | more, goal)  # type: ignore[arg-type]
            for more in ({}, {"age_gender": _digest("a")}, {"age_gender": _digest("b")})
        ]
        for one, other in ((0, 1), (1, 2)):
            assert {stage for stage in keys[0] if keys[one][stage] != keys[other][stage]} == stages
