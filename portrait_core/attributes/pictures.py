"""Bringing an edit from the generator's pictures into the photograph."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST, WHOLE = 6.0, 24.0
"""Blurred grey-level differences below which a pixel of the photograph stays, and from which on it is the
generator's: a reconstruction is never exact, and sharpness is lost where it takes the photograph's place."""
BLUR, BORDER = 0.012, 0.06
"""Width of that blur, and of the ramp at the crop's border, as shares of the crop's side."""


def changed_share(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Where an edit changed a crop ``[S,S,3]``: 0 nowhere, 1 wholly ``[S,S]``, soft, 0 at the border."""
    size = len(before)
    difference = np.abs(after.astype(np.float32) - before).max(axis=2)
    blurred = cv2.GaussianBlur(difference, (0, 0), max(BLUR * size, 0.5))
    share = np.clip((blurred - LEAST) / (WHOLE - LEAST), 0, 1)
    share = cv2.GaussianBlur(share, (0, 0), max(BLUR * size, 0.5))
    inside = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(1.0, BORDER * size)
    edge = np.clip(inside, 0, 1)
    return np.asarray(share * np.minimum(edge[:, None], edge[None]), np.float32)


def edited_photograph(
    photograph: NDArray[np.uint8],
    before: NDArray[np.uint8],
    after: NDArray[np.uint8],
    center_px: ArrayLike,
    side_px: float,
) -> NDArray[np.uint8]:
    """The photograph, with the generator's picture where the edit changed something.

    Args:
        photograph: ``[H,W,3]`` uint8.
        before: what the generator makes of the crop's own latent ``[S,S,3]`` uint8.
        after: the same of the edited latent.
        center_px: the crop's centre ``(x, y)`` in continuous pixels of the photograph.
        side_px: its side.

    Returns:
        ``[H,W,3]`` uint8; equal to the photograph where ``before`` and ``after`` are alike, and outside.
    """
    size, (height, width) = len(before), photograph.shape[:2]
    scale = side_px / size
    corner = np.asarray(center_px, np.float64) - side_px / 2
    # indices of pixels whose centres lie at +0.5, in both pictures
    shift = corner + 0.5 * scale - 0.5
    to_photograph = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])

    def placed(picture: NDArray[np.generic]) -> NDArray[np.float32]:
        warped = cv2.warpAffine(
            picture.astype(np.float32), to_photograph, (width, height), flags=cv2.INTER_LINEAR
        )
        return np.asarray(warped, np.float32)

    share = placed(changed_share(before, after))[..., None]
    mixed = photograph * (1 - share) + placed(after) * share
    return np.asarray(np.clip(mixed + 0.5, 0, 255), np.uint8)
