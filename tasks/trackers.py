"""A job's face model, and the inputs of its parts from the job's outputs and the process's models.

The face models are in ``portrait_core.template``; :mod:`portrait_core.template.registry` lists them. The
declarations of stages import this module, so that it loads PyTorch late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.rendering.page import Page
from portrait_core.runtime.model_cache import cached
from portrait_core.settings import Settings
from portrait_core.template.face_models import DrawnSquare, FaceModel, MovingPortrait, TrackedFaces
from portrait_core.template.registry import face_model_row
from portrait_core.tracking.array_names import MOUTH
from portrait_core.tracking.crop import points_in_crop
from tasks.context import device_of, head, look_key, read_portrait, read_track
from tasks.pages import page_of, sheet

if TYPE_CHECKING:
    import torch

    from portrait_core.face_model.head import MorphableHead
    from portrait_core.store import Output
    from portrait_core.template.clip_heads import ClipHead
    from portrait_core.template.moves import Moves
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.mouth_inside import MouthInside
    from portrait_core.tracking.same_face import Match
    from portrait_core.tracking.trackers import Tracker

Model = TypeVar("Model")


def face_model(job: Job) -> FaceModel:
    """Return the face model that the job's settings choose."""
    return face_model_row(job.settings).build(JobModels(job))


def tracker(job: Job) -> Tracker:
    """Return the tracker of the job's face model."""
    return face_model(job).tracker()


def retarget_clip(job: Job) -> Moves:
    """Find what the portrait does in every frame, from the tracks of portrait and driver."""
    portrait = TrackedFaces(read_track(job.output("portrait")), job.output("portrait").read("landmarks"))
    fit, points = job.output("fit"), job.output("person").read("landmarks")
    driver = TrackedFaces(read_track(fit), points, _mouth(job, fit))
    return face_model(job).retargeter().moves(portrait, driver)


def _mouth(job: Job, fit: Output) -> MouthInside | None:
    """Read what shows between the driver's lips; None where the face model does not ask for it."""
    from portrait_core.tracking.mouth_inside import MouthInside

    if not face_model_row(job.settings).read_arrays:
        return None
    arrays = fit.read_together(MOUTH)
    return MouthInside(*(arrays[name] for name in MOUTH))


def own_frame(job: Job, driver: FaceTrack) -> Match | None:
    """Find the driver's frame that shows the portrait's own face in its own pose."""
    from portrait_core.tracking.same_face import frame_of_portrait

    own, points = (job.output(stage).read("landmarks") for stage in ("portrait", "person"))
    return frame_of_portrait(own[0], points, driver.ok)


def read_moves(job: Job, start: int, stop: int) -> Moves:
    """Read the moves of frames ``[start, stop)`` that the stage ``retarget`` wrote.

    An edit has no such stage: its portrait keeps its own expression.
    """
    if job.goal == "edit":
        from portrait_core.template.moves import own_moves

        return own_moves(read_track(job.output("portrait")))
    names = face_model_row(job.settings).move_arrays(job.settings)
    return job.output("retarget").read_together(names, start, stop)


def moving_portrait(job: Job) -> MovingPortrait:
    """Return the portrait that templates are drawn of."""
    return face_model(job).moving_portrait(JobPortrait(job))


def clip_head(job: Job, moves: Moves, device: torch.device) -> ClipHead:
    """Return the portrait's head in every frame of the moves; its meshes are on ``device``."""
    return moving_portrait(job).clip_head(moves, device)


def portrait_landmarks(job: Job) -> NDArray[np.float32]:
    """Read the portrait's landmarks, in pixels of its crop ``[478,2]``."""
    names = ("landmarks", "crop_center_px", "crop_side_px")
    rows = job.output("portrait").read_together(names)
    points, center, side = (rows[name][0] for name in names)
    return points_in_crop(points, center, side, job.settings.template.size)


@dataclass(frozen=True)
class JobModels:
    """The :class:`~portrait_core.template.face_models.ModelSource` of a job."""

    job: Job

    @property
    def settings(self) -> Settings:
        """The settings of the job."""
        return self.job.settings

    @property
    def device(self) -> str:
        """The device that networks compute on."""
        return device_of(self.job)

    def file(self, name: str) -> Path:
        """Return the path of one of the job's weights."""
        return weight_file(self.job.settings, name)

    def embedded_head(self, device: torch.device | str = "cpu") -> MorphableHead:
        """Return the process's embedded head on a device."""
        return head(self.job, device)

    def shared(
        self, kind: str, files: Sequence[str], load: Callable[[], Model], *variant: str | int
    ) -> Model:
        """Return the process's model of a kind, loaded once per content of ``files`` and ``variant``."""
        digests = "-".join(self.job.weights[name][:16] for name in files)
        return cached(kind, digests, load, *variant)


@dataclass(frozen=True)
class JobPortrait:
    """The tracked portrait of a job: a :class:`~portrait_core.template.face_models.PortraitRecord`."""

    job: Job

    @cached_property
    def track(self) -> FaceTrack:
        """The portrait's track."""
        return read_track(self.job.output("portrait"))

    def photograph(self) -> NDArray[np.uint8]:
        """Read the whole photograph ``[H,W,3]``."""
        return read_portrait(self.job)

    def crop(self) -> NDArray[np.uint8]:
        """Read the generator's crop ``[S,S,3]``."""
        return np.asarray(self.job.output("portrait").read("crop")[0])

    def landmarks_px(self) -> NDArray[np.float32]:
        """Read the landmarks in pixels of the photograph ``[1,478,2]``."""
        return self.job.output("portrait").read("landmarks")

    def kept(self, name: str) -> NDArray[np.generic]:
        """Read an array ``[1, ...]`` that the tracker kept beside the track."""
        return self.job.output("portrait").read(name)

    def drawn_square(self) -> DrawnSquare:
        """Cut the square that templates are drawn in out of the photograph."""
        page = page_of(self.job, self.track)
        if page is None:
            return DrawnSquare(self.crop(), portrait_landmarks(self.job), self.track.cameras[0])
        return self._window(page)

    def own(self, kind: str, build: Callable[[], Model]) -> Model:
        """Return the process's object of a kind that belongs to this portrait, built once."""
        return cached(kind, look_key(self.job), build, alone=True)

    def _window(self, page: Page) -> DrawnSquare:
        """Cut the page's window.

        A window that is smaller than the generator's pictures is enlarged, so that masks are as fine as
        those.
        """
        import torch

        crop = np.asarray(page.window.cut(sheet(self.job, page)), np.uint8)
        points = page.points(self.landmarks_px()[0], page.window)
        camera = page.camera(torch.from_numpy(self.track.cameras), page.window)[0].numpy()
        times = -(-self.job.settings.template.size // page.window.side)
        if times > 1:
            enlarged = cv2.resize(crop, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
            crop = np.asarray(enlarged, np.uint8)
        return DrawnSquare(crop, points * times, camera)
