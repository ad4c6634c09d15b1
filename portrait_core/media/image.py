"""Reading of still images."""

from __future__ import annotations

import os
import warnings

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from portrait_core.errors import InputError
from portrait_core.media.binary import existing_file
from portrait_core.media.reader import over_white


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image as ``[H,W,3]`` uint8 RGB.

    EXIF orientation is applied, alpha is composited over white, 16-bit channels are reduced to 8 (value /
    257), and grey, palette and CMYK images are converted; the first picture of an animation is read. Embedded
    colour profiles are not applied.

    Raises:
        InputError: the file does not exist, is not an image, is truncated or too large, or has floating-point
            pixels.
    """
    file = existing_file(path, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                return _to_rgb(ImageOps.exif_transpose(opened), str(path))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} is too large an image ({error}); scale it down first") from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable image ({error}); save it as PNG or JPEG, or copy it again"
        ) from error


def at_most(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale an image ``[H,W,3]`` uint8 down to ``side`` pixels on its longer side; keep a smaller one."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _to_rgb(image: Image.Image, path: str) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels, whose range is not known; save it as 8-bit PNG")
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 65535)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        return over_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))
