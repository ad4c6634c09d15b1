"""What a tracker is to the stages, and the one that the settings choose.

The stages are the same for all trackers; what differs is behind :class:`Tracker`: the embedded head, fitted
to landmarks, here; DECA, FLAME and Deep3DFaceRecon in ``deca_tracker``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from portrait_core.config import Settings
from portrait_core.pipeline import Job
from tasks.context import head, look_key, read_track

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from portrait_core.faces.reproject import HeadSurface
    from portrait_core.faces.retarget import RetargetGains
    from portrait_core.faces.template import Template, TemplateRenderer
    from portrait_core.tracking.fit import FaceTrack

DECA_CODE = ("deca_code", "deca_tform", "deca_placement")
"""Arrays that ``tracking.tracker=deca`` keeps of a portrait further: its code, its crop's transform, and
where the generator's crop lies."""
EYES = "eyes"
"""Array of the stage ``retarget`` for eyes that FLAME cannot move: coefficients of the embedded head."""

Frames = Callable[[], Iterable[NDArray[np.uint8]]]
"""Gives the frames of a clip, one by one: a tracker that needs landmarks alone reads none."""
Arrays = dict[str, NDArray[np.generic]]
Moves = dict[str, NDArray[np.floating]]
"""What frames of the portrait do: ``expression``, ``jaw`` and what the tracker adds, ``[n, ...]`` each."""


def by_deca(settings: Settings) -> bool:
    """Tell whether DECA tracks."""
    return settings.tracking.tracker == "deca"


def driven_eyes(settings: Settings) -> bool:
    """Tell whether FLAME's portrait takes the driver's eyes."""
    return by_deca(settings) and settings.template.eyes == "driven"


@dataclass(frozen=True)
class TrackedPortrait:
    """A portrait, tracked: its track, the crop ``[S,S,3]`` that everything is made in, and what the tracker
    keeps further (``Job.arrays``)."""

    track: FaceTrack
    crop: NDArray[np.uint8]
    more: Arrays = field(default_factory=dict)


class ClipHead(Protocol):
    """The portrait's head with the clip's expressions, as fitting the generator wants it."""

    @property
    def surface(self) -> HeadSurface | None:
        """For rasterising ``vertices``; None where the head has no place in the generator's space."""

    expression_names: list[str]
    """Units of the head, which start the latents of a generator that knows them."""

    def vertices(self, frame: int) -> Tensor:
        """Box-frame mesh of a frame ``[V,3]``."""

    def silhouette(self) -> NDArray[np.bool_]:
        """Where the hairless head of the first frame covers the crop ``[S,S]``."""

    def detail(self, frame: int) -> NDArray[np.uint8]:
        """Mouth and eyes of a frame as a soft mask ``[S,S]``."""


class Tracker(Protocol):
    """Everything that a tracker does for a job."""

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32]) -> TrackedPortrait:
        """Track the portrait ``[H,W,3]`` by its landmarks ``[1,478,2]``."""

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        neighbours: bool = True,
    ) -> FaceTrack:
        """Track T frames by their landmarks ``[T,478,2]``, of which ``ok [T]`` show a face.

        Args:
            frames: gives the T frames.
            shape: the person's, where it is known.
            neighbours: whether consecutive frames are consecutive in time.
        """

    def retarget(self, source: FaceTrack, driver: FaceTrack) -> Arrays:
        """What the portrait shall do in every frame: ``expression [T,E]``, ``jaw [T,3]`` and what
        ``Job.arrays`` names further."""

    def still(self, source: FaceTrack) -> Arrays:
        """What :meth:`retarget` gives, for one frame in which the portrait does what it does itself: an
        edit's."""

    def moves(self, start: int, stop: int) -> Moves:
        """Read what :meth:`retarget` made of frames ``[start, stop)``."""

    def render(self, moves: Moves) -> Template:
        """The templates of frames that move so."""

    def clip_head(self, device: torch.device) -> ClipHead:
        """The portrait's head with the clip's expressions; its meshes are on ``device``."""


def tracker(job: Job) -> Tracker:
    """The tracker that the job's settings choose."""
    if job.settings.tracking.tracker == "deca":
        from tasks.deca_tracker import DecaTracker

        return DecaTracker(job)
    return EmbeddedTracker(job)


def gains(job: Job) -> RetargetGains:
    """Strengths of the regions, as the settings say."""
    from portrait_core.faces.retarget import RetargetGains

    settings = job.settings.template
    return RetargetGains(
        mouth=settings.mouth_gain,
        eyes=settings.eyes_gain,
        brows=settings.brows_gain,
        gaze=settings.gaze_gain,
        jaw=settings.jaw_gain,
    )


