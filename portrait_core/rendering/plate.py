"""What stands behind a person: the hole that they leave, filled from the background around it.

Colours first: at a bounded size, patches of the background are laid over the hole so that they agree with its
surroundings and with each other (Wexler et al. 2007, with the search of Barnes et al. 2009), from coarse to
fine. Then the fine detail and the grain of the places that those patches came from, at the photograph's size.
Everything is computed the same way each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from portrait_core.rendering.filters import Floats, ellipse, resized, spread

_FINEST = 96
"""Pixels of the longer side of the hole at the finest level of patches."""
_COARSEST = 12
"""The same at the coarsest."""
_CONTEXT = 0.6
"""How far around the hole patches are taken from, in its longer sides."""
_PATCH = 3
"""Radius of a patch in pixels."""
_ROUNDS = 4
"""Rounds of search and vote at each level."""
_ALL = 12_000_000
"""Pairs of patches that are all compared; where there are more, neighbours pass sources on."""
_DETAIL_SIGMA = 1.0
"""Blur, in pixels of the finest level, that parts colours from detail."""


def filled(picture: NDArray[np.uint8], hole: NDArray[np.bool_], usable: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill a hole of a picture.

    Args:
        picture: ``[H,W,3]`` uint8.
        hole: what is to be filled ``[H,W]``.
        usable: what may be taken from ``[H,W]``: the background. The rest outside the hole is neither read
            nor changed.

    Returns:
        ``[H,W,3]`` uint8: the picture, but for the hole. Where nothing is usable, the picture's mean fills.
    """
    usable = usable & ~hole
    if not hole.any():
        return picture.copy()
    if not usable.any():
        mean = picture.reshape(-1, 3).mean(0).round().astype(np.uint8)
        return np.where(hole[..., None], mean, picture)
    rows, columns = _window(hole)
    part, gap, known = picture[rows, columns], hole[rows, columns], usable[rows, columns]
    if not known.any():
        part, gap, known, rows, columns = picture, hole, usable, slice(None), slice(None)
    result = picture.copy()
    result[rows, columns] = _filled(part, gap, known)
    return result


def _window(hole: NDArray[np.bool_]) -> tuple[slice, slice]:
    y, x = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    reach = round(_CONTEXT * max(y[-1] - y[0], x[-1] - x[0]) + 8)
    return slice(max(0, y[0] - reach), y[-1] + reach + 1), slice(max(0, x[0] - reach), x[-1] + reach + 1)


