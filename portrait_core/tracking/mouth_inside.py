"""Reading of a driver's open mouth: the height of either row of teeth, and the light of the rest.

Landmarks end at the lips. Whether an open mouth shows its upper teeth, its lower ones, a tongue or nothing is
read from the pixels within the inner lips, column by column: teeth are lighter or less red than lips and
tongue. All of it is told in shares, of the opening's height and of the skin's lightness, so that it holds for
another mouth in another light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from portrait_core.face_model.contours import Opening
from portrait_core.face_model.easing import eased
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.face_model.topology import EYE_OUTER
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

LIGHT_SIZE = 9, 12
"""Cells, down and along the opening, of which it is told how light they are."""
_ALONG = np.linspace(0.03, 0.97, 48)
"""Columns in which the opening is read, along its chord."""
_MIDDLE_COLUMNS = slice(9, 39)
"""Those of them in which rows of teeth are measured, from .2 to .8 of the chord."""
_DOWN = (np.arange(36) + 0.5) / 36
"""Rows in which it is read, as shares of its height."""
_OPEN_FROM, _OPEN_OVER = 0.025, 0.03
"""Mean height of the opening, over the distance of the outer eye corners, from which what shows in it begins
to count, and the further height until it does in full."""
_EYES_FROM_PX, _EYES_OVER_PX = 20.0, 20.0
"""The same of that distance in pixels of the frame: teeth of smaller faces are no pixel high."""
_SHADED_LIGHT, _SHADED_OF_LIPS, _SHADED_RED = 0.55, 0.8, 0.45
"""Of a tooth in the lips' shade: lightness over the skin's and over the lips', redness over the lips'."""
_DARK, _PALE = 0.75, 0.92
"""Lightness and redness over the lips' of what is no tooth but the mouth's depth, at most."""
_AT_EDGE, _LEAST = 0.35, 2
"""Share of the opening's height within which a row of teeth begins at its lip, and its smallest height in
rows."""
_LIP_BELOW = 0.4
"""Share of the height below the upper teeth up to which what is neither tooth nor dark is the lower lip."""
_MIDDLE = 0.6
"""Share of the height above which the middle of the upper row lies."""
_BESIDE_LIPS = 1.5
"""Pixels beside the lips that do not say how light the inside is."""
_FILL, _FAR = 0.8, 0.01
"""Deviation in cells of the blur that fills those without samples, and the weight there of all the rest."""
_WELL_READ = 0.3
"""Share of a cell's samples that must count for it to be its own."""
_STEADY = 3
"""Frames over which a reading's median is taken: single ones slip."""
_USUAL_LIGHT = 0.4
"""Lightness of the inside, over the skin's, of a clip that never shows it."""


class ToldMouth(NamedTuple):
    """One frame of :class:`MouthInside`."""

    upper: float
    """Height of the upper teeth that show, over the opening's, 0..1."""
    lower: float
    """The same of the lower teeth."""
    certain: float
    """Weight of the reading, 0..1."""
    light: NDArray[np.float32]
    """Lightness of the rest over the skin's ``[9,12]``."""


@dataclass(frozen=True)
class MouthInside:
    """What shows between the lips in T frames.

    Attributes:
        teeth: ``[T,3]``: height of the upper and of the lower teeth that show, over the opening's height,
            0..1 and at most 1 together; and how far the frame's reading counts, 0..1, since nothing shows in
            a closed mouth.
        light: lightness of what is no tooth, over the skin's ``[T,9,12]``: from the upper lip to the lower
            one, from the corner at the image's left to the other. Behind teeth it is that beside them.
    """

    teeth: NDArray[np.float32]
    light: NDArray[np.float32]

    def frames(self) -> list[ToldMouth]:
        """Return the T frames one by one."""
        rows = zip(self.teeth.tolist(), self.light, strict=True)
        return [ToldMouth(upper, lower, certain, light) for (upper, lower, certain), light in rows]


def read_mouth_inside(frames: Frames, points: NDArray[np.floating]) -> MouthInside:
    """Read what shows between the lips of a person in every frame of a clip.

    The frames are gone through twice, one at a time, since the lips' colour is that of the whole clip.

    Args:
        frames: gives the T frames ``[H,W,3]`` uint8 RGB; called twice.
        points: landmarks ``[T,478,2]`` in pixels of the frames, y down; NaN rows where there is no face.

    Returns:
        T frames. Those that show nothing, or no face, count as 0 and have what is read before and after them.

    Raises:
        ValueError: there are more or fewer than T frames.
    """
    teeth, light = np.full((len(points), 3), np.nan), np.full((len(points), *LIGHT_SIZE), np.nan)
    faces = np.flatnonzero(seen(points))
    if len(faces):
        beyond = lips_beyond_skin(frames(), points)
        eyes_px = np.linalg.norm(points[:, EYE_OUTER[1]] - points[:, EYE_OUTER[0]], axis=1)
        for i, mouth in cut_mouths(frames(), points, faces):
            found = _read(mouth, mouth.lips_of(beyond), float(eyes_px[i]))
            if found is not None:
                teeth[i], light[i] = found
    certain = np.nan_to_num(teeth[:, 2:])
    steady = np.concatenate([_steady(teeth[:, :2], 0.0), certain], axis=1)
    lightness = _steady(light.reshape(len(light), -1), _USUAL_LIGHT).reshape(light.shape)
    return MouthInside(steady.astype(np.float32), lightness.astype(np.float32))


