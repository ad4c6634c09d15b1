"""Aiming the output's head pose: one correction for the whole clip of what the tracker misreads.

The tracker places a face by its landmarks, and a smile or an unusual face shifts what it reads by a few
degrees. The driver's poses were read with the driver's expressions, and so will the output's be; but the
generator's axes come from the portrait, read off one picture with the portrait's expression: on five clips,
frames alone read 0.8 to 2.4 degrees of pitch apart from the same frames within their clip (root mean square).
The difference is one rotation for the whole clip. Where a frame of the driver shows the portrait's own face
in its own pose, as in self-reenactment, that frame tells it exactly; otherwise a few frames are rendered and
read. Pure arithmetic; rendering and tracking are the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import (
    angles_from_labels,
    labels_from_rotations,
    offsets_from_labels,
    orbit_rotation,
)
from portrait_core.settings import RenderSettings

_MAX_OFFSET_RAD = np.radians(8.0)
"""No more than this is believed to be the tracker's doing."""


def calibration_frames(cameras: NDArray[np.floating], count: int, usable: NDArray[np.bool_]) -> list[int]:
    """Return the frames whose poses are nearest to the clip's middle pose, in time order.

    Readings are most reliable there.

    Args:
        cameras: labels ``[T,25]``.
        count: how many, at most.
        usable: frames to choose from ``[T]``.
    """
    frames = np.flatnonzero(usable)
    if not len(frames):
        return []
    angles = angles_from_labels(cameras[frames])
    away = np.square(angles - np.median(angles, axis=0)).sum(1)
    # of each stretch of the clip the one nearest to the middle: expressions differ, poses do not
    parts = np.array_split(np.arange(len(frames)), min(count, len(frames)))
    return [int(frames[part[away[part].argmin()]]) for part in parts]


def pose_offset(asked: NDArray[np.floating], read: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the difference between poses as read and as asked for.

    Args:
        asked: angles ``[n,3]`` (yaw, pitch, roll) in radians that were rendered.
        read: what the tracker found ``[n,3]``.

    Returns:
        ``[3]`` radians, the median over the frames, at most 8 degrees.
    """
    return np.asarray(np.clip(np.median(read - asked, axis=0), -_MAX_OFFSET_RAD, _MAX_OFFSET_RAD))


def corrected_cameras(
    wanted: NDArray[np.floating], offset: NDArray[np.floating], limit: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return cameras to ask for, so that the tracker reads ``wanted``.

    Args:
        wanted: labels ``[T,25]``.
        offset: of :func:`pose_offset`.
        limit: largest yaw and pitch ``[2]`` in radians.
    """
    angles = angles_from_labels(wanted) - offset
    angles[:, :2] = np.clip(angles[:, :2], -limit, limit)
    turns = np.stack([orbit_rotation(*row) for row in angles])
    return labels_from_rotations(turns, offsets_from_labels(wanted))


def aimed_cameras(
    wanted: NDArray[np.floating],
    frames: Sequence[int],
    read: NDArray[np.floating],
    found: NDArray[np.bool_],
    settings: RenderSettings,
) -> NDArray[np.float32]:
    """Correct cameras by what the tracker reads off a few frames that were rendered with them.

    Args:
        wanted: labels ``[T,25]``.
        frames: the n of them that were rendered.
        read: labels ``[n,25]`` that the tracker read off them.
        found: which of them show a face ``[n]``; at least one.
        settings: how far the head may turn.

    Returns:
        Labels ``[T,25]``.
    """
    asked = angles_from_labels(wanted[list(frames)])
    limit = np.radians([settings.max_yaw_deg, settings.max_pitch_deg])
    return corrected_cameras(wanted, pose_offset(asked[found], angles_from_labels(read)[found]), limit)
