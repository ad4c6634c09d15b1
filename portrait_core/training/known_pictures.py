"""Photographs with changes of known amount, to calibrate readers of expressions.

A region's landmarks are moved and a smooth field carries the photograph's pixels with them, so the truth is
the reader's own points on the original photograph, moved by that field. What a field cannot show is painted:
the eyeball behind a lid, a moved iris, the mouth interior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import (
    BROWS,
    EYE_LEFT,
    EYE_OUTER,
    EYE_RIGHT,
    FACE_OVAL,
    IRIS_LEFT,
    IRIS_RIGHT,
    MIRROR,
)
from portrait_core.metrics.smooth_field import Array, Field, Picture, laid_over, pixel_places, polygon
from portrait_core.tracking.crop import crop_image, points_in_crop

CANVAS = 1024
"""Side of the changed pictures, in pixels; readers get smaller pictures made from them."""
CANVAS_IN_EYES = 4.2
"""Side of the canvas over the distance of the outer eye corners."""
CROP_IN_EYES = 3.5
"""Side of the pipeline's crop over the same distance."""
MOUTH_REACH, BROW_REACH = 0.22, 0.18
"""Distance over which the skin follows a moved mouth and brow, relative to that of the outer eye corners."""
_BELOW_EYES = 0.2  # distance of both centres below the middle of the eyes, over the same distance

UPPER_INNER = np.array([78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308])
LOWER_INNER = np.array([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308])
UPPER_OUTER = np.array([61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291])
LOWER_OUTER = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291])
CHIN = np.array([18, 200, 199, 175, 152, 83, 313, 201, 421, 148, 377])
_CHEEKS = np.array([33, 133, 362, 263, 145, 374, 2, 98, 327, 205, 425, 50, 280, 214, 434, 172, 397, 58, 288])
_EYES = np.concatenate([EYE_RIGHT, EYE_LEFT])
# few points far apart give a field that decays where it should
_MOUTH = np.array([61, 291, 0, 17, 13, 14, 40, 270, 91, 321])
_AROUND = np.concatenate([[33, 133, 362, 263, 145, 374, 1, 2, 98, 327, 199], FACE_OVAL[::3]])
_UPPER_LID = {"right": np.array([246, 161, 160, 159, 158, 157, 173])}
_LOWER_LID = {"right": np.array([7, 163, 144, 145, 153, 154, 155])}
_UPPER_LID["left"], _LOWER_LID["left"] = MIRROR[_UPPER_LID["right"]], MIRROR[_LOWER_LID["right"]]
_LID_CORNERS = {"right": (33, 133), "left": (263, 362)}
_BROW_RIGHT = BROWS[:10]
_INNER_BROW = {107: 1.0, 55: 1.0, 66: 0.7, 65: 0.7, 105: 0.3, 52: 0.3}
_OUTER_BROW = {70: 1.0, 46: 1.0, 63: 0.7, 53: 0.7, 105: 0.3, 52: 0.3}


@dataclass(frozen=True)
class Subject:
    """A photograph of a face on a canvas of :data:`CANVAS` pixels.

    Attributes:
        image: ``[CANVAS,CANVAS,3]`` uint8.
        points: a reader's landmarks of it ``[478,2]`` in pixels of the canvas.
    """

    image: Picture
    points: Array

    @classmethod
    def of(cls, photograph: Picture, landmarks: NDArray[np.floating]) -> Subject:
        """Cut a photograph ``[H,W,3]`` with landmarks ``[478,2]`` in pixels of it."""
        centre, eyes = _frame(np.asarray(landmarks, np.float64))
        side = CANVAS_IN_EYES * eyes
        image = crop_image(photograph, centre, side, CANVAS)
        return cls(image, points_in_crop(landmarks, centre, side, CANVAS).astype(np.float64))

    @property
    def eyes(self) -> float:
        """Distance of the outer eye corners in pixels."""
        return float(np.linalg.norm(self.points[EYE_OUTER[0]] - self.points[EYE_OUTER[1]]))

    @property
    def axes(self) -> Array:
        """Unit vectors ``[2,2]`` across the face (to the image's right) and up it, as rows; y points down."""
        across = (self.points[EYE_OUTER[1]] - self.points[EYE_OUTER[0]]) / self.eyes
        return np.stack([across, [across[1], -across[0]]])


@dataclass(frozen=True)
class Known:
    """A changed photograph and its truth.

    Attributes:
        image: ``[S,S,3]`` uint8.
        points: landmarks ``[478,2]`` in pixels.
        teeth: share of the lips' gap that is painted with teeth; NaN where the mouth interior was not
            painted.
    """

    image: Picture
    points: Array
    teeth: float = float("nan")

    def seen(self, size: int, phase: tuple[float, float] = (0.0, 0.0)) -> Known:
        """Shrink to the pipeline's crop of ``size`` pixels, shifted by ``phase`` (x, y) of its pixels."""
        side = CANVAS * CROP_IN_EYES / CANVAS_IN_EYES
        centre = np.full(2, CANVAS / 2) + np.array(phase) * (side / size)
        points = points_in_crop(self.points, centre, side, size).astype(np.float64)
        return Known(crop_image(self.image, centre, side, size), points, self.teeth)