def _read(mouth: Mouth, lips: Array, eyes_px: float) -> tuple[Array, Array] | None:
    """Read teeth ``[3]`` and light ``[9,12]`` of a mouth whose lips have the colour ``lips [3]``.

    None where it is closed or too small.
    """
    opening = Opening.from_points(*(mouth.points[list(line)] for line in INNER_LIPS))
    top, bottom = opening.edges(_ALONG)
    height = (bottom - top).astype(np.float64)
    middle = height[_MIDDLE_COLUMNS]
    shares = (middle.mean() / UNIT - _OPEN_FROM) / _OPEN_OVER, (eyes_px - _EYES_FROM_PX) / _EYES_OVER_PX
    certain = float(eased(np.array(shares)).prod())
    if certain <= 0:
        return None
    x, y = opening.position(_ALONG[None], top + _DOWN[:, None] * height)
    lab = cv2.remap(mouth.lab.astype(np.float32), x - 0.5, y - 0.5, cv2.INTER_LINEAR).astype(np.float64)
    tooth = _teeth(lab, mouth.skin, lips)
    within = tooth | (lab[..., 0] < _DARK * lips[0])
    columns = zip(tooth.T[_MIDDLE_COLUMNS], within.T[_MIDDLE_COLUMNS], strict=True)
    rows = np.array([_rows(*one) for one in columns]) * middle[:, None]
    beside = np.minimum(_DOWN, 1.0 - _DOWN)[:, None] * height > _BESIDE_LIPS
    light = _coarse(lab[..., 0] / max(float(mouth.skin[0]), 1.0), beside & ~tooth)
    return np.array([*rows.mean(0) / middle.mean(), certain]), light


def _coarse(light: Array, counts: NDArray[np.bool_]) -> Array:
    """Average ``light [n,m]`` into ``[9,12]`` cells over what counts; others take their neighbours'.

    NaN where nothing counts.
    """
    known, total = counts.astype(np.float64), np.where(counts, light, 0.0)
    cells = (LIGHT_SIZE[1], LIGHT_SIZE[0])
    weight, value = (cv2.resize(part, cells, interpolation=cv2.INTER_AREA) for part in (known, total))
    if not weight.any():
        return np.full(LIGHT_SIZE, np.nan)
    near, around = (cv2.GaussianBlur(part, (0, 0), _FILL) for part in (weight, value))
    wide, far = (part.mean() for part in (weight, value))
    filled = (around + _FAR * far) / (near + _FAR * wide)
    share = np.minimum(weight / _WELL_READ, 1.0)
    return np.asarray(filled + share * (value / np.maximum(weight, 1e-6) - filled))


def _teeth(lab: Array, skin: Array, lips: Array) -> NDArray[np.bool_]:
    """Tell which colours ``[...,3]`` in CIELAB are teeth, beside those of skin and lips ``[3]``."""
    tooth = tooth_colors(lab, skin, lips)
    if float(np.hypot(skin[1], skin[2])) <= GREY:
        return tooth
    light, red = lab[..., 0], lab[..., 1]
    shaded = light > max(_SHADED_LIGHT * skin[0], _SHADED_OF_LIPS * lips[0])
    tooth |= shaded & (red < _SHADED_RED * lips[1])
    return np.asarray(tooth & ~((light < _DARK * lips[0]) & (red < _PALE * lips[1])))


def _rows(column: NDArray[np.bool_], within: NDArray[np.bool_]) -> tuple[float, float]:
    """Return how high the upper and the lower teeth are in a column, as shares of its height.

    Where nothing but a little lip lies below the upper teeth, they reach the lip: the contour of lips that
    smile lies lower than they do.

    Args:
        column: what is tooth, from the upper lip to the lower one ``[n]``.
        within: what is tooth or dark ``[n]``.
    """
    count = len(column)
    steps = np.diff(np.concatenate([[False], column, [False]]).astype(int))
    upper = lower = 0.0
    for first, end in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        if end - first < _LEAST:
            continue
        if first <= _AT_EDGE * count and (first + end) / 2 < _MIDDLE * count:
            upper = max(upper, end / count)
            if count - end <= _LIP_BELOW * count and not within[end + 1 :].any():
                upper = 1.0
        elif end >= (1.0 - _AT_EDGE) * count:
            lower = max(lower, 1.0 - first / count)
    return upper, min(lower, 1.0 - upper)


def _steady(found: Array, usual: float) -> Array:
    """Fill what was not read in ``[T,n]`` from before and after, and drop what single frames alone have."""
    frames, out = np.arange(len(found)), found.copy()
    read = np.isfinite(found).all(axis=1)
    for column in out.T:
        column[:] = np.interp(frames, frames[read], column[read]) if read.any() else usual
    return median_filter(out, size=(_STEADY, 1), mode="nearest") if len(out) >= _STEADY else out
