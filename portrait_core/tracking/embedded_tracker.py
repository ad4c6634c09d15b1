"""The tracker that fits the embedded head to landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.settings import TrackingSettings
from portrait_core.tracking.crop import crop_image
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.trackers import Frames, TrackedPortrait


class EmbeddedTracker:
    """Fits the embedded head: a :class:`~portrait_core.tracking.trackers.Tracker` without networks.

    Args:
        head: the embedded head, on the CPU.
        settings: of the fit.
    """

    def __init__(self, head: MorphableHead, settings: TrackingSettings) -> None:
        self._head, self._settings = head, settings

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32], size: int) -> TrackedPortrait:
        """Track the portrait ``[H,W,3]`` by its landmarks ``[1,478,2]``."""
        track = fit_clip(self._head, points, np.ones(1, bool), self._settings)
        crop = crop_image(image, track.crop_center_px[0], float(track.crop_side_px[0]), size)
        return TrackedPortrait(track, crop)

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        cuts: NDArray[np.bool_] | None = None,
    ) -> FaceTrack:
        """Track T frames by their landmarks ``[T,478,2]``. No frame is read."""
        return fit_clip(self._head, points, ok, self._settings, shape=shape, cuts=cuts)
