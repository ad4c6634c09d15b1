"""The methods of ``portrait_core.baselines``, built from a job's outputs and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from tasks.context import device_of, read_track
from tasks.pages import for_generator, page_of

if TYPE_CHECKING:
    from portrait_core.baselines.interface import Animator
    from portrait_core.metrics.likeness import Square

Picture = NDArray[np.uint8]


def animator(job: Job) -> Animator:
    """Return the process's animator of this clip, by the method that the settings name."""
    build = _BUILDERS[job.settings.baseline.method]
    return cached("animator", job.stage_keys["animate"], lambda: build(job), device_of(job), alone=True)


def face_square(job: Job) -> Square:
    """Return the square of the portrait's face crop, in pixels of the photograph."""
    from portrait_core.metrics.likeness import Square

    track = read_track(job.output("portrait"))
    x, y = (float(value) for value in track.crop_center_px[0])
    return Square((x, y), float(track.crop_side_px[0]), job.settings.template.size)


def crop_of(job: Job) -> Picture:
    """Read the portrait's face crop ``[S,S,3]``."""
    crop: Picture = job.output("portrait").read("crop")[0]
    return crop


def animator_square(job: Job) -> Square:
    """Return the square of the photograph that the method of :func:`animator` draws."""
    if job.settings.baseline.method in ("still", "template"):
        return face_square(job)
    from portrait_core.baselines.crops import SIZE, clip_square

    from portrait_core.metrics.likeness import Square

    center, side = clip_square(job.output("portrait").read("landmarks"))
    return Square((float(center[0]), float(center[1])), side, SIZE)


def _still(job: Job) -> Animator:
    from portrait_core.baselines.references import ReadFrames

    return ReadFrames.still(crop_of(job))


def _template(job: Job) -> Animator:
    from portrait_core.baselines.references import ReadFrames

    page, size, output = page_of(job), job.settings.template.size, job.output("template")

    def read(frame: int) -> Picture:
        return for_generator(page, size, output.read("template", frame, frame + 1)[0])

    return ReadFrames(crop_of(job), read, "the pasted template")


_BUILDERS: dict[str, Callable[[Job], Animator]] = {"still": _still, "template": _template}
