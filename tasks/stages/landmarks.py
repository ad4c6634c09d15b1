"""Stage ``landmarks``: the faces of every frame of the driving video."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import DecodeError
from portrait_core.media import read_frames
from portrait_core.pipeline import Array, FrameRange, Job, Stage
from portrait_core.pipeline.classification import make_failure, should_quarantine
from portrait_core.pipeline.ledger import record_failures, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, recognition_weights
from portrait_core.store import Failure
from portrait_core.tracking.trust import THUMBNAIL
from tasks.context import FrameArrays, use_threads, video_file
from tasks.faces import FaceReader, FrameFaces, no_faces
from tasks.frames import Save, process_frames
from tasks.running import does

LANDMARKS = Stage(
    name="landmarks",
    title="find faces",
    version=6,
    unit="video",
    inputs=("video", "first_frame"),
    settings=("tracking.min_face_score", "tracking.looks"),
    weights=(landmark_weights, recognition_weights),
    writes=(Array("faces"), Array("vectors"), Array("animal"), Array("thumbnail")),
    per_frame=True,
    parallel_over_frames=True,
    counts_frames=True,
)

_BLACK = np.zeros((1, THUMBNAIL, THUMBNAIL, 3), np.uint8)


@does(LANDMARKS, precision="fp32")
def landmarks(job: Job, start: int, stop: int) -> StageResult:
    """Read the faces of frames ``[start, stop)``. A frame without a face is kept as NaN and recorded."""
    watch = Stopwatch("landmarks", start, stop)
    runs = unfinished_runs(job, "landmarks", start, stop)
    if not runs:
        return watch.result(0)
    reader = FaceReader(job, use_threads(job, alone=False))
    arrays = FrameArrays(job, "landmarks")

    def work(batch: FrameRange, pictures: NDArray[np.uint8]) -> Save:
        found = _read(job, reader, pictures, batch.start)
        return arrays.defer_write(batch.start, found.arrays() | {"thumbnail": _thumbnails(pictures)})

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
            first = self._job.first_frame
            self._frames = read_frames(video_file(self._job), first + batch.start, first + run.stop)
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
            damaged = [frame - job.first_frame for frame in error.frames]
            damaged = [frame for frame in damaged if 0 <= frame < job.frames]
            key = job.stage_keys["landmarks"]
            rows = [Failure("landmarks", frame, "input", why, key=key) for frame in damaged]
            record_failures(job, "landmarks", rows)

    def close(self) -> None:
        """Stop decoding."""
        if self._frames is not None:
            self._frames.close()


def _read(job: Job, reader: FaceReader, pictures: NDArray[np.uint8], at: int) -> FrameFaces:
    """Return the faces of frames from ``at`` on.

    They are NaN, with a row in the failure table, where there is no face or the models fail.
    """
    key = job.stage_keys["landmarks"]
    try:
        found = reader.read(pictures, at)
    except Exception as error:
        if not should_quarantine(error):
            raise
        if len(pictures) > 1:
            return FrameFaces.joined([_read(job, reader, p[None], at + i) for i, p in enumerate(pictures)])
        record_failures(job, "landmarks", [make_failure("landmarks", at, error, key)])
        return no_faces(1)
    missing = [at + int(i) for i in np.flatnonzero(~found.seen())]
    why = "no face was found; the frame shows its neighbour"
    record_failures(job, "landmarks", [Failure("landmarks", i, "input", why, key=key) for i in missing])
    return found


def _thumbnails(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return small copies of frames ``[n,16,16,3]``, in which scene cuts are found."""
    side = (THUMBNAIL, THUMBNAIL)
    return np.stack(
        [np.asarray(cv2.resize(p, side, interpolation=cv2.INTER_AREA), np.uint8) for p in pictures]
    )


def give_up(job: Job, frame: int) -> None:
    """Take a frame for one without a face: finding its landmarks kills its worker.

    Its small copy is that of the frame before it, so that no scene seems to begin there.
    """
    output = job.output("landmarks")
    kept = [i for i in output.marked() if i < frame][-1:]
    small = output.read("thumbnail", kept[0], kept[0] + 1) if kept else _thumbnails(_BLACK)
    FrameArrays(job, "landmarks").keep(frame, no_faces(1).arrays() | {"thumbnail": small})
