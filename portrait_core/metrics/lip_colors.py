"""Teeth and open mouth read by colour inside the lips' contour, whatever the landmarks say of the lip gap.

The landmark network reads pressed lips as a gap and a toothy smile as a small one. Here its points only
tell where the mouth is: the lips' outer contour, and patches of cheek and lip for their colours. Pixels
inside are lip, tooth (about as light as the skin and paler or less red) or dark, relative to the face's own
colours; in a black-and-white picture lightness alone decides. A tongue of the lips' colour that fills the
mouth to its edge, and gums, are taken for lip: only lips that are far apart are believed to be so without
anything dark or light between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.contours import Opening
from portrait_core.face_model.easing import eased
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.metrics.follow import MOUTH_OPEN, TEETH_SHOWN
from portrait_core.tracking.measure import seen
from portrait_core.tracking.mouth_picture import (
    GREY,
    UNIT,
    Array,
    Mouth,
    cut_mouths,
    lips_beyond_skin,
    tooth_colors,
)

if TYPE_CHECKING:
    from portrait_core.tracking.trackers import Frames

_INSIDE, _PALE = 0.75, 0.92  # the mouth's inside: lightness and redness over the lips', at most
_BLACK = 0.5  # lightness over the lips' of what is inside whatever its hue
_GREY_INSIDE = 0.72  # the same lightness in a picture without colours
_LINE, _GREY_LINE = 4, 9  # height in pixels of what is taken for the dark line between closed lips
_HIGH = 8  # pixels from which an opening is more than the line of closed lips
_SPECK = 40  # pixels
_APART_FROM, _APART_OVER = 0.08, 0.04
"""Distance of the lips up to which landmarks are not believed, and the further one until they are; pressed
lips are read with up to .07 between them."""
_MIDDLE_THIRD = slice(22, 43)
_WITHIN = 0.3  # share of a part that lies between the middles of the lips, at least


@dataclass(frozen=True)
class Parts:
    """Masks of the pixels inside the lips' contour, ``[S,S]`` each: dark, tooth, and all that is open."""

    dark: NDArray[np.bool_]
    tooth: NDArray[np.bool_]
    open: NDArray[np.bool_]


def classify(mouth: Mouth, lips: Array, skin: Array) -> Parts:
    """Find teeth and the dark inside, given the colours of lips and skin ``[3]`` in CIELAB."""
    light, red = mouth.lab[..., 0], mouth.lab[..., 1]
    black = light < _BLACK * lips[0]
    if float(np.hypot(skin[1], skin[2])) > GREY:
        dark = black | ((light < _INSIDE * lips[0]) & (red < _PALE * lips[1]))
    else:
        dark = black | _tall(light < _GREY_INSIDE * lips[0], _GREY_LINE)
    tooth = tooth_colors(mouth.lab, skin, lips)
    either = (dark | tooth) & mouth.inside
    lip = mouth.inside & ~either
    above, below = np.cumsum(lip, axis=0) >= 3, np.cumsum(lip[::-1], axis=0)[::-1] >= 3
    # the hair of a moustache is as dark as the mouth, and hides the lip above the teeth
    under_hair = tooth & (np.cumsum(mouth.inside & ~tooth, axis=0) >= 3)
    found = _large(_tall(either & (above | under_hair) & below, _LINE), mouth.between)
    return Parts(dark & found, tooth & ~dark & found, found)


def _tall(mask: NDArray[np.bool_], height: int) -> NDArray[np.bool_]:
    """Drop what is less than ``height`` pixels high."""
    element = np.ones((height, 1), np.uint8)
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, element) > 0)


def _large(mask: NDArray[np.bool_], between: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop specks, and connected parts that lie on the lips or outside rather than between them."""
    count, label = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    size = np.bincount(label.ravel(), minlength=count)
    share = np.bincount(label.ravel(), between.ravel(), minlength=count) / np.maximum(size, 1)
    keep = (size >= _SPECK) & (share >= _WITHIN)
    keep[0] = False
    return np.asarray(keep[label])


def measure_lips(frames: Frames, points: NDArray[np.floating]) -> dict[str, Array]:
    """Measure what shows between the lips.

    The lips' colour is that of the whole clip, so that its frames are gone through twice; one frame at a time
    is in memory.

    Args:
        frames: gives the T frames ``[H,W,3]`` uint8 RGB of one person; called twice.
        points: landmarks ``[T,478,2]`` in pixels of the frames, y down; NaN rows give NaN.

    Returns:
        Arrays ``[T]``, over the distance of the outer eye corners: ``mouth open``, the mean height between
        the lips over the mouth's middle third; ``teeth shown``, the mean height of the teeth there. Neither
        depends on how wide a person's mouth is.

    Raises:
        ValueError: there are more or fewer than T frames.
    """
    faces = np.flatnonzero(seen(points))
    teeth, height = np.full(len(points), np.nan), np.full(len(points), np.nan)
    if len(faces):
        beyond = lips_beyond_skin(frames(), points)
        for i, mouth in cut_mouths(frames(), points, faces):
            parts = classify(mouth, mouth.lips_of(beyond), mouth.skin)
            teeth[i] = parts.tooth[:, _middle_third(mouth.points)].sum(axis=0).mean() / UNIT
            height[i] = _height(parts.open, mouth.points)
    return {TEETH_SHOWN: teeth, MOUTH_OPEN: height}


def _height(opened: NDArray[np.bool_], points: Array) -> float:
    """Return the mean height of the opening over the middle third between the corners, over :data:`UNIT`.

    Where something high is open, what lies above the lowest edge of its convex outline is open too: the
    tongue before the dark corners. A tongue that fills the mouth to its lips has their colour; the opening is
    at least that of the inner lips where the landmarks see them farther apart than they see closed ones.
    """
    first, last = _edges(opened)
    if (last - first).max() >= _HIGH:
        outline = cv2.convexHull(np.argwhere(opened)[:, ::-1].astype(np.int32))
        hull = np.zeros(opened.shape, np.uint8)
        cv2.fillConvexPoly(hull, outline, 1)
        hull_first, last = _edges(hull > 0)
        first = np.where(first < len(opened), first, hull_first)
    by_color = float(np.clip(last - first + 1, 0, None)[_middle_third(points)].mean() / UNIT)
    lips = Opening.from_points(*(points[list(line)] for line in INNER_LIPS))
    apart = float(lips.gap[_MIDDLE_THIRD].mean() / UNIT)
    return max(by_color, apart * float(eased(np.asarray((apart - _APART_FROM) / _APART_OVER))))


def _middle_third(points: Array) -> slice:
    """Return the columns of the middle third between the mouth's corners; one at least."""
    left, right = points[61, 0], points[291, 0]
    low, high = round(left + (right - left) / 3), round(left + 2 * (right - left) / 3)
    return slice(low, max(high, low + 1))


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last row of each column; the height and -1 where there is none."""
    rows = np.arange(len(mask))[:, None]
    return np.where(mask, rows, len(mask)).min(axis=0), np.where(mask, rows, -1).max(axis=0)
