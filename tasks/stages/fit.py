"""Stage ``fit``: the head's motion through the driving video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import DecodeError, InputError
from portrait_core.media import read_frames
from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import todo
from portrait_core.pipeline.ranges import held_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import tracking_weights
from portrait_core.tracking.measure import seen
from tasks.context import TRACK, track_arrays, use_threads, video_file
from tasks.running import does
from tasks.trackers import tracker

if TYPE_CHECKING:
    from portrait_core.tracking.fit import FaceTrack

FIT = Stage(
    name="fit",
    title="fit head",
    version=2,
    unit="video",
    reads=("landmarks",),
    settings=("tracking",),
    weights=(tracking_weights,),
    writes=tuple(Array(name, per="clip") for name in TRACK),
)


@does(FIT, precision="fp32")
def fit(job: Job) -> StageResult:
    """Track the whole clip. Frames without a face take the track of their neighbour.

    Raises:
        InputError: when no frame has a face.
    """
    watch = Stopwatch("fit", 0, 1)
    if not todo(job, "fit", 0, 1):
        return watch.result(0)
    use_threads(job, alone=True)
    points = job.output("landmarks").read("landmarks")
    ok = seen(points)
    if not ok.any():
        raise InputError(
            f"no face was found in any of the {job.frames} frames of {job.video}; give a video in "
            "which one person's face is visible and at least 40 pixels wide"
        )
    track = _held(tracker(job).clip(points, ok, lambda: _all_frames(job)), ok)
    output = job.output("fit")
    output.write_whole(track_arrays(track))
    output.commit()
    return watch.result(1)


def _all_frames(job: Job) -> Iterator[NDArray[np.uint8]]:
    """The driving video's frames, damaged ones too: they were recorded when their landmarks were found."""
    with suppress(DecodeError):
        yield from read_frames(video_file(job), 0, job.frames)


def _held(track: FaceTrack, ok: NDArray[np.bool_]) -> FaceTrack:
    """The track with the rows of frames without a face taken from the neighbour they show."""
    source = held_frames(ok)
    rows = {f.name: getattr(track, f.name) for f in fields(track) if f.name not in ("shape", "ok")}
    return replace(track, **{name: values[source] for name, values in rows.items()}, ok=ok)