def _frame(points: Array) -> tuple[Array, float]:
    """Return the centre of the crop around landmarks and the outer eye corners' distance, in pixels."""
    first, second = points[EYE_OUTER[0]], points[EYE_OUTER[1]]
    eyes = float(np.linalg.norm(second - first))
    down = np.array([first[1] - second[1], second[0] - first[0]]) / eyes
    return (first + second) / 2 + _BELOW_EYES * eyes * down, eyes


def _carried(subject: Subject, moves: dict[int, Array], still: NDArray[np.integer], reach: float) -> Known:
    """Move landmarks by displacements in pixels; ``reach`` is relative to the eyes' distance."""
    moving = np.array(list(moves))
    still = np.setdiff1d(still, moving)
    index = np.concatenate([moving, still])
    shift = np.concatenate([np.stack(list(moves.values())), np.zeros((len(still), 2))])
    old = subject.points[index]
    field = _unfolded(Field.through(old, old + shift, reach * subject.eyes))
    return Known(field.warp(subject.image), field.moved(subject.points))


def widen_mouth(subject: Subject, amount: float) -> Known:
    """Widen the mouth by ``amount`` of the distance of the outer eye corners."""
    along = (subject.points[_MOUTH] - subject.points[[61, 291]].mean(0)) @ subject.axes[0]
    share = amount * subject.eyes / float(np.ptp(along))
    moves = {int(i): share * a * subject.axes[0] for i, a in zip(_MOUTH, along, strict=True)}
    return _carried(subject, moves, _AROUND, MOUTH_REACH)


def lift_corners(subject: Subject, amount: float, sides: Sequence[int] = (61, 291)) -> Known:
    """Raise the corners of the mouth (61 right, 291 left) by ``amount`` of the eyes' distance."""
    along = (subject.points[_MOUTH] - subject.points[[13, 14]].mean(0)) @ subject.axes[0]
    half = {61: float(-along.min()), 291: float(along.max())}
    moves = {}
    for i, a in zip(_MOUTH, along, strict=True):
        side = 61 if a < 0 else 291
        share = (a / half[side]) ** 2 if side in sides else 0.0
        moves[int(i)] = amount * subject.eyes * share * subject.axes[1]
    return _carried(subject, moves, _AROUND, MOUTH_REACH)


def tilt_corners(subject: Subject, amount: float) -> Known:
    """Raise the right corner of the mouth alone, by ``amount`` of the eyes' distance."""
    return lift_corners(subject, amount, (61,))


def _raise_brows(subject: Subject, shares: dict[int, float], amount: float, both: bool) -> Known:
    up = amount * subject.eyes * subject.axes[1]
    moves = {i: share * up for i, share in shares.items()}
    if both:
        moves |= {int(MIRROR[i]): share * up for i, share in shares.items()}
    return _carried(subject, moves, np.concatenate([_EYES, BROWS]), BROW_REACH)


def raise_inner_brows(subject: Subject, amount: float) -> Known:
    """Raise the inner ends of both brows by ``amount`` of the eyes' distance."""
    return _raise_brows(subject, _INNER_BROW, amount, both=True)


def raise_outer_brows(subject: Subject, amount: float) -> Known:
    """Raise the outer ends of both brows by ``amount`` of the eyes' distance."""
    return _raise_brows(subject, _OUTER_BROW, amount, both=True)


def raise_right_brow(subject: Subject, amount: float) -> Known:
    """Raise the whole right brow by ``amount`` of the eyes' distance."""
    return _raise_brows(subject, {int(i): 1.0 for i in _BROW_RIGHT}, amount, both=False)


def _close_lid(subject: Subject, amount: float, side: str) -> Known:
    """Draw the skin above the upper lid's edge down over the eyeball, which stays unchanged."""
    upper, lower, corners = _UPPER_LID[side], _LOWER_LID[side], _LID_CORNERS[side]
    path = subject.points[lower] - subject.points[upper]
    moves = {int(i): amount * step for i, step in zip(upper, path, strict=True)}
    closed = _carried(subject, moves, np.concatenate([BROWS, corners]), 0.1)
    edge = closed.points[[corners[0], *upper, corners[1]]]
    rise = subject.axes[1] * 0.3 * subject.eyes
    # only the skin above the lid's new edge is taken, so that the lid covers the iris and does not squeeze it
    skin = polygon(np.concatenate([edge, [edge[-1] + rise, edge[0] + rise]]), CANVAS)
    points = subject.points.copy()
    points[upper] = closed.points[upper]
    return Known(laid_over(subject.image, closed.image, skin), points)


