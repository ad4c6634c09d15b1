"""Transparency of pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def over_white(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite ``[H,W,4]`` uint8 RGBA (straight alpha) over white; return ``[H,W,3]`` uint8 unchanged."""
    if image.shape[-1] == 3:
        return image
    alpha = image[..., 3:].astype(np.uint16)
    return ((image[..., :3].astype(np.uint16) * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
