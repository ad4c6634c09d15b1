"""Trackers, moves and templates of a job: what they take is read from its outputs, and what they load is the
process's. The numerics are in ``portrait_core.tracking`` and ``portrait_core.template``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.model_files.needs import DECA_MODELS, weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import cached
from portrait_core.tracking.choice import DECA_CODE, EYES, by_deca, driven_eyes
from tasks.context import device_of, head, look_key, read_portrait, read_track
from tasks.pages import page_of, sheet

if TYPE_CHECKING:
    import torch

    from portrait_core.inversion.clip_heads import ClipHead
    from portrait_core.rendering.page import Page
    from portrait_core.template.driven_eyes import EyePicture
    from portrait_core.template.flame_template import FlameSource, FlameTemplateRenderer
    from portrait_core.template.moves import Moves
    from portrait_core.template.moving import MovingPortrait
    from portrait_core.template.template import TemplateRenderer
    from portrait_core.tracking.deca_tracker import MarkedFlame
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.paper_tracker import PaperTracker
    from portrait_core.tracking.same_face import Match
    from portrait_core.tracking.trackers import Tracker


def tracker(job: Job) -> Tracker:
    """Make the tracker that the job's settings choose."""
    if by_deca(job.settings):
        from portrait_core.tracking.deca_tracker import DecaTracker

        return DecaTracker(_networks(job), _flame(job).error())
    from portrait_core.tracking.embedded_tracker import EmbeddedTracker

    return EmbeddedTracker(head(job), job.settings.tracking)


def retargeted(job: Job) -> Moves:
    """Make what the portrait shall do in every frame, of the tracks of portrait and driver."""
    from portrait_core.template.driven_eyes import eyes_of_driver
    from portrait_core.template.moves import embedded_moves, flame_moves

    settings = job.settings.template
    source, driver = read_track(job.output("portrait")), read_track(job.output("fit"))
    if not by_deca(job.settings):
        match = own_frame(job, driver)
        return embedded_moves(head(job), source, driver, settings, None if match is None else match.frame)
    moves = flame_moves(source, driver, settings)
    if driven_eyes(job.settings):
        marks, own = (job.output(stage).read("landmarks") for stage in ("landmarks", "portrait"))
        moves[EYES] = eyes_of_driver(head(job), marks, own, settings, job.settings.tracking)
    return moves


def own_frame(job: Job, driver: FaceTrack) -> Match | None:
    """Find the driver's frame that shows the portrait's own face in its own pose."""
    from portrait_core.tracking.same_face import frame_of_portrait

    own, points = (job.output(stage).read("landmarks") for stage in ("portrait", "landmarks"))
    return frame_of_portrait(own[0], points, driver.ok)


def read_moves(job: Job, start: int, stop: int) -> Moves:
    """Read what the stage ``retarget`` made of frames ``[start, stop)``. An edit has no such stage: the
    portrait does what it does itself.
    """
    if job.goal == "edit":
        from portrait_core.template.moves import own_moves

        return own_moves(read_track(job.output("portrait")))
    more = (EYES,) if driven_eyes(job.settings) else ()
    return job.output("retarget").read_together(("expression", "jaw", *more), start, stop)


def moving_portrait(job: Job) -> MovingPortrait:
    """Give the portrait that the templates are drawn of."""
    from portrait_core.template.moving import EmbeddedPortrait, FlamePortrait

    if by_deca(job.settings):
        eyes = _eye_picture(job) if driven_eyes(job.settings) else None
        return FlamePortrait(_flame_renderer(job), eyes)
    return EmbeddedPortrait(_embedded_renderer(job))


def clip_head(job: Job, moves: Moves, device: torch.device) -> ClipHead:
    """Give the portrait's head that moves so in every frame; the embedded one's meshes are on ``device``."""
    from portrait_core.inversion.clip_heads import EmbeddedClipHead, FlameClipHead

    codes = moves["expression"], moves["jaw"]
    if by_deca(job.settings):
        return FlameClipHead(_flame_renderer(job), *codes)
    track, size = read_track(job.output("portrait")), job.settings.template.size
    return EmbeddedClipHead(head(job, device), track.shape, *codes, track.cameras, size)


