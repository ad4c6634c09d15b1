"""Landmarks seen in a picture, brought into the head's own frame: pose and perspective taken away."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.projection import Pose

Array = NDArray[np.float64]

_DECODED_TOGETHER = 16
"""Frames whose whole meshes are in memory at once."""


def head_landmarks(
    head: MorphableHead,
    shape: NDArray[np.floating],
    expression: NDArray[np.floating],
    jaw: NDArray[np.floating],
) -> Array:
    """Decode the landmarks of a head that moves.

    Args:
        head: a head with the 478 landmarks (the embedded one), on the CPU.
        shape: the person's ``[S]``.
        expression: ``[T,E]``, in the head's units.
        jaw: axis-angle in radians ``[T,3]``.

    Returns:
        ``[T,478,3]`` in the box frame, the head at rest in it. A few meshes are decoded at a time.
    """
    person = torch.as_tensor(np.asarray(shape, np.float32))[None]
    found = []
    with torch.no_grad():
        for start in range(0, len(expression), _DECODED_TOGETHER):
            part = slice(start, start + _DECODED_TOGETHER)
            codes = (torch.as_tensor(np.asarray(code[part], np.float32)) for code in (expression, jaw))
            found.append(head.to_box(head.landmarks(head.decode(person, *codes))).double().numpy())
    return np.concatenate(found)


def lift_clip(head: MorphableHead, pixels: NDArray[np.floating], track: FaceTrack) -> Array:
    """Lift the landmarks of T frames to the depth of the heads that were fitted to them.

    Args:
        head: the head of the track, on the CPU.
        pixels: seen ``[T,478,2]``; NaN where there is no face.
        track: of the T frames.

    Returns:
        ``[T,478,3]`` in the box frame (:func:`lift`), NaN where ``pixels`` are.
    """
    points = head_landmarks(head, track.shape, track.expression, track.jaw)
    rows = zip(pixels, track.rotation, track.crop_center_px, track.crop_side_px, points, strict=True)
    return np.stack(
        [
            lift(seen.astype(float), Pose(turn.astype(float), center.astype(float), float(side)), own)
            for seen, turn, center, side, own in rows
        ]
    )


def lift(pixels: Array, pose: Pose, points: Array) -> Array:
    """Lift landmarks to the depth of the fitted head.

    Args:
        pixels: seen ``[k,2]``.
        pose: the head's, fitted to them.
        points: the fitted head's landmarks ``[k,3]`` in the box frame, which give the depth.

    Returns:
        ``[k,3]`` in the box frame (x to the image's right of a frontal face, y up, z to the viewer); exact
        where the fit is.
    """
    return pose.unproject(pixels, pose.depth(points))