def _filled(part: NDArray[np.uint8], gap: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    y, x = np.flatnonzero(gap.any(1)), np.flatnonzero(gap.any(0))
    extent = max(y[-1] - y[0], x[-1] - x[0]) + 1
    picture = part.astype(np.float32) / np.float32(255)
    scale = min(1.0, _FINEST / extent)
    levels = max(0, round(float(np.log2(max(1.0, scale * extent / _COARSEST)))))
    match: _Match | None = None
    for level in range(levels, -1, -1):
        factor = scale * 0.5**level
        size = max(2, round(part.shape[0] * factor)), max(2, round(part.shape[1] * factor))
        match = _Match.start(picture, gap, known, size, match)
        for _ in range(_ROUNDS):
            match.search()
            match.vote()
    assert match is not None
    return match.finished(picture, gap, known)


class _Match:
    """A level of the pyramid: colours, of which the hole's are to be found, and where each comes from.

    Attributes:
        colours: ``[h,w,3]`` in 0..1.
        gap: the hole ``[h,w]``.
        source: for each pixel near or in the hole the place whose patch is like its own, ``[h,w,2]`` rows and
            columns.
    """

    def __init__(self, colours: Floats, gap: NDArray[np.bool_], known: NDArray[np.bool_]) -> None:
        self.colours, self.gap = colours, gap
        radius = min(_PATCH, (min(gap.shape) - 1) // 2)
        around = np.ones((2 * radius + 1,) * 2, np.uint8)
        inside = cv2.erode(known.astype(np.uint8), around, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
        if not inside.any():
            inside = known if known.any() else ~gap
        self._radius = radius
        self._sources = np.argwhere(inside)
        self._wanted = np.argwhere(cv2.dilate(gap.astype(np.uint8), around) > 0)
        self._weight = self._patches((known | gap)[..., None].astype(np.float32), self._wanted)
        self._usable = inside
        self.source = np.zeros((*gap.shape, 2), np.int64)
        depth = cv2.distanceTransform(gap.astype(np.uint8), cv2.DIST_L2, 5)
        self._certainty = np.asarray(1.3 ** -np.minimum(depth, 40), np.float32)
        self._cost = np.full(len(self._wanted), np.inf, np.float32)

    @classmethod
    def start(
        cls,
        picture: Floats,
        gap: NDArray[np.bool_],
        known: NDArray[np.bool_],
        size: tuple[int, int],
        coarser: _Match | None,
    ) -> _Match:
        """Begin a level of ``size``, with what the coarser one found."""
        height, width = size
        sure = resized(known.astype(np.float32), width, height, True)
        shown = resized(np.ascontiguousarray(picture * known[..., None]), width, height, True)
        shown /= np.maximum(sure, 1e-6)[..., None]
        hole = resized(gap.astype(np.float32), width, height, True) > 0.01
        usable = (sure > 0.5) & ~hole
        if coarser is None:
            guess = spread(shown, usable.astype(np.float32))
        else:
            guess = resized(coarser.colours, width, height)
        colours = np.where(usable[..., None], shown, guess)
        match = cls(np.ascontiguousarray(colours, np.float32), hole, usable)
        if coarser is not None:
            match._inherit(coarser)
        return match

    def _inherit(self, coarser: _Match) -> None:
        old, new = np.array(coarser.gap.shape), np.array(self.gap.shape)
        y, x = self._wanted.T
        place = np.minimum((self._wanted * old / new).astype(np.int64), old - 1)
        offset = coarser.source[place[:, 0], place[:, 1]] - place
        self.source[y, x] = self._nearest(self._wanted + np.round(offset * new / old).astype(np.int64))

    def _nearest(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Move places ``[n,2]`` to the nearest whose patch is usable."""
        if not hasattr(self, "_steps"):
            _, labels = cv2.distanceTransformWithLabels(
                (~self._usable).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
            )
            by_label = np.zeros((labels.max() + 1, 2), np.int64)
            by_label[labels[self._usable]] = np.argwhere(self._usable)
            self._steps = by_label[labels]
        limit = np.array(self.gap.shape) - 1
        y, x = np.clip(places, 0, limit).T
        return self._steps[y, x]

    def _patches(self, values: Floats, places: NDArray[np.int64]) -> Floats:
        """Give the patches ``[n, patch * C]`` about places; beyond the border the border is repeated."""
        r, (height, width) = self._radius, values.shape[:2]
        reach = np.arange(-r, r + 1)
        y = np.clip(places[:, 0, None] + reach, 0, height - 1)
        x = np.clip(places[:, 1, None] + reach, 0, width - 1)
        return values[y[:, :, None], x[:, None, :]].reshape(len(places), -1, values.shape[2])

    def search(self) -> None:
        """Find better sources: among all where they are few, else those of the neighbours."""
        mine = self._patches(self.colours, self._wanted)
        if len(self._wanted) * len(self._sources) <= _ALL:
            self._search_all(mine)
            return
        y, x = self._wanted.T
        self._cost[:] = self._costs(mine, self.source[y, x])
        limit = np.array(self.gap.shape) - 1
        for step in (4, 2, 1, 1):
            for way in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                shift = step * np.array(way)
                there = np.clip(self._wanted + shift, 0, limit)
                from_there = self.source[there[:, 0], there[:, 1]]
                known = from_there.any(1)
                candidates = self._nearest(np.where(known[:, None], from_there - shift, self.source[y, x] + shift))
                self._take(mine, candidates)

    def _take(self, mine: Floats, candidates: NDArray[np.int64]) -> None:
        cost = self._costs(mine, candidates)
        better = cost < self._cost
        y, x = self._wanted[better].T
        self.source[y, x] = candidates[better]
        self._cost[better] = cost[better]

    def _costs(self, mine: Floats, sources: NDArray[np.int64]) -> Floats:
        other = self._patches(self.colours, sources)
        return np.asarray((((mine - other) ** 2) * self._weight).sum((1, 2)), np.float32)

    def _search_all(self, mine: Floats) -> None:
        theirs = self._patches(self.colours, self._sources)
        flat = theirs.reshape(len(theirs), -1)
        squares = (theirs**2).sum(-1)
        weight = self._weight[..., 0]
        cost = weight @ squares.T - 2 * (mine * self._weight).reshape(len(mine), -1) @ flat.T
        best = cost.argmin(1)
        own = (weight[..., None] * mine**2).sum((1, 2))
        self._cost[:] = np.maximum(cost[np.arange(len(best)), best] + own, 0)
        y, x = self._wanted.T
        self.source[y, x] = self._sources[best]

    def vote(self) -> None:
        """Give each pixel of the hole the average of what the patches over it say."""
        (height, width), r = self.gap.shape, self._radius
        y, x = self._wanted.T
        sy, sx = self.source[y, x].T
        sigma = max(float(np.quantile(self._cost, 0.75)), 1e-6)
        weight = np.exp(-self._cost / (2 * sigma)) * self._certainty[y, x]
        total, sum_ = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
        for dy in range(-r, r + 1):
            for dx in range(-r, r + 1):
                ty, tx, fy, fx = y + dy, x + dx, sy + dy, sx + dx
                fits = (ty >= 0) & (ty < height) & (tx >= 0) & (tx < width)
                fits &= (fy >= 0) & (fy < height) & (fx >= 0) & (fx < width)
                at = ty[fits], tx[fits]
                total[at] += weight[fits, None] * self.colours[fy[fits], fx[fits]]
                sum_[at] += weight[fits]
        voted = self.gap & (sum_ > 0)
        self.colours[voted] = total[voted] / sum_[voted][:, None]

    def finished(self, picture: Floats, gap: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Give the whole window at the picture's size: colours found here, detail from where they came."""
        height, width = gap.shape
        ratio = np.array([height, width]) / np.array(self.gap.shape)
        sigma = _DETAIL_SIGMA * float(ratio.mean())
        sure = known.astype(np.float32)
        blurred = cv2.GaussianBlur(picture * sure[..., None], (0, 0), sigma)
        weight = cv2.GaussianBlur(sure, (0, 0), sigma)
        detail = (picture - blurred / np.maximum(weight, 1e-6)[..., None]) * sure[..., None]
        y, x = np.nonzero(gap)
        here = np.stack([y, x], axis=-1)
        place = np.minimum((here / ratio).astype(np.int64), np.array(self.gap.shape) - 1)
        offset = (self.source[place[:, 0], place[:, 1]] - place) * ratio
        origin = np.clip(here + np.round(offset).astype(np.int64), 0, np.array([height, width]) - 1)
        base = resized(self.colours, width, height)
        result = picture.copy()
        result[y, x] = base[y, x] + detail[origin[:, 0], origin[:, 1]]
        return np.clip(result * 255 + 0.5, 0, 255).astype(np.uint8)
