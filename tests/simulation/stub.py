"""Stages that sleep for as long as the real ones compute, and write what those write.

The real flow, runner and store run them; only the arithmetic is missing. Which sizes and seconds comes in the
environment (``PORTRAIT_STUB``, JSON of :class:`StubSettings`), so that Dask workers know it too.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from prefect import Task
from pydantic import BaseModel
from tasks.job import FANNED, FILES, FIRST, PER_FRAME, STAGES, TUNED, Job, Stage, make_stage_keys
from tasks.ranges import FrameRange

from portrait_core.classification import StageResult, Stopwatch, stage_task
from portrait_core.config import Settings
from portrait_core.media import read_image
from portrait_core.models.needs import LANDMARK_MODELS
from portrait_core.resources import sample_portrait
from tasks.context import FrameArrays, done, key_of, todo, unit_of, write_once
from tasks.fitting import StoredCheckpoint
from tasks.frames import Save, each

ENVIRONMENT = "PORTRAIT_STUB"
LANDMARKS, COEFFICIENTS = (478, 2), (100,)


class StubSettings(BaseModel):
    """What the stages pretend to be."""

    size: int = 512
    """Side of the pictures."""
    latent: tuple[int, int] = (14, 512)
    """Shape of a frame's ``ws``."""
    generator_mb: float = 124.0
    """Of the tuned generator; its checkpoint is three times as large (parameters and Adam's two moments)."""
    seconds: dict[str, float] = {}
    """Of a stage's frame (or of the whole stage, where it has no frames); 0 for those not named."""
    checkpoints: int = 0
    """Checkpoints that the tuning writes."""
    spread: float = 0.0
    """Of the seconds: the standard deviation of their logarithm, drawn by clip, stage and frame."""


def stub_settings() -> StubSettings:
    """From the environment."""
    return StubSettings.model_validate_json(os.environ.get(ENVIRONMENT, "{}"))


def stub_job(
    store: str, name: str, frames: int, settings: Settings, portrait: str = "", video: str = ""
) -> Job:
    """A job without inputs. ``portrait`` and ``video`` name them: jobs that name the same share its work."""
    digests = {"portrait": _digest(portrait or name), "video": _digest(video or name)}
    names = [name.removesuffix(".onnx") for name in LANDMARK_MODELS]
    weights = {weight: _digest(weight) for weight in (*names, "head", "generator")}
    return Job(
        store=store,
        portrait_path=f"{portrait or name}.png",
        video_path=f"{video or name}.mp4",
        portrait_unit=portrait or name,
        video_unit=video or name,
        reenactment_unit=f"{name}--{settings.profile}",
        frames=frames,
        frame_rate="30000/1001",
        has_audio=False,
        inputs=digests,
        stage_keys=make_stage_keys(*digests.values(), frames, settings, weights),
        weights=weights,
        settings=settings,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=8)
