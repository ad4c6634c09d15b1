"""Reading of still images, which may be a stranger's: what one announces is checked before decoding it."""

from __future__ import annotations

import mmap
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from pillow_heif import options as heif_options
from pillow_heif.as_plugin import HeifImageFile

from portrait_core.errors import InputError
from portrait_core.media.alpha import over_white
from portrait_core.media.binary import existing_file
from portrait_core.media.kinds import HEAD_BYTES, advice, kind_of
from portrait_core.media.profiles import Conversion, conversion_to_srgb, family_of
from portrait_core.media.turns import room_for
from portrait_core.runtime.regular_files import open_regular
from portrait_core.settings.limits import current_limits, over_limit, refuse_beyond

PICTURES = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
"""Pillow's names of the formats that are read beside HEIF: those of cameras, phones, browsers and data sets;
JPEG is MPO too, of phones with two lenses. None of their decoders starts a program, as EPS does, or opens
another file."""
DECODER_THREADS = 2
"""Number of threads that decode a HEIF picture."""
MAX_SCANS = 100
"""Number of scans of a JPEG file from which on it is refused: each passes over all of the picture, and a
progressive one has about ten."""
MAX_SEGMENTS = 10_000
"""Number of segments of a JPEG file from which on it is refused."""
_HEIF = re.compile(rb".{4}ftyp(?:he[iv][cmsx]|m[is]f1.{4}(?:.{4}){0,15}he[iv][cx])", re.DOTALL)
_CICP = re.compile(rb"\x00\x00\x00\x04cICP(.)(.)", re.DOTALL)
_NCLX = re.compile(rb"colrnclx\x00(.)\x00(.)", re.DOTALL)
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_START_OF_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
_BAND_PIXELS = 1 << 18
# One picture can make tens of thousands of them, about its tags, and all are printed.
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def open_picture(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open a picture without decoding it; every picture of this project is opened here.

    Whatever goes wrong inside of the ``with`` block is said of the file.

    Raises:
        InputError: it does not exist, is no regular file, of no format of :data:`PICTURES`, larger than the
            limits of this process, or damaged.
    """
    file = existing_file(path, "image")
    head = b""
    try:
        with open_regular(file) as opened:
            refuse_beyond("picture_bytes", os.fstat(opened.fileno()).st_size, str(path))
            head = opened.read(HEAD_BYTES)
            if head.startswith(b"\xff\xd8"):
                _check_scans(opened, str(path))
            opened.seek(0)
            Image.MAX_IMAGE_PIXELS = current_limits().picture_pixels
            with _opened(opened, head) as image:
                refuse_beyond("picture_pixels", image.width * image.height, str(path))
                yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        pixels = int(found[0]) if found else 2 * current_limits().picture_pixels
        raise InputError(f"{path} {over_limit('picture_pixels', pixels)}") from error
    except Exception as error:  # a hostile file may raise anything, and is that file's problem alone
        raise InputError(
            f"{path} is not a readable image ({_reason(error, head)}); "
            f"{advice(kind_of(head), 'picture', str(path))}"
        ) from error


def _opened(file: BinaryIO, head: bytes) -> Image.Image:
    """Open a picture by its content, whatever its name says.

    The decoder of HEIF is not registered with Pillow, so that nothing else in this process opens such files.
    """
    if not _HEIF.match(head):
        image = Image.open(file, formats=PICTURES)
        # Pillow passes over the numbers that say what `nclx` does in HEIF.
        numbers = {"PNG": _CICP, "AVIF": _NCLX}.get(str(image.format))
        if numbers is not None and (found := numbers.search(head)):
            codes = {"color_primaries": found[1][0], "transfer_characteristics": found[2][0]}
            image.info["nclx_profile"] = codes
        return image
    heif_options.DECODE_THREADS = DECODER_THREADS
    # What accompanies a picture, such as the gain map of its high dynamic range, is not looked at.
    heif_options.THUMBNAILS = heif_options.DEPTH_IMAGES = heif_options.AUX_IMAGES = False
    return HeifImageFile(file)


def read_image(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an image as ``[H,W,3]`` uint8 RGB.

    Orientation is applied, alpha is composited over white, 16-bit channels are reduced to 8 (value / 257),
    and grey, palette and CMYK images are converted; the main picture of a file of several is read, of an
    animation the first. Colours are converted to sRGB by the embedded profile, or by what the file says
    instead of one (:mod:`portrait_core.media.profiles`); a profile that cannot be used is ignored with a
    warning.

    Raises:
        InputError: the file does not exist, is not an image, is truncated or too large, or has floating-point
            pixels.
    """
    with open_picture(path) as image:
        if image.mode == "F":
            raise InputError(
                f"{path} has floating-point pixels, whose range is not known; save it as 8-bit PNG"
            )
        with room_for(image.width * image.height):
            return _to_rgb(image, str(path))


def at_most(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale an image ``[H,W,3]`` uint8 down to ``side`` pixels on its longer side; keep a smaller one."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _reason(error: Exception, head: bytes) -> str:
    kind = kind_of(head)
    unknown = isinstance(error, UnidentifiedImageError)
    if kind and (unknown or kind.family != "picture"):
        return f"it is {kind}"
    if unknown:
        return f"of none of the formats {', '.join(PICTURES)}"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return str(error)


def _check_scans(file: BinaryIO, name: str) -> None:
    """Count the scans and the segments of the first picture of a JPEG file."""
    scans = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        position = 0
        for _ in range(MAX_SEGMENTS):
            found = _MARKER.search(data, position)
            if found is None or found[1][0] == _END:
                return
            scans += found[1][0] == _START_OF_SCAN
            if scans > MAX_SCANS:
                raise InputError(f"{name} has more than {MAX_SCANS} scans; save it as PNG or JPEG again")
            position = found.end()
            if found[1][0] not in _WITHOUT_LENGTH:
                position += int.from_bytes(data[position : position + 2], "big")
    raise InputError(f"{name} has more than {MAX_SEGMENTS} segments; save it as PNG or JPEG again")


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Convert a picture in bands, so that beside the result only Pillow's own copy takes memory."""
    image.load()
    orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    width, height = image.size
    result = np.empty((width, height, 3) if 5 <= orientation <= 8 else (height, width, 3), np.uint8)
    stored = _as_stored(result, orientation)
    clear = image.has_transparency_data
    convert = conversion_to_srgb(image, name)
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        stored[top:bottom] = _band_to_rgb(image.crop((0, top, width, bottom)), clear, convert)
    return result


def _as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return a view of an upright picture in which pixels lie as they do in a file of an EXIF orientation."""
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    return upright.swapaxes(0, 1) if 5 <= orientation <= 8 else upright


def _band_to_rgb(band: Image.Image, clear: bool, convert: Conversion | None) -> NDArray[np.uint8]:
    if band.mode == "I" or band.mode.startswith("I;16"):
        grey = np.clip(np.asarray(band, dtype=np.int64), 0, 65535)
        band = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if not clear:
        return _colours(band, convert)
    rgba = band.convert("RGBA")
    # A grey picture with alpha is grey in each of its colours.
    opaque = rgba.getchannel("R") if family_of(band.mode) == "L" else rgba.convert("RGB")
    return over_white(np.dstack([_colours(opaque, convert), np.asarray(rgba.getchannel("A"))]))


def _colours(band: Image.Image, convert: Conversion | None) -> NDArray[np.uint8]:
    if convert is None:
        return np.asarray(band.convert("RGB"))
    family = family_of(band.mode)
    return np.asarray(convert(band if band.mode == family else band.convert(family)))
