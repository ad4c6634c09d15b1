"""The interface of a tracker, which fits a head to the landmarks of a portrait or of a clip.

The embedded head is fitted in ``embedded_tracker``; DECA, FLAME and Deep3DFaceRecon track in
``deca_tracker``. A tracker is one part of a face model: see ``portrait_core.template.face_models``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from portrait_core.tracking.fit import FaceTrack

Frames = Callable[[], Iterable[NDArray[np.uint8]]]
"""Function that returns the frames ``[H,W,3]`` of a clip, one by one from the first on, at every call."""


@dataclass(frozen=True)
class TrackedPortrait:
    """A portrait and its track.

    Attributes:
        track: of one frame.
        crop: the square ``[S,S,3]`` uint8 that later stages work in.
        more: arrays ``[1, ...]`` by name that the tracker keeps beside the track.
    """

    track: FaceTrack
    crop: NDArray[np.uint8]
    more: dict[str, NDArray[np.generic]] = field(default_factory=dict)


class Tracker(Protocol):
    """Fits a head to the landmarks of faces."""

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32], size: int) -> TrackedPortrait:
        """Track a portrait.

        Args:
            image: ``[H,W,3]`` uint8.
            points: its landmarks ``[1,478,2]``, in pixels.
            size: side of its crop in pixels.
        """

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        cuts: NDArray[np.bool_] | None = None,
    ) -> FaceTrack:
        """Track T frames.

        Args:
            points: landmarks ``[T,478,2]``, in pixels.
            ok: frames that show a face ``[T]``.
            frames: yields the T frames.
            shape: the person's coefficients ``[S]``, where they are known; None fits them.
            cuts: whether a new scene begins with the frame ``[T]``; None is one scene, and all True are
                frames that have nothing to do with each other.
        """