def _picture(size: int) -> NDArray[np.uint8]:
    import cv2

    image = read_image(sample_portrait())[:440, :440]
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def _value(name: str, stub: StubSettings) -> NDArray[np.generic]:
    """One frame of an array, of the real one's size and about its compressibility."""
    size = stub.size
    if name in ("template", "inversion", "frames", "render", "crop"):
        return _picture(size)
    if name in ("face_mask", "mouth_mask", "uncovered", "render_mask"):
        mask = np.zeros((size, size), np.uint8)
        mask[size // 4 : -size // 4, size // 4 : -size // 4] = 255
        return mask
    if name == "render_depth":
        return _picture(size)[..., 0].astype(np.float32) / 100
    if name == "latents":
        return np.random.default_rng(0).standard_normal(stub.latent, np.float32)
    if name == "landmarks":
        return np.zeros(LANDMARKS, np.float32)
    if name == "ok":
        return np.ones((), np.bool_)
    if name == "inversion_loss":
        return np.zeros(1, np.float32)
    return np.zeros(COEFFICIENTS, np.float32)


def drawn_seconds(stub: StubSettings, clip: str, stage: str, frames: FrameRange) -> float:
    """How long frames of a stage take: always the same for the same clip."""
    base = stub.seconds.get(stage, 0.0)
    if not base or not stub.spread:
        return base * len(frames)
    seed = zlib.crc32(f"{clip} {stage} {frames.start}".encode())
    return (
        base * len(frames) * float(np.random.default_rng(seed).lognormal(-(stub.spread**2) / 2, stub.spread))
    )


def _save(job: Job, stage: Stage, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """What a stage of one part writes."""
    unit, key = unit_of(job, stage), key_of(job, stage)
    with unit.overwriting(stage, [0], key):
        write_once(unit, key, arrays)
        for name in FILES.get(stage, ()):
            unit.put_bytes(name, b"x")


def _work(job: Job, stage: Stage, start: int, stop: int) -> StageResult:
    watch = Stopwatch(stage, start, stop)
    runs, stub = todo(job, stage, start, stop), stub_settings()
    arrays = FrameArrays(job, stage)

    def work(batch: FrameRange) -> Save:
        time.sleep(drawn_seconds(stub, job.reenactment_unit, stage, batch))
        made = {name: _value(name, stub) for name in job.arrays(stage)}
        rows = {name: np.broadcast_to(value, (len(batch), *value.shape)) for name, value in made.items()}
        return arrays.later(batch.start, rows) if stage in PER_FRAME else partial(_save, job, stage, rows)

    batch = {"template": job.settings.template.batch, "landmarks": job.settings.tracking.batch}.get(stage, 1)
    whole = stage in ("fit", "retarget")
    return watch.result(each(job, stage, runs, work, job.frames if whole else batch))


def _first(job: Job) -> StageResult:
    """The first frame's inversion, which commits no frame."""
    watch, unit = Stopwatch("inversion", 0, 1), unit_of(job, "inversion")
    if todo(job, "inversion", 0, job.frames) and unit.get_bytes(FIRST) is None:
        time.sleep(drawn_seconds(stub_settings(), job.reenactment_unit, "first", FrameRange(0, 1)))
        unit.put_bytes(FIRST, b"x")
    return watch.result(0)


def _tune(job: Job) -> StageResult:
    """The tuning, with its checkpoints."""
    watch, stub = Stopwatch("tuning", 0, 1), stub_settings()
    if done(job, "tuning").all():
        return watch.result(0)
    unit, key = unit_of(job, "tuning"), job.stage_keys["tuning"]
    checkpoint = StoredCheckpoint(unit, "tuning", key)
    state = os.urandom(int(3e6 * stub.generator_mb)) if stub.checkpoints else b""
    seconds = drawn_seconds(stub, job.reenactment_unit, "tuning", FrameRange(0, 1))
    for _ in range(max(1, stub.checkpoints)):
        time.sleep(seconds / max(1, stub.checkpoints))
        if stub.checkpoints:
            checkpoint.write(state)
    with unit.overwriting("tuning", [0], key):
        unit.put_bytes(TUNED, os.urandom(int(1e6 * stub.generator_mb)))
    checkpoint.clear()
    return watch.result(1)


def _ranged(stage: Stage) -> Callable[..., StageResult]:
    def run(job: Job, start: int, stop: int) -> StageResult:
        return _work(job, stage, start, stop)

    return run


def _whole(stage: Stage) -> Callable[..., StageResult]:
    def run(job: Job) -> StageResult:
        return _work(job, stage, 0, job.total(stage))

    return run


def _task(name: str, stage: Stage, function: Callable[..., StageResult]) -> Task[..., StageResult]:
    """A task that workers find by its name in this module."""
    function.__name__, function.__module__ = name, __name__
    made = globals()[name] = stage_task(stage)(function)
    return made


def _tasks() -> dict[Stage, tuple[Task[..., StageResult], ...]]:
    made: dict[Stage, tuple[Task[..., StageResult], ...]] = {}
    for stage in STAGES:
        function = _ranged(stage) if stage in FANNED else _whole(stage)
        made[stage] = (_task(f"stub_{stage}", stage, _tune if stage == "tuning" else function),)
    return made | {"inversion": (_task("stub_first", "inversion", _first), *made["inversion"])}


STUBS = _tasks()
"""Every stage's tasks, in the shape of ``flows.stages.TASKS``."""
