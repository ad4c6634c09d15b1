"""Teeth and open mouth read by colour inside the lips' contour, whatever the landmarks say of the lip gap.

The landmark network reads pressed lips as a gap and a toothy smile as a small one. Here its points only
tell where the mouth is: the lips' outer contour, and patches of cheek and lip for their colours. Pixels
inside are lip, tooth (about as light as the skin and paler or less red) or dark, relative to the face's own
colours; in a black-and-white picture lightness alone decides. A tongue of the lips' colour that fills the
mouth to its edge, and gums, are taken for lip: the opening is then read too small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import EYE_OUTER
from portrait_core.metrics.follow import MOUTH_OPEN, TEETH_SHOWN, spread_evenly
from portrait_core.tracking.crop import sample_square

Array = NDArray[np.float64]
Frames = Callable[[], Iterable[NDArray[np.uint8]]]
"""Function that returns the frames ``[H,W,3]`` of a clip, from the first on, at every call."""

COLOURS_READ = 240
"""At most so many frames, evenly spread, say what colour a person's lips have."""
UNIT = 100
"""Pixels of the resampled mouth over the distance of the outer eye corners."""
_SIDE = 1.6  # side of the resampled mouth over the same distance
_SIZE = int(UNIT * _SIDE)
_WIDER, _LOWER = 5, 8  # pixels by which the lips' contour is widened, and down: it lags behind open mouths
_INSIDE, _PALE = 0.75, 0.92  # the mouth's inside: lightness and redness over the lips', at most
_BLACK = 0.5  # lightness over the lips' of what is inside whatever its hue
_TOOTH_LIGHT, _TOOTH_CHROMA = 0.78, 0.8  # a tooth's lightness over the skin's, at least; its chroma, at most
_LIGHT, _LIGHTER, _LESS_RED = 0.95, 6.0, 0.8  # or: over the skin's, beyond the lips', redness over the lips'
_GREY = 5.0  # chroma of skin below which a picture has no colours
_GREY_INSIDE, _GREY_TOOTH = 0.72, 0.95  # of such pictures: lightness over the lips' and over the skin's
_LINE, _GREY_LINE = 4, 9  # height in pixels of what is taken for the dark line between closed lips
_HIGH = 8  # pixels from which an opening is more than the line of closed lips
_SPECK = 40  # pixels
_WITHIN = 0.3  # share of a part that lies between the middles of the lips, at least

UPPER_OUTER = np.array([61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291])
LOWER_OUTER = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291])
UPPER_INNER = np.array([78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308])
LOWER_INNER = np.array([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308])
_CHEEKS = np.array([50, 280, 205, 425, 101, 330])
_LOWER_LIP = ((17, 14), (84, 87), (314, 317), (181, 178), (405, 402))
_UPPER_LIP = ((37, 82), (267, 312), (39, 81), (269, 311), (0, 13))


@dataclass(frozen=True)
class Mouth:
    """A mouth cut out, level with the eyes, :data:`UNIT` pixels to the distance of the outer eye corners.

    Attributes:
        lab: CIELAB ``[S,S,3]``.
        inside: the lips' contour, widened ``[S,S]``.
        between: what lies between the middles of the lips ``[S,S]``, by the landmarks.
        points: landmarks ``[478,2]`` in its pixels.
        skin, lips: median CIELAB colours ``[3]``.
    """

    lab: Array
    inside: NDArray[np.bool_]
    between: NDArray[np.bool_]
    points: Array
    skin: Array
    lips: Array

    @classmethod
    def cut(cls, frame: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> Mouth:
        """Cut the mouth of ``frame [H,W,3]`` with landmarks ``[478,2]`` in its pixels."""
        p = np.asarray(landmarks, np.float64)
        across = p[EYE_OUTER[1]] - p[EYE_OUTER[0]]
        eyes, angle = float(np.linalg.norm(across)), float(np.arctan2(across[1], across[0]))
        centre = p[[61, 291, 0, 17]].mean(0)
        patch = sample_square(frame, centre, _SIDE * eyes, angle, _SIZE, cubic=True)
        lab = cv2.cvtColor(patch.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float64)
        cos, sin = np.cos(angle), np.sin(angle)
        points = (p - centre) @ np.array([[cos, -sin], [sin, cos]]) * (UNIT / eyes) + _SIZE / 2
        outer = points[np.concatenate([UPPER_OUTER, LOWER_OUTER[::-1]])]
        inner = points[np.concatenate([UPPER_INNER, LOWER_INNER[::-1]])]
        round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _WIDER + 1,) * 2)
        inside = cv2.dilate(_filled(outer), round_)
        # an element that reaches up from each pixel carries the contour down
        down = np.zeros((2 * _LOWER + 1, 1), np.uint8)
        down[: _LOWER + 1] = 1
        inside = cv2.dilate(inside, down)
        lips = np.array([0.6 * points[o] + 0.4 * points[i] for o, i in (*_LOWER_LIP, *_UPPER_LIP)])
        between = _filled((outer + inner) / 2)
        return cls(lab, inside > 0, between > 0, points, _colour(lab, points[_CHEEKS]), _colour(lab, lips))