def close_right_lid(subject: Subject, amount: float) -> Known:
    """Close the subject's right eye by ``amount`` of its opening."""
    return _close_lid(subject, amount, "right")


def close_left_lid(subject: Subject, amount: float) -> Known:
    """Close the subject's left eye by ``amount`` of its opening."""
    return _close_lid(subject, amount, "left")


def _turn_eyes(subject: Subject, across: float, up: float) -> Known:
    """Paint both irises elsewhere, by fractions of each eye's width."""
    image, points = subject.image, subject.points.copy()
    for contour, iris in ((EYE_RIGHT, IRIS_RIGHT), (EYE_LEFT, IRIS_LEFT)):
        ring = np.concatenate([contour[:9], contour[:8:-1]])
        width = float(np.linalg.norm(points[contour[0]] - points[contour[8]]))
        shift = width * (np.array([across, up]) @ subject.axes)
        image = _move_iris(image, points[ring], points[iris], shift)
        points[iris] += shift
    return Known(image, points)


def _move_iris(image: Picture, opening: Array, iris: Array, shift: Array) -> Picture:
    """Fill the iris with the surrounding white, and paint a round one with its radial colours elsewhere."""
    low = np.maximum(np.floor(opening.min(0)).astype(int) - 20, 0)
    high = np.ceil(opening.max(0)).astype(int) + 20
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    pixels = image[window]
    radius = float(np.linalg.norm(iris[[1, 3]] - iris[0], axis=1).mean())
    inside = polygon(opening, CANVAS)[window]
    off = pixel_places(CANVAS)[window] - iris[0]
    distance = np.linalg.norm(off, axis=-1)
    light = cv2.GaussianBlur(pixels.mean(-1), (0, 0), 0.1 * radius)
    beside = (cv2.erode(inside, np.ones((7, 7))) > 0.9) & (distance > 1.1 * radius)
    # lids, lashes and the inner corner are darker than the white
    white = (beside & (light >= np.median(light[beside]))).astype(np.float32)
    share = cv2.GaussianBlur(white, (0, 0), radius)[..., None]
    spread = cv2.GaussianBlur(pixels * white[..., None], (0, 0), radius) / np.maximum(share, 1e-4)
    old = np.clip((1.25 * radius - distance) / (0.15 * radius), 0, 1)
    cleared = laid_over(pixels, np.clip(spread, 0, 255), inside * old)
    steps = np.linspace(0, 1.1, 12)
    seen = (inside > 0.9) & (distance < 1.15 * radius)
    bins = np.digitize(distance[seen] / radius, steps) - 1
    colours = pixels[seen].astype(np.float64)
    profile = np.stack([np.median(colours[bins == min(k, bins.max())], axis=0) for k in range(len(steps))])
    at = np.linalg.norm(off - shift, axis=-1) / radius
    painted = np.stack([np.interp(at, steps + 0.05, profile[:, c]) for c in range(3)], axis=-1)
    changed = image.copy()
    changed[window] = laid_over(cleared, painted, inside * np.clip((1.05 - at) / 0.1, 0, 1))
    return changed


def turn_eyes_across(subject: Subject, amount: float) -> Known:
    """Turn both eyes to the image's right by ``amount`` of an eye's width."""
    return _turn_eyes(subject, amount, 0.0)


def turn_eyes_up(subject: Subject, amount: float) -> Known:
    """Turn both eyes up by ``amount`` of an eye's width."""
    return _turn_eyes(subject, 0.0, amount)


def open_lips(subject: Subject, amount: float, teeth: float = 0.0) -> Known:
    """Part the lips by ``amount`` of the eyes' distance beyond their present gap, before a dark interior.

    The upper lip takes a quarter of the way, the lower lip and the chin the rest. ``teeth`` is the fraction
    of the opening, from above, that is painted with teeth.
    """
    up = amount * subject.eyes * subject.axes[1]
    half = _lip_half(subject, 0.25 * up, (UPPER_INNER, UPPER_OUTER), np.array([], np.int64))
    other = _lip_half(subject, -0.75 * up, (LOWER_INNER, LOWER_OUTER), CHIN)
    above, below = half.moved(subject.points), other.moved(subject.points)
    points = above.copy()
    lower = np.unique(np.concatenate([LOWER_INNER[1:-1], LOWER_OUTER[1:-1], CHIN]))
    middle = (subject.points[[13, 14]].mean(0) - subject.points) @ subject.axes[1]
    beneath = np.setdiff1d(np.flatnonzero(middle > 0), np.concatenate([UPPER_INNER, UPPER_OUTER]))
    for index in (beneath, lower):
        points[index] = below[index]
    top, bottom = points[UPPER_INNER], points[LOWER_INNER]
    line = (top + bottom) / 2
    far = subject.axes[0] * CANVAS
    down = -subject.axes[1] * 2 * CANVAS
    region = np.concatenate(
        [[line[0] - far], line, [line[-1] + far, line[-1] + far + down, line[0] - far + down]]
    )
    image = laid_over(
        half.warp(subject.image), other.warp(subject.image), polygon(region, CANVAS, 0.01 * subject.eyes)
    )
    return _paint_mouth_interior(subject, image, points, teeth)


