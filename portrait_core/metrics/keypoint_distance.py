"""AKD: how far a result's facial landmarks lie from its target's.

The field takes 68 points of one landmark network or another, and sums or averages over coordinates; so does
the name of the variant here. The points are those of the embedded face mesh at the 68 places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.tracking.landmarks68 import mesh_to_68

VARIANT = (
    "AKD, 68 points of the embedded face mesh, mean absolute difference of coordinates, pixels of 256 x 256"
)
"""Name to stand beside every such number."""
SIDE = 256
"""Side in pixels of the pictures that distances are given for."""


@dataclass(frozen=True)
class KeypointDistance:
    """Distances of a clip.

    Attributes:
        values: of each frame ``[T]`` in pixels of 256 x 256; NaN where either picture has no face.
        missing_results: number of frames whose result has no face.
        missing_targets: number of frames whose target has no face.
    """

    values: NDArray[np.float64]
    missing_results: int
    missing_targets: int
    variant: str = VARIANT

    @property
    def frames(self) -> int:
        """Number of frames that were compared."""
        return int(np.isfinite(self.values).sum())

    @property
    def mean(self) -> float:
        """Mean over the frames that were compared; NaN where there is none."""
        return float(np.nanmean(self.values)) if self.frames else float("nan")


def keypoint_distance(
    results: NDArray[np.floating], targets: NDArray[np.floating], side_px: float
) -> KeypointDistance:
    """Compare landmarks of a clip with its target's, frame by frame.

    Args:
        results: face-mesh landmarks ``[T,468 or 478,2 or 3]`` in pixels of square pictures, as
            ``FaceLandmarker.detect`` gives them; NaN where there is no face.
        targets: those of the target, in the same square.
        side_px: side of the pictures in pixels.

    Raises:
        ValueError: for landmarks of another form, clips of different lengths, or a side of 0 or less.
    """
    if side_px <= 0:
        raise ValueError(f"pictures have a side of {side_px} pixels; give the side that landmarks refer to")
    first, second = mesh_to_68(results), mesh_to_68(targets)
    if len(first) != len(second):
        raise ValueError(
            f"the result has {len(first)} frames and its target {len(second)}; compare equal clips"
        )
    seen_first, seen_second = (np.isfinite(points).all((1, 2)) for points in (first, second))
    values = np.full(len(first), np.nan)
    both = seen_first & seen_second
    values[both] = np.abs(first[both] - second[both]).mean((1, 2)) * (SIDE / side_px)
    return KeypointDistance(values, int((~seen_first).sum()), int((~seen_second).sum()))
