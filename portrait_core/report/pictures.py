"""Pictures of a run: a labelled contact sheet of telling frames, and rows of images side by side."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

_INK = (235, 235, 235)
_PAPER = (24, 24, 24)
_STRONG = (255, 210, 60)


def telling_frames(
    lip_gap: NDArray[np.floating],
    eye_opening: NDArray[np.floating],
    angles_deg: NDArray[np.floating],
    count: int,
) -> list[int]:
    """Choose frames worth looking at, in time order.

    They are the first, the widest mouth, the tightest eyes, the extremes of yaw, pitch and roll, then frames
    that fill the largest gaps.

    Args:
        lip_gap: distance of the lips ``[T]``; NaN where there is no face.
        eye_opening: opening of the eyes ``[T]``; NaN where there is no face.
        angles_deg: yaw, pitch, roll ``[T,3]``; NaN where there is no face.
        count: how many frames, at most ``T``.

    Raises:
        ValueError: if there is no frame or ``count`` is less than 1.
    """
    total = len(lip_gap)
    if total == 0 or count < 1:
        raise ValueError(f"cannot choose {count} of {total} frames; ask for at least 1 of at least 1")
    wanted = [0]
    for values in (lip_gap, -np.asarray(eye_opening), *np.asarray(angles_deg).T, *-np.asarray(angles_deg).T):
        if np.isfinite(values).any():
            wanted.append(int(np.nanargmax(values)))
    chosen = list(dict.fromkeys(wanted))[: min(count, total)]
    while len(chosen) < min(count, total):
        edges = sorted({*chosen, total})
        gaps = [(b - a, a + (b - a) // 2) for a, b in pairwise(edges)]
        length, middle = max(gaps)
        free = [i for i in range(total) if i not in chosen]
        chosen.append(middle if length > 1 else free[0])
    return sorted(chosen)


def contact_sheet(rows: Mapping[str, Sequence[Picture]], titles: Sequence[str], tile: int = 192) -> Picture:
    """Draw one picture with a labelled row for each kind of image and a column for each frame.

    Args:
        rows: label: images ``[H,W,3]`` uint8 of any size, one for each title.
        titles: column headings.
        tile: side of each image on the sheet, in pixels.

    Returns:
        ``[H,W,3]`` uint8.

    Raises:
        ValueError: if there is no row or a row's length is not the number of titles.
    """
    uneven = [label for label, images in rows.items() if len(images) != len(titles)]
    if not rows or uneven:
        raise ValueError(f"every row needs {len(titles)} images; these differ: {uneven or 'no rows'}")
    margin, head = max(96, tile // 2), max(18, tile // 8)
    sheet = Image.new("RGB", (margin + tile * len(titles), head + tile * len(rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = _font(head - 5)
    for i, title in enumerate(titles):
        draw.text((margin + tile * i + tile // 2, head // 2), title, _INK, font, anchor="mm")
    for j, (label, images) in enumerate(rows.items()):
        top = head + tile * j
        draw.multiline_text((6, top + tile // 2), label.replace(" ", "\n"), _INK, font, anchor="lm")
        for i, image in enumerate(images):
            sheet.paste(_fitted(image, tile), (margin + tile * i, top))
    return np.asarray(sheet)


def frame_sheet(frames: Sequence[int], columns: Callable[[int], Mapping[str, Picture]]) -> Picture:
    """Draw one picture of frames: a column for each, with a labelled row for each kind of image.

    Args:
        frames: their numbers.
        columns: gives a frame's images ``[H,W,3]`` uint8 of any size by label, the same labels for each.

    Raises:
        ValueError: if there is no frame, or a frame lacks an image.
    """
    rows: dict[str, list[Picture]] = {}
    for frame in frames:
        for label, image in columns(frame).items():
            rows.setdefault(label, []).append(image)
    return contact_sheet(rows, [f"frame {frame}" for frame in frames])


def boxed(
    picture: Picture, boxes: Sequence[tuple[NDArray[np.floating], str, bool]], longest: int = 640
) -> Picture:
    """Draw boxes with labels into a picture, scaled down, on a square.

    Args:
        picture: ``[H,W,3]`` uint8.
        boxes: corners ``[2,2]`` in pixels, a label, and whether the box is emphasised.
        longest: side of the square in pixels at most.

    Returns:
        ``[S,S,3]`` uint8.
    """
    scale = min(1.0, longest / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    side = max(size)
    square, corner = Image.new("RGB", (side, side), _PAPER), ((side - size[0]) // 2, (side - size[1]) // 2)
    square.paste(Image.fromarray(picture).resize(size, Image.Resampling.BOX), corner)
    draw, width = ImageDraw.Draw(square), max(2, side // 120)
    for corners, label, strong in boxes:
        (x0, y0), (x1, y1) = corners * scale + corner
        ink = _STRONG if strong else _INK
        draw.rectangle((x0, y0, x1, y1), outline=ink, width=width)
        draw.text((x0 + 2 * width, y0 + width), label, ink, _font(max(12, side // 12)))
    return np.asarray(square)


def png_bytes(picture: Picture) -> bytes:
    """Return a picture ``[H,W,3]`` as the content of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def side_by_side(images: Mapping[str, Picture], size: int) -> Picture:
    """Return images in one row, each ``size`` x ``size`` under its label: ``[size+strip, n*size, 3]`` uint8.

    Width and height are even, as video needs.
    """
    strip = _labels(tuple(images), size)
    row = np.concatenate([np.asarray(_fitted(image, size)) for image in images.values()], axis=1)
    out = np.concatenate([strip, row], axis=0)
    return out[: out.shape[0] // 2 * 2, : out.shape[1] // 2 * 2]


@lru_cache(maxsize=8)
def _labels(labels: tuple[str, ...], size: int) -> Picture:
    height = max(16, size // 12) // 2 * 2
    strip = Image.new("RGB", (size * len(labels), height), _PAPER)
    draw = ImageDraw.Draw(strip)
    for i, label in enumerate(labels):
        draw.text((size * i + size // 2, height // 2), label, _INK, _font(height - 5), anchor="mm")
    return np.asarray(strip)


def _fitted(image: Picture, size: int) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return picture if picture.size == (size, size) else picture.resize((size, size), Image.Resampling.BICUBIC)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(8, size))