def portrait_landmarks(job: Job) -> NDArray[np.float32]:
    """Read the portrait's landmarks, in pixels of its crop ``[478,2]``."""
    from portrait_core.tracking.crop import points_in_crop

    names = ("landmarks", "crop_center_px", "crop_side_px")
    rows = job.output("portrait").read_together(names)
    points, center, side = (rows[name][0] for name in names)
    return points_in_crop(points, center, side, job.settings.template.size)


def _embedded_renderer(job: Job) -> TemplateRenderer:
    """Give the process's renderer of this portrait."""
    from portrait_core.template.moving import embedded_renderer

    def build() -> TemplateRenderer:
        output = job.output("portrait")
        track, settings = read_track(output), job.settings.template
        page = page_of(job, track)
        if page is None:
            crop, marks, camera = output.read("crop")[0], portrait_landmarks(job), track.cameras[0]
        else:
            crop, marks, camera = _window(job, page, track)
        return embedded_renderer(head(job), track, crop, marks, camera, settings)

    return cached("template", look_key(job), build, alone=True)


def _window(
    job: Job, page: Page, track: FaceTrack
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.floating]]:
    """Give the square of the page that templates are drawn in, with landmarks and the camera that sees it. A
    window that is smaller than the generator's pictures is enlarged, so that masks are as fine as those.
    """
    import cv2
    import torch

    crop = np.asarray(page.window.cut(sheet(job, page)), np.uint8)
    points = page.points(job.output("portrait").read("landmarks")[0], page.window)
    camera = page.camera(torch.from_numpy(track.cameras), page.window)[0].numpy()
    times = -(-job.settings.template.size // page.window.side)
    if times > 1:
        crop = np.asarray(cv2.resize(crop, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC), np.uint8)
    return crop, points * times, camera


def _flame_renderer(job: Job) -> FlameTemplateRenderer:
    """Give the process's renderer of this portrait."""
    from portrait_core.template.moving import flame_renderer

    def build() -> FlameTemplateRenderer:
        layout, region = (weight_file(job.settings, name) for name in ("head_template", "uv_face_eye_mask"))
        return flame_renderer(_flame(job).head, layout, region, _source(job), job.settings.template)

    return cached("template", look_key(job), build, alone=True)


def _eye_picture(job: Job) -> EyePicture:
    """Give the process's portrait that takes other eyes."""
    from portrait_core.template.driven_eyes import EyePicture

    settings = job.settings

    def build() -> EyePicture:
        source, marks = _source(job), job.output("portrait").read("landmarks")
        placed = source.portrait, source.placement, marks
        return EyePicture.build(head(job), *placed, settings.tracking, settings.template.supersample)

    return cached("eyes", look_key(job), build, alone=True)


def _source(job: Job) -> FlameSource:
    from portrait_core.template.moving import flame_source

    output = job.output("portrait")
    codes = (output.read(name) for name in DECA_CODE)
    return flame_source(read_portrait(job), output.read("crop")[0], *codes)


def _networks(job: Job) -> PaperTracker:
    """Give the process's encoders."""
    from portrait_core.tracking.deca_tracker import load_networks

    device, batch = device_of(job), job.settings.tracking.batch

    def load() -> PaperTracker:
        files = {name: weight_file(job.settings, name) for name in ("deca", "deep3d")}
        standard = weight_file(job.settings, "deep3d_landmarks")
        return load_networks(**files, landmarks=standard, device=device, batch=batch)

    return cached("encoders", _digests(job), load, device, batch)


def _flame(job: Job) -> MarkedFlame:
    """Give the process's FLAME and the landmarks on it."""
    from portrait_core.tracking.deca_tracker import MarkedFlame

    def load() -> MarkedFlame:
        flame, landmarks = (weight_file(job.settings, name) for name in ("flame", "flame_landmarks"))
        return MarkedFlame.load(flame, landmarks)

    return cached("flame", _digests(job), load)


def _digests(job: Job) -> str:
    return "-".join(job.weights[name][:16] for name in DECA_MODELS)