def _colour(lab: Array, places: Array) -> Array:
    """Return the median of 5 x 5 pixels around places ``[n,2]``, then of the places."""
    x, y = np.clip(places.astype(int), 2, _SIZE - 3).T
    around = [
        np.median(lab[b - 2 : b + 3, a - 2 : a + 3].reshape(-1, 3), axis=0) for a, b in zip(x, y, strict=True)
    ]
    return np.asarray(np.median(around, axis=0))


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
    chroma = np.hypot(mouth.lab[..., 1], mouth.lab[..., 2])
    own = float(np.hypot(skin[1], skin[2]))
    if own > _GREY:
        dark = black | ((light < _INSIDE * lips[0]) & (red < _PALE * lips[1]))
        tooth = (light > _TOOTH_LIGHT * skin[0]) & (chroma < _TOOTH_CHROMA * own)
        tooth |= (light > max(_LIGHT * skin[0], lips[0] + _LIGHTER)) & (red < _LESS_RED * lips[1])
    else:
        dark = black | _tall(light < _GREY_INSIDE * lips[0], _GREY_LINE)
        tooth = light > max(_GREY_TOOTH * skin[0], lips[0] + _LIGHTER)
    either = (dark | tooth) & mouth.inside
    lip = mouth.inside & ~either
    above, below = np.cumsum(lip, axis=0) >= 3, np.cumsum(lip[::-1], axis=0)[::-1] >= 3
    found = _large(_tall(either & above & below, _LINE), mouth.between)
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


def _filled(ring: Array) -> NDArray[np.uint8]:
    mask = np.zeros((_SIZE, _SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round((ring - 0.5) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask


def measure_lips(frames: Frames, points: NDArray[np.floating]) -> dict[str, Array]:
    """Measure what shows between the lips.

    The lips' colour is that of the whole clip, so that its frames are gone through twice; one frame at a time
    is in memory.

    Args:
        frames: gives the T frames ``[H,W,3]`` uint8 RGB of one person; called twice.
        points: landmarks ``[T,478,2]`` in pixels of the frames, y down; NaN rows give NaN.

    Returns:
        Arrays ``[T]``: ``teeth shown``, the teeth's area over the squared distance of the outer eye corners;
        ``mouth open``, the mean height between the lips over the mouth's middle third, over that distance.

    Raises:
        ValueError: there are more or fewer than T frames.
    """
    seen = np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))
    teeth, height = np.full(len(points), np.nan), np.full(len(points), np.nan)
    if len(seen):
        # lips keep their colour relative to the skin, while their places slip onto teeth and back
        some = _mouths(frames(), points, spread_evenly(seen, COLOURS_READ))
        beyond = np.median([mouth.lips - mouth.skin for _, mouth in some], axis=0)
        for i, mouth in _mouths(frames(), points, seen):
            parts = classify(mouth, mouth.skin + beyond, mouth.skin)
            teeth[i] = parts.tooth.sum() / UNIT**2
            height[i] = _height(parts.open, mouth.points)
    return {TEETH_SHOWN: teeth, MOUTH_OPEN: height}


def _mouths(
    frames: Iterable[NDArray[np.uint8]], points: NDArray[np.floating], wanted: NDArray[np.intp]
) -> Iterator[tuple[int, Mouth]]:
    """Cut the mouths of the ``wanted [n]`` of T frames with landmarks ``[T,478,2]``, each with its number."""
    chosen = set(wanted.tolist())
    for i, (frame, one) in enumerate(zip(frames, points, strict=True)):
        if i in chosen:
            yield i, Mouth.cut(frame, one)


def _height(opened: NDArray[np.bool_], points: Array) -> float:
    """Return the mean height of the opening over the middle third between the corners, over :data:`UNIT`.

    Where something high is open, what lies above the lowest edge of its convex outline is open too: the
    tongue before the dark corners.
    """
    left, right = points[61, 0], points[291, 0]
    low, high = round(left + (right - left) / 3), round(left + 2 * (right - left) / 3)
    first, last = _edges(opened)
    if (last - first).max() >= _HIGH:
        outline = cv2.convexHull(np.argwhere(opened)[:, ::-1].astype(np.int32))
        hull = np.zeros(opened.shape, np.uint8)
        cv2.fillConvexPoly(hull, outline, 1)
        hull_first, last = _edges(hull > 0)
        first = np.where(first < len(opened), first, hull_first)
    return float(np.clip(last - first + 1, 0, None)[low:high].mean() / UNIT)


def _edges(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last row of each column; the height and -1 where there is none."""
    rows = np.arange(len(mask))[:, None]
    return np.where(mask, rows, len(mask)).min(axis=0), np.where(mask, rows, -1).max(axis=0)
