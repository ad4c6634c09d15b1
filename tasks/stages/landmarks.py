"""Stage ``landmarks``: where the faces of the driving video are."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import DecodeError
from portrait_core.media import read_frames
from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.classification import make_failure, should_quarantine
from portrait_core.pipeline.ledger import record_failures, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights
from portrait_core.store import Failure
from tasks.context import FrameArrays, landmarker, use_threads, video_file
from tasks.frames import Save, process_frames
from tasks.running import does

if TYPE_CHECKING:
    from portrait_core.tracking.landmarker import FaceLandmarker

LANDMARKS = Stage(
    name="landmarks",
    title="find landmarks",
    version=3,
    unit="video",
    inputs=("video",),
    settings=("tracking.min_face_score",),
    weights=(landmark_weights,),
    writes=(Array("landmarks"),),
    per_frame=True,
    parallel_over_frames=True,
    counts_frames=True,
)


@does(LANDMARKS)
def landmarks(job: Job, start: int, stop: int) -> StageResult:
    """Find the landmarks of frames ``[start, stop)``. A frame without a face is kept as NaN and recorded."""
    watch = Stopwatch("landmarks", start, stop)
    runs = unfinished_runs(job, "landmarks", start, stop)
    if not runs:
        return watch.result(0)
    model = landmarker(job, use_threads(job, alone=False))
    arrays = FrameArrays(job, "landmarks")

    def work(batch: FrameRange, pictures: NDArray[np.uint8]) -> Save:
        points = _detected(job, model, pictures, batch.start)
        return arrays.defer_write(batch.start, {"landmarks": points})

    size = job.settings.tracking.batch
    with closing(_Film(job, runs)) as film:
        frames = process_frames(job, "landmarks", runs, work, size, fetch=film.read, isolate=False)
    return watch.result(frames)


class _Film:
    """The driving video, decoded run by run; a run's batches are read one after the other."""

    def __init__(self, job: Job, runs: Sequence[FrameRange]) -> None:
        self._job, self._runs = job, runs
        self._frames: Generator[NDArray[np.uint8], None, None] | None = None

    def read(self, batch: FrameRange) -> NDArray[np.uint8]:
        """Read frames ``[n,H,W,3]``, and record the damaged ones at a run's end: they were delivered too."""
        run = next(run for run in self._runs if run.start <= batch.start < run.stop)
        if self._frames is None:
            self._frames = read_frames(video_file(self._job), batch.start, run.stop)
        pictures = np.stack(list(islice(self._frames, len(batch))))
        if batch.stop == run.stop:
            self._end(self._frames)
            self._frames = None
        return pictures

    def _end(self, frames: Iterator[NDArray[np.uint8]]) -> None:
        """Hear what was wrong with the frames: that comes after the last one."""
        try:
            next(frames, None)
        except DecodeError as error:
            job, why = self._job, "the frame is damaged in the file; it shows what could be decoded"
            damaged = [frame for frame in error.frames if frame < job.frames]
            key = job.stage_keys["landmarks"]
            rows = [Failure("landmarks", frame, "input", why, key=key) for frame in damaged]
            record_failures(job, "landmarks", rows)

    def close(self) -> None:
        """Stop decoding."""
        if self._frames is not None:
            self._frames.close()


def _detected(job: Job, model: FaceLandmarker, pictures: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    """Return landmarks ``[n,478,2]`` of frames from ``at`` on.

    They are NaN, with a row in the failure table, where there is no face or the models fail.
    """
    key = job.stage_keys["landmarks"]
    try:
        found = model.detect(pictures)
    except Exception as error:
        if not should_quarantine(error):
            raise
        if len(pictures) > 1:
            return np.concatenate([_detected(job, model, p[None], at + i) for i, p in enumerate(pictures)])
        record_failures(job, "landmarks", [make_failure("landmarks", at, error, key)])
        return no_landmarks(1)
    missing = [at + int(i) for i in np.flatnonzero(~found.ok)]
    why = "no face was found; the frame shows its neighbour"
    record_failures(job, "landmarks", [Failure("landmarks", i, "input", why, key=key) for i in missing])
    return found.points


def give_up(job: Job, frame: int) -> None:
    """Take a frame for one without a face: finding its landmarks kills its worker."""
    FrameArrays(job, "landmarks").keep(frame, {"landmarks": no_landmarks(1)})


def no_landmarks(frames: int) -> NDArray[np.float32]:
    """Return landmarks of frames without a face ``[n,478,2]``."""
    return np.full((frames, 478, 2), np.nan, np.float32)