def _lip_half(
    subject: Subject, way: Array, lines: tuple[NDArray[np.int64], ...], chin: NDArray[np.int64]
) -> Field:
    moves = {int(i): way for i in chin}
    for line in lines:
        share = 1 - np.linspace(-1, 1, len(line)) ** 2
        moves |= {int(i): s * way for i, s in zip(line, share, strict=True)}
    moving = np.array(list(moves))
    still = np.setdiff1d(_CHEEKS, moving)
    old = subject.points[np.concatenate([moving, still])]
    shift = np.concatenate([np.stack(list(moves.values())), np.zeros((len(still), 2))])
    return _unfolded(Field.through(old, old + shift, 0.16 * subject.eyes))


def _unfolded(field: Field) -> Field:
    at = np.arange(4.0, CANVAS, 8.0)
    if field.stretch(np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)).min() <= 0:
        raise ValueError("the change folds this photograph over itself; take a smaller amount")
    return field


def _paint_mouth_interior(subject: Subject, image: Picture, points: Array, teeth: float) -> Known:
    """Paint between the lips: a dark red-brown derived from the lips' colour, below a row of teeth."""
    lips = _colour_at(subject, np.concatenate([LOWER_OUTER[3:8], UPPER_OUTER[4:7]]), (14, 13))
    skin = np.median(_colours(subject.image, subject.points[[50, 280, 205, 425, 101, 330]]), axis=0)
    top, bottom = points[UPPER_INNER], points[LOWER_INNER]
    soft = 0.008 * subject.eyes
    dark = np.broadcast_to(0.22 * lips, image.shape)
    image = laid_over(image, dark, polygon(np.concatenate([top, bottom[::-1]]), CANVAS, soft))
    if teeth <= 0:
        return Known(image, points, 0.0)
    row = np.concatenate([top, (top + teeth * (bottom - top))[::-1]])
    tooth = np.clip(0.75 * skin.mean() + 0.25 * skin, 0, 255) * np.minimum(1.15, 235 / skin.max())
    image = laid_over(image, np.broadcast_to(tooth, image.shape), polygon(row, CANVAS, soft))
    return Known(image, points, teeth)


def _colour_at(subject: Subject, outer: NDArray[np.int64], inner: tuple[int, int]) -> Array:
    """Return the lips' median colour, half way between their outer line and the mouth's middle."""
    middle = subject.points[list(inner)].mean(0)
    return np.asarray(np.median(_colours(subject.image, (subject.points[outer] + middle) / 2), axis=0))


def _colours(image: Picture, places: Array) -> Array:
    index = np.clip(places.astype(int), 0, np.array(image.shape[1::-1]) - 1)
    return image[index[:, 1], index[:, 0]].astype(np.float64)


@dataclass(frozen=True)
class Change:
    """A change of one region.

    Holds its name in :func:`~portrait_core.metrics.follow.measure_regions`, the amounts, and the function
    that draws it.
    """

    region: str
    amounts: tuple[float, ...]
    draw: Callable[[Subject, float], Known]


CHANGES = (
    Change("lip gap", (0.0, 0.04, 0.08, 0.13, 0.18, 0.24), open_lips),
    Change("mouth width", (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2), widen_mouth),
    Change("corners' lift", (-0.08, -0.04, 0.0, 0.04, 0.08, 0.12), lift_corners),
    Change("corners' difference", (-0.06, -0.03, 0.0, 0.03, 0.06), tilt_corners),
    Change("inner brows", (-0.02, 0.0, 0.02, 0.04, 0.06), raise_inner_brows),
    Change("outer brows", (-0.02, 0.0, 0.02, 0.04, 0.06), raise_outer_brows),
    Change("brows' difference", (-0.02, 0.0, 0.02, 0.04, 0.06), raise_right_brow),
    Change("lid right", (0.0, 0.2, 0.4, 0.6, 0.8), close_right_lid),
    Change("lid left", (0.0, 0.2, 0.4, 0.6, 0.8), close_left_lid),
    Change("gaze across", (-0.16, -0.08, 0.0, 0.08, 0.16), turn_eyes_across),
    Change("gaze up", (-0.08, -0.04, 0.0, 0.04, 0.08), turn_eyes_up),
)
"""One change per region; lengths over the distance of the outer eye corners, lids over their opening, gaze
over the eye's width."""
