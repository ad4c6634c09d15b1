"""A moustache: hair between nose and mouth that hangs over the upper lip and moves with it as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from portrait_core.face_model.contours import Opening, pixel_grid, window

Array = NDArray[Any]
_NOSE = 2
"""Landmark where the nose meets the upper lip."""


@dataclass(frozen=True)
class _HairLook:
    """What hair over a lip looks like; lengths in mouth widths, luminances in the skin's."""

    dark: float = 0.60
    """Most luminance, on the left and on the right, of the band between nose and mouth that is taken for
    hair; a shadow of the nose darkens one side only."""
    beside: float = 0.45
    """Reach beside the corners."""
    below: float = 0.30
    """Reach below the mouth's line beside the corners; 0 in the middle."""
    over_lip: float = 0.04
    """Reach below the line in the middle, where hair hangs over the lip."""
    roots: float = 0.35
    """Share of the way from nose to mouth over which the hair's motion grows from none to the lip's, below
    the nose."""
    edge: float = 0.40
    """Where between hair (0) and skin (1) a luminance counts as half hair."""


_HAIR = _HairLook()


@dataclass(frozen=True)
class LipHair:
    """The hair over a photograph's upper lip."""

    weight: Array
    """How much each pixel ``[h,w]`` of ``box`` is hair, 0..1."""
    box: tuple[int, int, int, int]
    """Window ``(x0, y0, x1, y1)`` of the photograph that has hair in it, in work pixels."""
    nose: float
    """Height of the nose's base below the mouth's chord, in pixels; negative."""

    def paint(self, canvas: Array, photo: Array, source: Opening, opening: Opening) -> None:
        """Lay the photograph's hair over ``canvas [W,W,3]``, in place, as the upper lip has carried it.

        Args:
            canvas: the moved face with the mouth painted.
            photo: the photograph ``[W,W,3]``.
            source: the photograph's mouth.
            opening: the moved mouth.
        """
        u = np.linspace(-0.5, 1.5, 81, dtype=np.float32)
        before, after = (np.stack(o.position(u, o.edges(u)[0]), 1) for o in (source, opening))
        # stiff: single points of the lip do not bend it
        move = gaussian_filter1d(after - before, 6.0, axis=0, mode="nearest")
        corner = (u >= 0.0) & (u <= 1.0)
        move = np.stack([np.interp(u, u[corner], move[corner, axis]) for axis in (0, 1)], 1)
        reach = float(np.abs(move).max()) + 2.0
        x0, y0, x1, y1 = self.box
        box = window(np.array([[x0, y0], [x1, y1]], np.float32), reach, len(canvas))
        x, y = pixel_grid(box)
        along, _ = source.local(x, y)
        grown = np.ones_like(along)
        for _ in range(3):  # where a pixel comes from depends on how far that place has moved
            px, py = (p - grown * np.interp(along, u, move[:, axis]) for axis, p in enumerate((x, y)))
            along, height = source.local(px, py)
            root = 1.0 - np.clip((height - self.nose) / max(-_HAIR.roots * self.nose, 1.0), 0.0, 1.0)
            grown = 1.0 - root * np.clip((0.42 - np.abs(along - 0.5)) / 0.2, 0.0, 1.0)
        px, py = px.astype(np.float32), py.astype(np.float32)
        weight = cv2.remap(self.weight, px - x0 - 0.5, py - y0 - 0.5, cv2.INTER_LINEAR, borderValue=0.0)
        hair = cv2.remap(photo, px - 0.5, py - 0.5, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        area = canvas[box[1] : box[3], box[0] : box[2]]
        area += weight[..., None] * (hair - area)


def find_hair(
    photo: Array, mouth: Opening, landmarks: NDArray[np.floating], skin_luminance: float
) -> LipHair | None:
    """Find a moustache: the band between nose and mouth is much darker than the cheeks, on both sides.

    Args:
        photo: ``[W,W,3]`` float32, 0..255.
        mouth: the inner lips' landmarks in it.
        landmarks: ``[478,2]`` in its pixels.
        skin_luminance: the cheeks', 0..255.

    Returns:
        The hair, or ``None`` where the lip is bare.
    """
    nose = float(mouth.local(*landmarks[_NOSE].astype(np.float32)[:, None])[1][0])
    if nose > -0.08 * mouth.width:
        return None
    corners = np.stack(mouth.position(np.array([0, 1], np.float32), np.zeros(2, np.float32)), 1)
    reach = (_HAIR.beside + 0.1) * mouth.width
    box = window(np.concatenate([corners, landmarks[[_NOSE]]]), reach, len(photo))
    x0, y0, x1, y1 = box
    along, height = mouth.local(*pixel_grid(box))
    upper, lower = mouth.edges(along)
    luminance = photo[y0:y1, x0:x1].mean(-1)
    band = (height > 0.7 * nose) & (height < upper - 0.03 * mouth.width)
    halves = [band & (np.abs(along - middle) < 0.15) for middle in (0.3, 0.7)]
    levels = [float(np.median(luminance[half])) for half in halves if half.any()]
    if len(levels) < 2 or max(levels) >= _HAIR.dark * skin_luminance:
        return None
    dark = float(np.mean(levels))
    middle = np.clip(np.minimum(along, 1.0 - along) / 0.15, 0.0, 1.0)
    bottom = (upper + lower) / 2 + (_HAIR.over_lip * middle + _HAIR.below * (1 - middle)) * mouth.width
    inside = np.clip((height - 0.97 * nose) / (-0.4 * nose), 0, 1)
    inside *= np.clip((bottom - height) / (0.04 * mouth.width) + 0.5, 0, 1)
    inside *= np.clip((np.minimum(along, 1.0 - along) + _HAIR.beside) / 0.1, 0, 1)
    # dark, or between dark strands
    k = 2 * round(0.04 * mouth.width) + 1
    strands = cv2.GaussianBlur(luminance, (0, 0), 0.01 * mouth.width + 0.5)
    strands = cv2.morphologyEx(strands, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)))
    contrast = skin_luminance - dark
    hair = np.clip((dark + _HAIR.edge * contrast - strands) / (0.2 * contrast) + 0.5, 0, 1)
    return LipHair((hair * inside).astype(np.float32), box, nose)
