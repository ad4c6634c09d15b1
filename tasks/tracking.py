"""Stages ``portrait``, ``landmarks`` and ``fit``: where the faces are and what they do."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.classification import failure, sets_aside
from portrait_core.errors import DecodeError, InputError
from portrait_core.media import read_frames
from portrait_core.store import Failure
from portrait_core.tracking.measure import seen
from tasks.context import (
    FrameArrays,
    landmarker,
    read_portrait,
    record_failures,
    shape_array,
    todo,
    track_arrays,
    unit_of,
    use_threads,
    write_frames,
    write_once,
)
from tasks.frames import Save, each
from tasks.job import Job
from tasks.policy import StageResult, Stopwatch, stage_task
from tasks.ranges import FrameRange, held_frames
from tasks.trackers import tracker

if TYPE_CHECKING:
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.landmarker import FaceLandmarker


@stage_task("portrait", precision="fp32")
def portrait(job: Job) -> StageResult:
    """Track the portrait: one face, its shape, expression, pose, and the crop that everything is made in.

    Raises:
        InputError: when there is no face in it, or more than one.
    """
    watch = Stopwatch("portrait", 0, 1)
    if not todo(job, "portrait", 0, 1):
        return watch.result(0)
    threads = use_threads(job, alone=False)
    image = read_portrait(job)
    found = landmarker(job, threads).detect(image[None])
    if not found.ok[0] and job.edited is not None:
        raise InputError(
            f"no human face was found in the portrait {job.portrait_path} after its edit "
            f"({', '.join(job.settings.edit.attributes)}): look at it with `portrait edit`, and ask for less "
            "(edit.strength)"
        )
    if not found.ok[0]:
        raise InputError(
            f"no human face was found in the portrait {job.portrait_path}; give a photograph in which one "
            "face looks toward the camera and is at least 60 pixels wide"
        )
    if found.faces[0] > 1:
        raise InputError(
            f"{found.faces[0]} faces were found in the portrait {job.portrait_path}; crop it so that only "
            "the person to animate is left"
        )
    tracked = tracker(job).portrait(image, found.points)
    unit, key = unit_of(job, "portrait"), job.stage_keys["portrait"]
    unit.uncommit("portrait", [0])
    write_once(unit, key, track_arrays(tracked.track) | shape_array(tracked.track))
    write_once(unit, key, {"landmarks": found.points, "crop": tracked.crop[None], **tracked.more})
    unit.commit("portrait", [0], key)
    return watch.result(1)


@stage_task("landmarks")
def landmarks(job: Job, start: int, stop: int) -> StageResult:
    """Find the landmarks of frames ``[start, stop)``. A frame without a face is kept as NaN and recorded."""
    watch = Stopwatch("landmarks", start, stop)
    runs = todo(job, "landmarks", start, stop)
    if not runs:
        return watch.result(0)
    model = landmarker(job, use_threads(job, alone=False))
    arrays = FrameArrays(job, "landmarks")

    def work(batch: FrameRange, pictures: NDArray[np.uint8]) -> Save:
        points = _detected(job, model, pictures, batch.start)
        return arrays.later(batch.start, {"landmarks": points})

    size = job.settings.tracking.batch
    with closing(_Film(job, runs)) as film:
        frames = each(job, "landmarks", runs, work, size, fetch=film.read, isolate=False)
    return watch.result(frames)


class _Film:
    """The driving video, decoded run by run; a run's batches are read one after the other."""

    def __init__(self, job: Job, runs: Sequence[FrameRange]) -> None:
        self._job, self._runs = job, runs
        self._frames: Generator[NDArray[np.uint8], None, None] | None = None

    def read(self, batch: FrameRange) -> NDArray[np.uint8]:
        """Frames ``[n,H,W,3]``. At a run's end the damaged ones are recorded: they were delivered as well."""
        run = next(run for run in self._runs if run.start <= batch.start < run.stop)
        if self._frames is None:
            self._frames = read_frames(self._job.video_path, batch.start, run.stop)
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
            unit_of(job, "landmarks").record_failures(rows)

    def close(self) -> None:
        """Stop decoding."""
        if self._frames is not None:
            self._frames.close()


def _detected(job: Job, model: FaceLandmarker, pictures: NDArray[np.uint8], at: int) -> NDArray[np.float32]:
    """Landmarks ``[n,478,2]`` of frames from ``at`` on; NaN, and a row in the failure table, where there is
    no face or the models fail."""
    key = job.stage_keys["landmarks"]
    try:
        found = model.detect(pictures)
    except Exception as error:
        if not sets_aside(error):
            raise
        if len(pictures) > 1:
            return np.concatenate([_detected(job, model, p[None], at + i) for i, p in enumerate(pictures)])
        record_failures(job, "landmarks", [failure("landmarks", at, error, key)])
        return no_landmarks(1)
    missing = [at + int(i) for i in np.flatnonzero(~found.ok)]
    why = "no face was found; the frame shows its neighbour"
    record_failures(job, "landmarks", [Failure("landmarks", i, "input", why, key=key) for i in missing])
    return found.points


def give_up(job: Job, frame: int) -> None:
    """Take a frame for one without a face: finding its landmarks kills its worker."""
    FrameArrays(job, "landmarks").keep(frame, {"landmarks": no_landmarks(1)})


def no_landmarks(frames: int) -> NDArray[np.float32]:
    """Landmarks of frames without a face ``[n,478,2]``."""
    return np.full((frames, 478, 2), np.nan, np.float32)


@stage_task("fit", precision="fp32")
def fit(job: Job) -> StageResult:
    """Track the whole clip. Frames without a face take the track of their neighbour.

    Raises:
        InputError: when no frame has a face.
    """
    watch = Stopwatch("fit", 0, job.frames)
    if not todo(job, "fit", 0, job.frames):
        return watch.result(0)
    use_threads(job, alone=True)
    unit, key = unit_of(job, "fit"), job.stage_keys["fit"]
    points = unit.read("landmarks", 0, job.frames)
    ok = seen(points)
    if not ok.any():
        raise InputError(
            f"no face was found in any of the {job.frames} frames of {job.video_path}; give a video in "
            "which one person's face is visible and at least 40 pixels wide"
        )
    track = _held(tracker(job).clip(points, ok, lambda: _all_frames(job)), ok)
    write_once(unit, key, shape_array(track))
    return watch.result(write_frames(job, "fit", track_arrays(track)))


def _all_frames(job: Job) -> Iterator[NDArray[np.uint8]]:
    """The driving video's frames, damaged ones too: they were recorded when their landmarks were found."""
    with suppress(DecodeError):
        yield from read_frames(job.video_path, 0, job.frames)


def _held(track: FaceTrack, ok: NDArray[np.bool_]) -> FaceTrack:
    """The track with the rows of frames without a face taken from the neighbour they show."""
    source = held_frames(ok)
    rows = {f.name: getattr(track, f.name) for f in fields(track) if f.name not in ("shape", "ok")}
    return replace(track, **{name: values[source] for name, values in rows.items()}, ok=ok)
