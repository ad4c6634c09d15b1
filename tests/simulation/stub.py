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
from pydantic import BaseModel

from portrait_core.media import read_image
from portrait_core.model_files.needs import LANDMARK_MODELS
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.history import frames_per_part
from portrait_core.pipeline.job import make_stage_keys
from portrait_core.pipeline.ledger import done_frames, find_output, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.runtime.package_files import sample_portrait
from portrait_core.settings import Settings
from tasks.context import FrameArrays
from tasks.fitting import StoredCheckpoint
from tasks.frames import Save, process_frames
from tasks.pipelines import CLIP
from tasks.running import StageFunction, stage_function
from tasks.stages.inversion import FIRST
from tasks.stages.tuning import TUNED

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
    """Of a stage's frame (or of the whole stage, where it is of one part); 0 for those not named."""
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
    portrait, video = portrait or name, video or name
    inputs = {"portrait": _digest(f"portrait {portrait}"), "video": _digest(f"video {video}")}
    names = [name.removesuffix(".onnx") for name in LANDMARK_MODELS]
    weights = {weight: _digest(weight) for weight in (*names, "person_recognition", "head", "generator")}
    return Job(
        store=store,
        label=name,
        portrait=f"{portrait}.png",
        video=f"{video}.mp4",
        frames=frames,
        frame_rate="30000/1001",
        has_audio=False,
        inputs=inputs,
        stage_keys=make_stage_keys(CLIP, inputs, frames, settings, weights),
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
    if name in ("landmarks", "faces"):
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


def _save(job: Job, stage: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """What a stage of one part writes."""
    output, declared = find_output(job, stage), job.declared(stage)
    output.write_whole(arrays)
    for name in declared.files:
        output.put_bytes(name, b"x")
    for name in declared.notes:
        output.write_note(name, {})
    output.commit()


def _work(job: Job, stage: str, start: int, stop: int) -> StageResult:
    watch = Stopwatch(stage, start, stop)
    runs, stub = unfinished_runs(job, stage, start, stop), stub_settings()
    arrays = FrameArrays(job, stage)

    def work(batch: FrameRange) -> Save:
        time.sleep(drawn_seconds(stub, job.label, stage, batch))
        made = {name: _value(name, stub) for name in job.declared(stage).arrays}
        count = len(batch) * frames_per_part(job, stage)
        rows = {name: np.broadcast_to(value, (count, *value.shape)) for name, value in made.items()}
        if job.stage(stage).per_frame:
            return arrays.defer_write(batch.start, rows)
        return partial(_save, job, stage, rows)

    batch = {"template": job.settings.template.batch, "landmarks": job.settings.tracking.batch}.get(stage, 1)
    return watch.result(process_frames(job, stage, runs, work, batch))


def _first(job: Job) -> StageResult:
    """The first frame's inversion, which commits no frame."""
    watch, output = Stopwatch("inversion", 0, 1), job.output("inversion")
    if unfinished_runs(job, "inversion", 0, job.frames) and output.get_bytes(FIRST) is None:
        time.sleep(drawn_seconds(stub_settings(), job.label, "first", FrameRange(0, 1)))
        output.put_bytes(FIRST, b"x")
    return watch.result(0)


def _tune(job: Job) -> StageResult:
    """The tuning, with its checkpoints."""
    watch, stub = Stopwatch("tuning", 0, 1), stub_settings()
    if done_frames(job, "tuning").all():
        return watch.result(0)
    output = job.output("tuning")
    checkpoint = StoredCheckpoint(output)
    state = os.urandom(int(3e6 * stub.generator_mb)) if stub.checkpoints else b""
    seconds = drawn_seconds(stub, job.label, "tuning", FrameRange(0, 1))
    for _ in range(max(1, stub.checkpoints)):
        time.sleep(seconds / max(1, stub.checkpoints))
        if stub.checkpoints:
            checkpoint.write(state)
    output.put_bytes(TUNED, os.urandom(int(1e6 * stub.generator_mb)))
    output.commit()
    checkpoint.clear()
    return watch.result(1)


def _ranged(stage: str) -> Callable[..., StageResult]:
    def run(job: Job, start: int, stop: int) -> StageResult:
        return _work(job, stage, start, stop)

    return run


def _whole(stage: str) -> Callable[..., StageResult]:
    def run(job: Job) -> StageResult:
        return _work(job, stage, 0, job.total(stage))

    return run


def _function(name: str, stage: str, function: Callable[..., StageResult]) -> StageFunction:
    """A stage's function that workers find by its name in this module."""
    function.__name__, function.__module__ = name, __name__
    made = globals()[name] = stage_function(stage)(function)
    return made


def _functions() -> dict[str, tuple[StageFunction, ...]]:
    made: dict[str, tuple[StageFunction, ...]] = {}
    for stage in CLIP.stages:
        function = _ranged(stage.name) if stage.parallel_over_frames else _whole(stage.name)
        chosen = _tune if stage.name == "tuning" else function
        made[stage.name] = (_function(f"stub_{stage.name}", stage.name, chosen),)
    return made | {"inversion": (_function("stub_first", "inversion", _first), *made["inversion"])}


STUBS = _functions()
"""What does every stage of a clip: ``STUBS.__getitem__`` stands in for ``tasks.running.functions_of``."""
