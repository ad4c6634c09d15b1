"""The pipeline of a 2D generator: expressions in its own crop, by the stages of a clip, without a pose."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flows.reenact import run_stages
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import Ledger
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import load_settings
from tasks.fitting import clip_data, own_crop
from tasks.ingest import ingest, ingest_2d
from tests import published_pickle
from tests.flows.conftest import JobMaker2d
from tests.portrait_core import tiny
from tests.reference.published import ROOT, needs

FRAMES = 3
SHARED = ("portrait", "landmarks", "person", "fit", "retarget", "template")
"""Stages that know nothing of the generator."""
CHAIN = ["inversion.init=mean", "inversion.steps=1", "inversion.mouth=render"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, job_2d: JobMaker2d) -> Job:
    """A finished clip."""
    job = job_2d(tmp_path_factory.mktemp("flat") / "store")
    records = run_stages(job)
    assert {stage: record.frames_done for stage, record in records.items()} == {
        stage: job.total(stage) for stage in job.stages
    }
    return job


@pytest.fixture
def again(made: Job, tmp_path: Path) -> Job:
    """A copy of the finished store, to be tampered with, and nothing in memory."""
    forget_models()
    shutil.copytree(made.store, tmp_path / "store")
    return made.model_copy(update={"store": str(tmp_path / "store")})


def _computed(job: Job) -> dict[str, int]:
    return {stage: record.frames_done for stage, record in run_stages(job).items() if record.frames_done}


def test_frames_and_the_portrait_are_in_the_generators_crop(made: Job) -> None:
    output = made.output("render")
    frames, source = output.read("frames"), output.read("source")
    assert (frames.shape, source.shape) == ((FRAMES, tiny.SIZE, tiny.SIZE, 3), (1, tiny.SIZE, tiny.SIZE, 3))
    assert frames.dtype == source.dtype == np.uint8
    crop = own_crop(made)
    assert crop is not None
    np.testing.assert_array_equal(source[0], crop.picture)
    assert np.ptp(frames.astype(int), axis=0).max() > 0, "an expression moves"
    faces = np.stack([clip_data(made).face(i)[0, 0].numpy() for i in range(FRAMES)]).max(0)
    moves, far = np.ptp(frames.astype(int), axis=0).max(-1), cv2.dilate(faces, np.ones((23, 23))) == 0
    assert far.any()
    assert (moves[far] == 0).all(), "what lies far from the face is the first frame's"
    assert (moves[faces == 1] > 0).mean() > 0.5


def test_a_second_run_does_nothing_and_a_lost_frame_is_made_alone(again: Job) -> None:
    output = again.output("render")
    before = output.read("frames")
    assert _computed(again) == {}
    output.uncommit([1])
    assert _computed(again) == {"render": 1}
    next((Path(again.store) / again.output("tuning").path / "files").glob("tuned_generator*")).unlink()
    output.uncommit()
    assert _computed(again) == {"tuning": 1, "render": FRAMES}
    np.testing.assert_array_equal(again.output("render").read("frames"), before)


def test_a_lost_portrait_in_the_crop_is_kept_again_and_no_frame_made(again: Job) -> None:
    output = again.output("render")
    before = output.read("source")
    (chunk,) = (Path(again.store) / output.path / "source").glob("c.*")
    chunk.unlink()
    assert not Ledger(again).is_finished()
    assert _computed(again) == {}
    assert Ledger(again).is_finished()
    np.testing.assert_array_equal(again.output("render").read("source"), before)


def test_no_setting_of_the_pose_changes_anything(job_2d: JobMaker2d, tmp_path: Path) -> None:
    poses = ("render.pose_transfer=none", "render.motion=camera", "render.travel=0", "render.max_yaw_deg=5")
    volume = ("tuning.depth_anchor=0", "tuning.novel_view=0", "tuning.background=0")
    plain = job_2d(tmp_path / "store")
    assert job_2d(tmp_path / "store", *poses, *volume).stage_keys == plain.stage_keys
    softer = job_2d(tmp_path / "store", "composite.feather_px=9").stage_keys
    assert {stage for stage in softer if softer[stage] != plain.stage_keys[stage]} == {"render"}


def test_what_knows_nothing_of_the_generator_is_shared_with_a_clip_that_turns(
    made: Job, portrait: Path, driver: Path, small: list[str]
) -> None:
    settings = load_settings("embedded", [*small, f"media.max_frames={FRAMES}"])
    clip = ingest(str(portrait), str(driver), made.store, settings)
    for stage in SHARED:
        assert (clip.unit_of(stage), clip.stage_keys[stage]) == (made.unit_of(stage), made.stage_keys[stage])
    for stage in ("inversion", "tuning", "render"):
        assert clip.stage_keys[stage] != made.stage_keys[stage]


def test_each_pipeline_refuses_the_other_ones_generator_in_words(
    job_2d: JobMaker2d, tiny_generator: Path, made: Job, portrait: Path, driver: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"tri-plane generator; the 2D baseline needs .*embedded_2d"):
        job_2d(tmp_path, f"generator.weights={tiny_generator}")
    with pytest.raises(ValueError, match="holds a 2D generator; reenactment needs a tri-plane"):
        ingest(str(portrait), str(driver), str(tmp_path), made.settings)


def test_a_published_2d_generator_starts_at_the_mean(job_2d: JobMaker2d, tmp_path: Path) -> None:
    published_pickle.write_stylegan2(tmp_path / "faces.pkl")
    weights = f"generator.weights={tmp_path / 'faces.pkl'}"
    with pytest.raises(ValueError, match=r"set inversion\.init=mean"):
        job_2d(tmp_path, weights)
    assert job_2d(tmp_path, weights, *CHAIN).goal == "clip_2d"


def test_edits_are_refused_in_words(job_2d: JobMaker2d, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"leave edit\.attributes empty"):
        job_2d(tmp_path, "edit.attributes=['age=+20']")


@pytest.mark.slow
@needs("stylegan2/generator.pkl")
def test_the_published_structure_makes_a_clip_in_ffhqs_crop(job_2d: JobMaker2d, tmp_path: Path) -> None:
    plain = ("render.detail=off", "render.motion=camera")  # templates are the face crop, as in the paper
    weights = f"generator.weights={ROOT / 'stylegan2/generator.pkl'}"
    job = job_2d(tmp_path / "store", weights, *CHAIN, *plain)
    run_stages(job)
    crop, frames = own_crop(job), job.output("render").read("frames")
    assert crop is not None
    assert frames.shape == (FRAMES, crop.size, crop.size, 3)
    np.testing.assert_array_equal(job.output("render").read("source")[0], crop.picture)
    target = clip_data(job).target(0).image.permute(1, 2, 0).numpy()
    differs = np.abs((target + 1) * 127.5 - crop.picture).mean(-1)
    face = clip_data(job).face(0)[0, 0].numpy()
    assert np.median(differs[face == 0]) < 4, "the template lies where the photograph has the face"
    assert ingest_2d(job.portrait, job.video, job.store, job.settings).stage_keys == job.stage_keys
