"""The person's coverage of a photograph's pixels: a soft matte, refined by colour.

The network looks at squares about the head, near and far, and what it says is averaged. Where it is unsure,
colours decide: the mask follows the edges of the picture (guided filter), and a pixel between person and
background is placed between the colours of both around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.photograph.filters import Floats, LinearModel, ellipse, guided, resized, spread
from portrait_core.tracking.crop import crop_image
from portrait_core.tracking.detector import open_session

MODEL = "person_segmentation.onnx"
_INPUT = 256
_VIEWS = ((1.0, 1.0), (1.7, 0.7), (2.6, 0.4))
"""Sides of the squares that the network looks at, in sides of the face crop, and weights of what it says."""
_FARTHEST, _FAR_WEIGHT = 8.0, 0.2
"""The same of the last square. None is larger than the photograph."""
_CROP_SIDE = 360
"""Pixels that the face crop's side is refined at; finer pictures take the result over by their colours."""
_LONGEST = 1024
"""Pixels at most of the longer side of the whole photograph while it is refined."""
_PARTING = 320
"""Pixels of the longer side of the photograph where one person is parted from another."""
_CONTRAST = 2.0
"""Steepness of what the network says about 0.5: averages of squares are blurred."""


@dataclass(frozen=True)
class Matte:
    """A person in a photograph.

    Attributes:
        coverage: ``[H,W]`` float32 in 0..1.
        found: False where the network saw no person at the head, so that the coverage is a guess from the
            fitted head.
    """

    coverage: NDArray[np.float32]
    found: bool


@dataclass(frozen=True)
class Frame:
    """A rectangle of the photograph and the size that it is worked at.

    Attributes:
        x, y, width, height: in whole pixels of the photograph.
        scale: pixels at work per pixel of the photograph, at most 1.
    """

    x: int
    y: int
    width: int
    height: int
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width at work."""
        return max(1, round(self.height * self.scale)), max(1, round(self.width * self.scale))

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the photograph."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def cut(self, photograph: NDArray[np.uint8]) -> Floats:
        """Return the rectangle's colours at work ``[h,w,3]`` in 0..1."""
        height, width = self.size
        part = photograph[self.window].astype(np.float32) / np.float32(255)
        return resized(part, width, height, area=True)

    def sampled(self, mask: Floats, center_px: NDArray[np.float64], side_px: float) -> Floats:
        """Return a square's mask ``[n,n]`` at work; zero outside the square."""
        height, width = self.size
        per = side_px / len(mask)
        corner = (np.array([self.x, self.y]) - (center_px - side_px / 2)) / per
        step = np.array([self.width / width, self.height / height]) / per
        start = corner + (step - 1) / 2  # pixel centres lie at +0.5
        matrix = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(mask, matrix, (width, height), flags=flags), np.float32)


