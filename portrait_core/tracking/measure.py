"""Scale-free measures of mouth and eyes, straight from landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import N_MESH


def seen(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Find frames with a face ``[T]``: those whose landmarks ``[T,P,2]`` are all there."""
    return np.asarray(np.isfinite(landmarks).all(axis=(1, 2)), bool)


def spread_evenly(frames: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Choose at most ``most`` of some frames ``[n]``, evenly spread, the first and the last among them."""
    if len(frames) <= most:
        return frames
    return frames[np.linspace(0, len(frames) - 1, most).round().astype(int)]


def measure(landmarks: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """Measure how far mouth and eyes are open.

    Args:
        landmarks: ``[T,P,2]`` pixels (or ``[T,P,3]`` in any unit), P >= 468; NaN rows give NaN measures.

    Returns:
        Arrays ``[T]``, all ratios without unit:
        ``lip_gap`` = |13-14| / |33-263| (inner lips over outer-eye distance),
        ``mouth_width`` = |61-291| / |33-263|,
        ``eye_opening_left`` = |386-374| / |362-263|, ``eye_opening_right`` = |159-145| / |33-133|
        (lid gap over the eye's width; the subject's left and right), ``eye_opening`` their mean.

    Raises:
        ValueError: if there are fewer than 468 points per frame.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1] < N_MESH:
        raise ValueError(
            f"expected landmarks [T,468 or 478,2], got {points.shape}; run FaceLandmarker.detect first"
        )

    def distance(a: int, b: int) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(points[:, a] - points[:, b], axis=-1))

    eyes = distance(33, 263)
    left = distance(386, 374) / distance(362, 263)
    right = distance(159, 145) / distance(33, 133)
    return {
        "lip_gap": distance(13, 14) / eyes,
        "mouth_width": distance(61, 291) / eyes,
        "eye_opening_left": left,
        "eye_opening_right": right,
        "eye_opening": (left + right) / 2,
    }
