"""The methods of ``portrait_core.baselines``, built from a job's outputs and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from tasks.context import device_of, driving_frames, read_portrait, read_track
from tasks.pages import for_generator, page_of

if TYPE_CHECKING:
    from portrait_core.baselines.interface import Animator
    from portrait_core.baselines.pirenderer import PIRenderer
    from portrait_core.metrics.likeness import Square

Picture = NDArray[np.uint8]
_IN_FACE_CROP = ("still", "template")
"""Methods that draw the portrait's face crop."""


def animator(job: Job) -> Animator:
    """Return the process's animator of this clip, by the method that the settings name."""
    build = _BUILDERS[job.settings.baseline.method]
    # It reads the store and the video later on too: another store makes it another one.
    where = job.store, str(job.settings.runner.storage_options), device_of(job)
    return cached("animator", job.stage_keys["animate"], lambda: build(job), *where, alone=True)


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


def animator_source(job: Job) -> Picture:
    """Return the portrait in the crop of the method of :func:`animator` ``[S,S,3]``."""
    return crop_of(job) if job.settings.baseline.method in _IN_FACE_CROP else animator(job).source


def animator_square(job: Job) -> Square:
    """Return the square of the photograph that the method of :func:`animator` draws."""
    if job.settings.baseline.method in _IN_FACE_CROP:
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


def _pirenderer(job: Job) -> Animator:
    from portrait_core.baselines.crops import clip_square, cut, points_in_square
    from portrait_core.baselines.pirenderer_animator import PIRendererAnimator, PIRendererOptions
    from portrait_core.baselines.pirenderer_eyes import eye_part_from_file
    from portrait_core.baselines.pirenderer_files import load_pirenderer
    from portrait_core.baselines.pirenderer_windows import rows_from_pictures
    from portrait_core.pipeline.ranges import frames_shown
    from tasks.estimates import deep3d_encoder, standard_face

    settings, device = job.settings, device_of(job)
    points = job.output("portrait").read("landmarks")
    square = clip_square(points)
    source = cut(read_portrait(job), *square)
    own = rows_from_pictures(
        source[None], points_in_square(points, *square), deep3d_encoder(job), standard_face(job)
    )
    rows = job.output("read_deep3d").read("coefficients")
    first = settings.baseline.eyes == "first"
    options = PIRendererOptions(
        cross_identity=not settings.evaluation.truth,
        without_eyes=first,
        without_pose=settings.render.pose_transfer == "none",
        batch=settings.baseline.batch,
    )
    path = weight_file(settings, "pirenderer")

    def load() -> PIRenderer:
        return load_pirenderer(path).to(device)

    network = cached("pirenderer", job.weights["pirenderer"], load, device)
    eyes = eye_part_from_file(weight_file(settings, "bfm")) if first else None
    shown = rows[frames_shown(np.isfinite(rows).all(1))]
    return PIRendererAnimator(network, source, own, shown, options, eyes)


def _facevid2vid(job: Job) -> Animator:
    from portrait_core.baselines.crops import clip_square, cut
    from portrait_core.baselines.facevid2vid import FaceVid2VidAnimator
    from portrait_core.baselines.facevid2vid_checkpoint import FaceVid2VidNetworks, read_facevid2vid
    from portrait_core.pipeline.ranges import frames_shown
    from portrait_core.tracking.measure import seen

    own = clip_square(job.output("portrait").read("landmarks"))
    points = job.output("person").read("landmarks")
    square, shown = clip_square(points), frames_shown(seen(points))
    device, path = device_of(job), weight_file(job.settings, "facevid2vid")

    def driver(frame: int) -> Picture:
        i = int(shown[frame])  # a frame without a face is held from its neighbour
        return cut(next(iter(driving_frames(job, i, i + 1))), *square)

    def load() -> FaceVid2VidNetworks:
        return FaceVid2VidNetworks.from_weights(read_facevid2vid(path), device)

    networks = cached("facevid2vid", job.weights["facevid2vid"], load, device)
    # frame by frame, so that how frames are grouped into tasks changes no bit
    return FaceVid2VidAnimator(
        networks, cut(read_portrait(job), *own), driver, relative=job.settings.baseline.relative
    )


_BUILDERS: dict[str, Callable[[Job], Animator]] = {
    "still": _still,
    "template": _template,
    "pirenderer": _pirenderer,
    "facevid2vid": _facevid2vid,
}
