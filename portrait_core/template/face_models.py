"""The interfaces of a face model: what a tracker has to bring.

A face model has three parts: it tracks faces (:class:`~portrait_core.tracking.trackers.Tracker`), it
retargets a driver's expressions to a portrait (:class:`Retargeter`), and it draws the portrait with them
(:class:`MovingPortrait`). The rest of the program knows these interfaces and the rows of
:mod:`portrait_core.template.registry`, and no face model by name.

A face model asks for what it needs: files and the process's models of a :class:`ModelSource`, a tracked
portrait's pictures and arrays of a :class:`PortraitRecord`. This module imports no PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from portrait_core.settings import Settings

if TYPE_CHECKING:
    import torch

    from portrait_core.face_model.head import MorphableHead
    from portrait_core.template.clip_heads import ClipHead
    from portrait_core.template.moves import Moves
    from portrait_core.template.template import Template
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.mouth_inside import MouthInside
    from portrait_core.tracking.trackers import Tracker

Model = TypeVar("Model")


class ModelSource(Protocol):
    """Gives files and loaded models to a face model."""

    @property
    def settings(self) -> Settings:
        """The settings of the run."""

    @property
    def device(self) -> str:
        """The device that networks compute on: ``cuda`` or ``cpu``."""

    def file(self, name: str) -> Path:
        """Return the path of one of the row's files.

        Raises:
            ValueError: if it is not there.
        """

    def embedded_head(self, device: torch.device | str = "cpu") -> MorphableHead:
        """Return the process's embedded head on a device."""

    def shared(
        self, kind: str, files: Sequence[str], load: Callable[[], Model], *variant: str | int
    ) -> Model:
        """Return the process's model of a kind, loaded once per content of ``files`` and ``variant``."""


class DrawnSquare(NamedTuple):
    """The square of the photograph that templates are drawn in."""

    picture: NDArray[np.uint8]
    """``[S,S,3]``."""
    landmarks_px: NDArray[np.float32]
    """The portrait's landmarks in pixels of the picture ``[478,2]``."""
    camera: NDArray[np.floating]
    """Label of the camera that sees the picture ``[25]``."""


class PortraitRecord(Protocol):
    """Gives a tracked portrait, piece by piece."""

    @property
    def track(self) -> FaceTrack:
        """The portrait's track, of one frame."""

    def photograph(self) -> NDArray[np.uint8]:
        """Read the whole photograph ``[H,W,3]``."""

    def crop(self) -> NDArray[np.uint8]:
        """Read the generator's crop ``[S,S,3]``."""

    def landmarks_px(self) -> NDArray[np.float32]:
        """Read the landmarks in pixels of the photograph ``[1,478,2]``."""

    def kept(self, name: str) -> NDArray[np.generic]:
        """Read an array ``[1, ...]`` that the tracker kept beside the track."""

    def drawn_square(self) -> DrawnSquare:
        """Cut the square that templates are drawn in out of the photograph."""

    def own(self, kind: str, build: Callable[[], Model]) -> Model:
        """Return the process's object of a kind that belongs to this portrait, built once."""


@dataclass(frozen=True)
class TrackedFaces:
    """The faces of T frames.

    Attributes:
        track: of the T frames.
        landmarks_px: ``[T,478,2]``, NaN where there is no face.
        mouth: what shows between their lips; None where it was not read.
    """

    track: FaceTrack
    landmarks_px: NDArray[np.float32]
    mouth: MouthInside | None = None


class Retargeter(Protocol):
    """Turns a driver's expressions into a portrait's."""

    def moves(self, portrait: TrackedFaces, driver: TrackedFaces) -> Moves:
        """Find what the portrait does in every frame of the driver.

        Args:
            portrait: one frame.
            driver: T frames.

        Returns:
            T frames of moves, with the arrays of the face model's row.

        Raises:
            InputError: if ``template.neutral_frame`` is not a frame of the driver with a face.
        """


class MovingPortrait(Protocol):
    """Draws one portrait with other expressions."""

    def render(self, moves: Moves) -> Template:
        """Draw the templates of n frames of moves."""

    def clip_head(self, moves: Moves, device: torch.device | str) -> ClipHead:
        """Return the portrait's head in every frame of the moves, as fitting the generator needs it.

        Args:
            moves: n frames.
            device: the device of the head's meshes, where it has any.
        """


class FaceModel(Protocol):
    """Everything that one value of ``tracking.tracker`` brings."""

    def tracker(self) -> Tracker:
        """Return the part that tracks faces."""

    def retargeter(self) -> Retargeter:
        """Return the part that retargets expressions."""

    def moving_portrait(self, portrait: PortraitRecord) -> MovingPortrait:
        """Return the part that draws a portrait with other expressions."""
