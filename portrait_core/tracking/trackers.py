"""What a tracker is: it fits a head to the landmarks of a portrait or of a clip.

The embedded head is fitted in ``embedded_tracker``; DECA, FLAME and Deep3DFaceRecon track in
``deca_tracker``. What follows from a track is the same for both: see ``portrait_core.template.moves``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from portrait_core.tracking.fit import FaceTrack

Frames = Callable[[], Iterable[NDArray[np.uint8]]]
"""Gives the frames of a clip ``[H,W,3]``, one by one: a tracker that needs landmarks alone reads none."""


@dataclass(frozen=True)
class TrackedPortrait:
    """A portrait and its track.

    Attributes:
        track: of one frame.
        crop: the square ``[S,S,3]`` uint8 that everything is made in.
        more: arrays ``[1, ...]`` that the tracker keeps further, by name.
    """

    track: FaceTrack
    crop: NDArray[np.uint8]
    more: dict[str, NDArray[np.generic]] = field(default_factory=dict)


class Tracker(Protocol):
    """Fits a head to landmarks."""

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32], size: int) -> TrackedPortrait:
        """Track the portrait ``[H,W,3]`` by its landmarks ``[1,478,2]``, in pixels; its crop has ``size``
        pixels on a side.
        """

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        neighbours: bool = True,
    ) -> FaceTrack:
        """Track T frames.

        Args:
            points: landmarks ``[T,478,2]``, in pixels.
            ok: frames that show a face ``[T]``.
            frames: gives the T frames.
            shape: the person's coefficients ``[S]``, where they are known.
            neighbours: whether consecutive frames are consecutive in time.
        """