class EmbeddedTracker:
    """The embedded head, fitted to landmarks."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32]) -> TrackedPortrait:
        """See :class:`Tracker`."""
        from portrait_core.tracking.crop import crop_image
        from portrait_core.tracking.fit import fit_clip

        track = fit_clip(head(self._job), points, np.ones(1, bool), self._job.settings.tracking)
        size = self._job.settings.template.size
        crop = crop_image(image, track.crop_center_px[0], float(track.crop_side_px[0]), size)
        return TrackedPortrait(track, crop)

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        neighbours: bool = True,
    ) -> FaceTrack:
        """See :class:`Tracker`. No frame is read."""
        from portrait_core.tracking.fit import fit_clip

        tracking = self._job.settings.tracking
        if not neighbours:
            tracking = tracking.model_copy(update={"smooth_pose": 0.0, "smooth_expression": 0.0})
        return fit_clip(head(self._job), points, ok, tracking, shape=shape)

    def retarget(self, source: FaceTrack, driver: FaceTrack) -> Arrays:
        """See :class:`Tracker`."""
        from portrait_core.faces.driven_eyes import with_eyes_of
        from portrait_core.faces.retarget import retarget_clip

        model, settings = head(self._job), self._job.settings.template
        own = source.expression[0]
        expression, jaw = retarget_clip(
            model,
            driver.shape,
            driver.expression,
            source.shape,
            own,
            settings.transfer,
            gains(self._job),
            driver.ok,
        )
        if settings.eyes == "paper":
            still = np.broadcast_to(own, expression.shape)
            expression = with_eyes_of(expression, still, model.expression_names)
        return {"expression": np.asarray(expression, np.float32), "jaw": np.asarray(jaw, np.float32)}

    def still(self, source: FaceTrack) -> Arrays:
        """See :class:`Tracker`."""
        return {"expression": source.expression, "jaw": source.jaw}

    def moves(self, start: int, stop: int) -> Moves:
        """See :class:`Tracker`."""
        return read_moves(self._job, self.still, ("expression", "jaw"), start, stop)

    def render(self, moves: Moves) -> Template:
        """See :class:`Tracker`."""
        return self._renderer.render(moves["expression"], moves["jaw"])

    @cached_property
    def _renderer(self) -> TemplateRenderer:
        """The process's renderer of this portrait, held for as long as this tracker."""
        from portrait_core.faces.template import PortraitFit, TemplateRenderer
        from portrait_core.models.cache import cached

        job, settings = self._job, self._job.settings.template

        def build() -> TemplateRenderer:
            output = job.output("portrait")
            track = read_track(output)
            fit = PortraitFit(track.shape, track.expression[0], track.jaw[0], track.cameras[0])
            crop, marks = output.read("crop")[0], portrait_landmarks(job)
            return TemplateRenderer(head(job), crop, fit, marks, settings.supersample, settings.feather_px)

        return cached("template", look_key(job), build, alone=True)

    def clip_head(self, device: torch.device) -> ClipHead:
        """See :class:`Tracker`."""
        from portrait_core.inversion.clip_heads import EmbeddedClipHead

        job, size = self._job, self._job.settings.template.size
        track = read_track(job.output("portrait"))
        moves = self.moves(0, job.frames)
        codes = track.shape, moves["expression"], moves["jaw"]
        return EmbeddedClipHead(head(job, device), *codes, track.cameras, size)


def read_moves(
    job: Job, still: Callable[[FaceTrack], Arrays], names: Sequence[str], start: int, stop: int
) -> Moves:
    """Read what the stage ``retarget`` made of frames ``[start, stop)``. An edit has no such stage: the
    portrait does what it does itself, which ``still`` gives."""
    if job.goal != "edit":
        return job.output("retarget").read_together(names, start, stop)
    own = still(read_track(job.output("portrait")))
    return {name: np.asarray(own[name], np.float32) for name in names}


def portrait_landmarks(job: Job) -> NDArray[np.float32]:
    """The portrait's landmarks in pixels of its crop ``[478,2]``."""
    output, size = job.output("portrait"), job.settings.template.size
    points = output.read("landmarks")[0]
    side = output.read("crop_side_px")[0]
    corner = output.read("crop_center_px")[0] - side / 2
    return np.asarray((points - corner) * (size / side), np.float32)
