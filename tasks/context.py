"""What the stages share: their units in the store, loaded models, how a track is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import MissingChunk
from portrait_core.media import read_image
from portrait_core.memory import keep_freed_memory
from portrait_core.models.cache import cached
from portrait_core.models.needs import LANDMARK_MODELS, weight_file
from portrait_core.resources import data_file
from portrait_core.store import Store
from tasks.job import FILES, STAGES, TRACK_ARRAYS, Job, Stage
from tasks.ranges import FrameRange, missing_runs
from tasks.threads import cpu_threads

if TYPE_CHECKING:
    from portrait_core.faces.head import MorphableHead
    from portrait_core.store import Unit
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.landmarker import FaceLandmarker


def unit_of(job: Job, stage: Stage) -> Unit:
    """The unit that holds a stage's output."""
    return Store(job.store).unit(*job.unit_of(stage))


def done(job: Job, stage: Stage) -> NDArray[np.bool_]:
    """Which frames of a stage are finished under the job's key, with their data ``[total]``."""
    return unit_of(job, stage).done(stage, job.stage_keys[stage], job.total(stage), job.arrays(stage))


def distrust(job: Job, missing: MissingChunk) -> bool:
    """Take back the commits of frames whose data turned out to be absent or corrupt.

    Returns:
        Whether a stage was found that will make them again.
    """
    kind, _, rest = missing.array.partition("/")
    array = rest.rpartition("/")[2]
    for stage in STAGES:
        written = (*job.arrays(stage), *FILES.get(stage, ()))
        if job.unit_of(stage)[0] == kind and array in written:
            unit_of(job, stage).uncommit(stage, missing.frames)
            return True
    return False


def todo(job: Job, stage: Stage, start: int, stop: int) -> list[FrameRange]:
    """Runs of frames of ``[start, stop)`` that a stage has not finished."""
    return missing_runs(done(job, stage), FrameRange(start, stop))


def batches(runs: list[FrameRange], size: int) -> Iterator[FrameRange]:
    """Cut runs into pieces of at most ``size`` frames."""
    for a, b in runs:
        for begin in range(a, b, size):
            yield FrameRange(begin, min(begin + size, b))


def device_of(job: Job) -> str:
    """``cuda`` or ``cpu``, as the settings and the machine say."""
    if job.settings.device != "auto":
        return job.settings.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def use_threads(job: Job, alone: bool) -> int:
    """Fix PyTorch's threads in this thread: a stage of one task (``alone``) takes all workers' share. The
    process keeps the memory that it frees.

    Returns:
        The number of threads.
    """
    import torch

    settings = job.settings
    threads = cpu_threads(settings) if alone else settings.runner.threads_per_worker
    torch.set_num_threads(threads)
    keep_freed_memory()
    return threads


def landmarker(job: Job, threads: int) -> FaceLandmarker:
    """The process's landmark models."""
    from portrait_core.tracking.landmarker import FaceLandmarker

    folder = data_file(job.settings.tracking.models)
    digest = "".join(job.weights[name.removesuffix(".onnx")] for name in LANDMARK_MODELS)
    least = job.settings.tracking.min_face_score

    def build() -> FaceLandmarker:
        return FaceLandmarker.from_models(folder, threads, least)

    return cached("landmarker", f"{digest}-{least}", build, threads)


def head(job: Job) -> MorphableHead:
    """The process's embedded head."""
    from portrait_core.faces.head import MorphableHead

    path = weight_file(job.settings, "head")
    return cached("head", job.weights["head"], lambda: MorphableHead.load(path))


def read_portrait(job: Job) -> NDArray[np.uint8]:
    """The portrait ``[H,W,3]`` uint8, scaled down if it is larger than the settings allow."""
    image = read_image(job.portrait_path)
    scale = job.settings.media.portrait_max_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def write_once(unit: Unit, key: str, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Keep whole arrays, whose first axis begins at frame 0; nothing is committed yet."""
    for name, values in arrays.items():
        unit.ensure_array(name, values.shape, values.dtype, key)
        unit.write(name, 0, values)


def write_track(unit: Unit, track: FaceTrack, key: str) -> None:
    """Keep a track's arrays; nothing is committed yet."""
    arrays = {name: np.asarray(getattr(track, name)) for name in TRACK_ARRAYS}
    write_once(unit, key, arrays | {"shape": np.asarray(track.shape, np.float32)[None]})


def read_track(unit: Unit, frames: int) -> FaceTrack:
    """Read a track of so many frames."""
    from portrait_core.tracking.fit import FaceTrack

    values: dict[str, Any] = {name: unit.read(name, 0, frames) for name in TRACK_ARRAYS}
    return FaceTrack(shape=unit.read("shape", 0, 1)[0], **values)