class PersonSegmenter:
    """MediaPipe's selfie segmentation."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def from_models(cls, models_dir: str | Path, threads: int = 1) -> PersonSegmenter:
        """Open the model in ``models_dir`` (the repository's ``data/models``) with ``threads`` CPU threads.

        Raises:
            ModelFileError: if the model's file is missing.
        """
        return cls(open_session(Path(models_dir) / MODEL, threads))

    def look(self, photograph: NDArray[np.uint8], center_px: NDArray[np.float64], side_px: float) -> Floats:
        """Segment a square of a photograph ``[H,W,3]`` uint8, as it is and mirrored.

        Returns:
            Probability of a person in the square ``[256,256]`` in 0..1.
        """
        square = crop_image(photograph, center_px, side_px, _INPUT).astype(np.float32) / 255
        pair = np.ascontiguousarray(np.stack([square, square[:, ::-1]]))
        straight, mirrored = self._session.run(None, {"image": pair})[0][..., 0]
        return np.asarray((straight + mirrored[:, ::-1]) / 2, np.float32)


def find_person(
    photograph: NDArray[np.uint8],
    center_px: Sequence[float] | NDArray[np.floating],
    side_px: float,
    silhouette: NDArray[np.bool_],
    segmenter: PersonSegmenter,
) -> Matte:
    """Find the person whose head it is in a photograph.

    Args:
        photograph: ``[H,W,3]`` uint8 RGB. Time and memory grow little with its size.
        center_px: ``(x, y)`` of the face crop's centre in continuous pixels of the photograph.
        side_px: its side.
        silhouette: the fitted head (without hair) in the face crop ``[S,S]``.
        segmenter: the network.

    Raises:
        InputError: if the silhouette is empty, which means that the fit does not belong to this photograph.
    """
    if not silhouette.any():
        raise InputError("the fitted head covers no pixel of the crop; was it fitted to this portrait?")
    center, head = np.asarray(center_px, np.float64), silhouette.astype(np.float32)
    shape = photograph.shape[:2]
    views = _look(photograph, center, side_px, segmenter)
    whole, near = _whole(shape), _near(shape, center, side_px)
    inside = near.sampled(head, center, side_px) > 0.5
    found = bool(_averaged(near, views)[inside].mean() > 0.5) if inside.any() else False
    if not found:
        views = [_View(_guess(head), center, side_px, 1.0)]
    place = _View(head, center, side_px, 1.0)
    seen = _averaged(whole, views)
    own = _own(seen, whole.sampled(head, center, side_px) > 0.5)
    coverage = _refined(photograph, whole, seen * own, place)
    if near.scale > whole.scale:
        seen = _averaged(near, views) * resized(_part(own, whole, near), near.size[1], near.size[0])
        detail = _refined(photograph, near, seen, place)
        coverage[near.window] += _share(near, shape) * (detail - coverage[near.window])
    return Matte(coverage, found)


@dataclass(frozen=True)
class _View:
    """Mask of a person in a square ``[n,n]``, and its weight."""

    mask: Floats
    center_px: NDArray[np.float64]
    side_px: float
    weight: float


def _look(
    photograph: NDArray[np.uint8], center: NDArray[np.float64], side_px: float, segmenter: PersonSegmenter
) -> list[_View]:
    """Look at squares of growing size about the head, moved into the photograph where they fit."""
    size = np.array(photograph.shape[1::-1], np.float64)
    longest = max(float(size.max()), side_px)
    views: list[_View] = []
    for sides, weight in (*_VIEWS, (_FARTHEST, _FAR_WEIGHT)):
        side = min(sides * side_px, longest)
        if views and side <= views[-1].side_px:
            break  # the last one has shown the whole photograph
        low, high = np.minimum(side / 2, size / 2), np.maximum(size - side / 2, size / 2)
        middle = np.clip(center, low, high)
        views.append(_View(segmenter.look(photograph, middle, side), middle, side, weight))
    return views


def _guess(head: Floats) -> Floats:
    """Guess a person from the fitted head alone: hair about it, shoulders below."""
    size = len(head)
    mask = cv2.dilate(head, ellipse(0.06 * size))
    rows = np.flatnonzero(head.any(axis=1))
    y, x = np.mgrid[:size, :size]
    below = y - (rows[-1] - 0.08 * size)
    middle = np.flatnonzero(head[rows[-1]]).mean()
    mask[(below > 0) & (np.abs(x - middle) < 0.15 * size + 1.2 * below)] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.03 * size), np.float32)


def _whole(shape: tuple[int, ...]) -> Frame:
    height, width = shape[:2]
    return Frame(0, 0, width, height, min(1.0, _LONGEST / max(height, width)))


def _near(shape: tuple[int, ...], center: NDArray[np.float64], side_px: float) -> Frame:
    """Return the part of a photograph that the largest of the near squares shows, about the head."""
    size = np.array(shape[1::-1])
    reach = _VIEWS[-1][0] * side_px / 2
    low = np.clip(np.floor(center - reach), 0, size - 1).astype(int)
    high = np.clip(np.ceil(center + reach), low + 1, size).astype(int)
    (x, y), (width, height) = low, high - low
    return Frame(int(x), int(y), int(width), int(height), min(1.0, _CROP_SIDE / side_px))


def _averaged(frame: Frame, views: Sequence[_View]) -> Floats:
    """Average what the squares show ``[h,w]``, each fading out toward its border; 0 where none looked."""
    total, weight = np.zeros(frame.size, np.float32), np.full(frame.size, 1e-6, np.float32)
    for view in views:
        n = len(view.mask)
        edge = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1
        fade = np.minimum(1, np.minimum.outer(edge, edge) * 16 / n).astype(np.float32) * view.weight
        total += frame.sampled(view.mask * fade, view.center_px, view.side_px)
        weight += frame.sampled(fade, view.center_px, view.side_px)
    return total / weight


def _own(seen: Floats, head: NDArray[np.bool_]) -> Floats:
    """Return the coverage by the person whose head it is ``[h,w]`` in 0..1.

    Others are parted where the mask is narrow, and a pixel that is nearer to another person belongs to that
    person.
    """
    (height, width), shrink = head.shape, max(1, round(max(head.shape) / _PARTING))
    size = max(1, width // shrink), max(1, height // shrink)
    small, place = resized(seen, *size, area=True), resized(head.astype(np.float32), *size, area=True) > 0.5
    person = ((small > 0.5) | place).astype(np.uint8)
    across = max(1.0, float(np.sqrt(place.sum())))
    parts = cv2.morphologyEx(person, cv2.MORPH_OPEN, ellipse(0.12 * across)).astype(np.uint8)
    parts[place] = 1
    mine = _touching(parts, place)
    others = (parts > 0) & ~mine
    mine_first = np.ones_like(mine)
    if others.any():
        to_mine, to_others = (
            cv2.distanceTransform((~part).astype(np.uint8), cv2.DIST_L2, 5) for part in (mine, others)
        )
        mine_first = to_mine <= to_others
    kept = _touching((((small > 0.2) & mine_first) | mine).astype(np.uint8), mine)
    wide = cv2.dilate(kept.astype(np.float32), ellipse(2)) * mine_first
    return np.clip(2 * resized(np.asarray(wide, np.float32), width, height), 0, 1)


def _touching(mask: NDArray[np.uint8], place: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the connected parts of a mask that touch a place."""
    _, labels = cv2.connectedComponents(mask)
    return np.isin(labels, np.unique(labels[place])) & (labels > 0)


def _part(mask: Floats, whole: Frame, near: Frame) -> Floats:
    """Cut what belongs to the frame ``near`` out of a mask of the frame ``whole``."""
    scale = np.array(whole.size) / (whole.height, whole.width)
    low = np.floor(np.array([near.y, near.x]) * scale).astype(int)
    high = np.ceil(np.array([near.y + near.height, near.x + near.width]) * scale).astype(int)
    return np.ascontiguousarray(mask[low[0] : high[0], low[1] : high[1]])


def _share(frame: Frame, shape: tuple[int, ...]) -> Floats:
    """Return weights ``[height,width]`` that fade out toward borders of a frame in the photograph."""

    def along(first: int, length: int, total: int) -> Floats:
        ramp = np.minimum(1, (np.arange(length, dtype=np.float32) + 1) / (0.05 * length + 1))
        ones = np.ones_like(ramp)
        return (ramp if first > 0 else ones) * (ramp[::-1] if first + length < total else ones)

    return np.outer(along(frame.y, frame.height, shape[0]), along(frame.x, frame.width, shape[1]))


def _refined(photograph: NDArray[np.uint8], frame: Frame, seen: Floats, head: _View) -> Floats:
    """Refine what was seen ``[h,w]`` by the photograph's colours, at the photograph's size."""
    guide, side = frame.cut(photograph), head.side_px * frame.scale
    fine = refine(guide, seen, frame.sampled(head.mask, head.center_px, head.side_px), side)
    if frame.scale == 1:
        return fine
    model = LinearModel.of(guide, fine, 2, 1e-4)
    return model.at(photograph[frame.window].astype(np.float32) / np.float32(255))


def refine(guide: Floats, seen: Floats, head: Floats, side_px: float) -> Floats:
    """Refine a blurred mask of a person by colour.

    Args:
        guide: colours ``[h,w,3]`` in 0..1.
        seen: the mask ``[h,w]`` in 0..1.
        head: the fitted head ``[h,w]`` in 0..1, whose inside is certain.
        side_px: the face crop's side here, which widths are shares of.

    Returns:
        ``[h,w]`` in 0..1.
    """
    core = cv2.erode((head > 0.5).astype(np.float32), ellipse(0.03 * side_px))
    mask = np.maximum(np.clip((seen - 0.5) * _CONTRAST + 0.5, 0, 1), core).astype(np.float32)
    soft = guided(guide, mask, max(2, round(0.015 * side_px)), 1e-4)
    between, trust = _between(guide, np.maximum(seen, core), side_px)
    mixed = soft + trust * (between - soft)
    return guided(guide, mixed, max(1, round(0.01 * side_px)), 1e-5)


def _between(guide: Floats, seen: Floats, side_px: float) -> tuple[Floats, Floats]:
    """Place pixels between the colours of person and background around.

    Return fractions ``[h,w]`` and their reliability, which is small where the two colours vary much or differ
    little.
    """
    inner = ellipse(0.01 * side_px)
    person = cv2.erode((seen > 0.95).astype(np.float32), inner)
    behind = cv2.erode((seen < 0.05).astype(np.float32), inner)
    front, front_var = _colours(guide, np.asarray(person, np.float32), side_px)
    back, back_var = _colours(guide, np.asarray(behind, np.float32), side_px)
    way = front - back
    apart = (way * way).sum(-1)
    share = np.clip(((guide - back) * way).sum(-1) / np.maximum(apart, 1e-4), 0, 1)
    noise = 3 * 0.05**2 + 4 * (share * front_var + (1 - share) * back_var)
    off = ((guide - back - share[..., None] * way) ** 2).sum(-1)
    trust = apart / (apart + 4 * noise) * np.exp(-off / (2 * noise))
    unsure = 1 - np.maximum(person, behind)
    return share.astype(np.float32), (trust * unsure).astype(np.float32)


def _colours(guide: Floats, where: Floats, side_px: float) -> tuple[Floats, Floats]:
    """Return the mean colour ``[h,w,3]`` and the variance ``[h,w]`` of what is marked, around each pixel."""
    sigma = max(1.0, 0.02 * side_px)
    moments = np.concatenate([guide, (guide * guide).sum(-1, keepdims=True)], axis=-1)
    known = np.asarray(cv2.GaussianBlur(where, (0, 0), sigma), np.float32)
    total = np.asarray(cv2.GaussianBlur(moments * where[..., None], (0, 0), sigma), np.float32)
    averages = total / np.maximum(known, 1e-6)[..., None]
    full = spread(averages.astype(np.float32), (known > 0.05).astype(np.float32))
    mean = full[..., :3]
    return mean, np.maximum(full[..., 3] - (mean * mean).sum(-1), 0)
