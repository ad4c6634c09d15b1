"""The mouth cut out of a frame, level with the eyes and of one size, with the person's colours.

Landmarks only tell where the mouth is and where to look for the colours of skin and lips; what shows there is
read from the pixels, by :mod:`portrait_core.tracking.mouth_inside` and
:mod:`portrait_core.metrics.lip_colors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.landmark_regions import INNER_LIPS, OUTER_LIPS
from portrait_core.face_model.topology import EYE_OUTER
from portrait_core.tracking.crop import sample_square
from portrait_core.tracking.measure import seen, spread_evenly

Array = NDArray[np.float64]
COLOURS_READ = 240
"""At most so many frames, evenly spread, say what colour a person's lips have."""
UNIT = 100
"""Pixels of the resampled mouth over the distance of the outer eye corners."""
GREY = 5.0
"""Chroma of skin, in CIELAB, below which a picture has no colours."""
_TOOTH_LIGHT, _TOOTH_CHROMA = 0.78, 0.8  # a tooth's lightness over the skin's, at least; its chroma, at most
_LIGHT, _LIGHTER, _LESS_RED = 0.95, 6.0, 0.8  # or: over the skin's, beyond the lips', redness over the lips'
_SIDE = 1.6  # side of the resampled mouth over the same distance
SIZE = int(UNIT * _SIDE)
"""Side of the resampled mouth in pixels."""
_WIDER, _LOWER = 5, 8  # pixels by which the lips' contour is widened, and down: it lags behind open mouths

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
        patch = sample_square(frame, centre, _SIDE * eyes, angle, SIZE, cubic=True)
        lab = cv2.cvtColor(patch.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float64)
        cos, sin = np.cos(angle), np.sin(angle)
        points = (p - centre) @ np.array([[cos, -sin], [sin, cos]]) * (UNIT / eyes) + SIZE / 2
        outer = points[np.concatenate([OUTER_LIPS.upper, OUTER_LIPS.lower[::-1]])]
        inner = points[np.concatenate([INNER_LIPS.upper, INNER_LIPS.lower[::-1]])]
        round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _WIDER + 1,) * 2)
        inside = cv2.dilate(_filled(outer), round_)
        # an element that reaches up from each pixel carries the contour down
        down = np.zeros((2 * _LOWER + 1, 1), np.uint8)
        down[: _LOWER + 1] = 1
        inside = cv2.dilate(inside, down)
        lips = np.array([0.6 * points[o] + 0.4 * points[i] for o, i in (*_LOWER_LIP, *_UPPER_LIP)])
        between = _filled((outer + inner) / 2)
        return cls(lab, inside > 0, between > 0, points, _colour(lab, points[_CHEEKS]), _colour(lab, lips))

    def lips_of(self, beyond: Array) -> Array:
        """Return the lips' colour ``[3]`` that lies by ``beyond [3]`` beyond this frame's skin."""
        return np.asarray(self.skin + beyond)


def _colour(lab: Array, places: Array) -> Array:
    """Return the median of 5 x 5 pixels around places ``[n,2]``, then of the places."""
    x, y = np.clip(places.astype(int), 2, SIZE - 3).T
    around = [
        np.median(lab[b - 2 : b + 3, a - 2 : a + 3].reshape(-1, 3), axis=0) for a, b in zip(x, y, strict=True)
    ]
    return np.asarray(np.median(around, axis=0))


def tooth_colors(lab: Array, skin: Array, lips: Array) -> NDArray[np.bool_]:
    """Tell which colours ``[...,3]`` in CIELAB are a tooth's in full light, beside skin and lips ``[3]``.

    Where there are no colours, lightness alone decides.
    """
    light, red, own = lab[..., 0], lab[..., 1], float(np.hypot(skin[1], skin[2]))
    lighter = light > max(_LIGHT * skin[0], lips[0] + _LIGHTER)
    if own <= GREY:
        return np.asarray(lighter)
    pale = (light > _TOOTH_LIGHT * skin[0]) & (np.hypot(red, lab[..., 2]) < _TOOTH_CHROMA * own)
    return np.asarray(pale | (lighter & (red < _LESS_RED * lips[1])))


def lips_beyond_skin(frames: Iterable[NDArray[np.uint8]], points: NDArray[np.floating]) -> Array:
    """Return by how much the lips' colour lies beyond the skin's ``[3]``, in CIELAB: the clip's median.

    Lips keep their colour relative to the skin, while the places where they are looked for slip onto teeth
    and back.

    Args:
        frames: the T frames ``[H,W,3]`` of one person, uint8 RGB.
        points: landmarks ``[T,478,2]`` in their pixels, y down; a face is seen in one at least.
    """
    some = spread_evenly(np.flatnonzero(seen(points)), COLOURS_READ)
    return np.asarray(
        np.median([mouth.lips - mouth.skin for _, mouth in cut_mouths(frames, points, some)], axis=0)
    )


def cut_mouths(
    frames: Iterable[NDArray[np.uint8]], points: NDArray[np.floating], wanted: NDArray[np.intp]
) -> Iterator[tuple[int, Mouth]]:
    """Cut the mouths of the ``wanted [n]`` of T frames with landmarks ``[T,478,2]``, each with its number."""
    chosen = set(wanted.tolist())
    for i, (frame, one) in enumerate(zip(frames, points, strict=True)):
        if i in chosen:
            yield i, Mouth.cut(frame, one)


def _filled(ring: Array) -> NDArray[np.uint8]:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round((ring - 0.5) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask
