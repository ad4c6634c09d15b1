"""The background behind a person: the hole that they leave, filled from the background around it.

Pieces of the background are shifted over the hole (He and Sun 2012): which shift each pixel takes is chosen,
at a bounded size, so that pieces agree with the hole's surroundings and with each other where they meet
(belief propagation). Their gradients are joined (Perez et al. 2003), so that colours pass smoothly from piece
to piece, and at the photograph's size the fine detail and the grain of the same pieces are laid on. All is
computed the same way each time.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from portrait_core.photograph.filters import Floats, ellipse, resized, spread

_SIZE = 56
"""Pixels of the longer side of the hole where shifts are chosen."""
_CONTEXT = 0.7
"""Distance around the hole from which pieces are taken, in its longer sides."""
_SHIFTS = 20
"""Shifts that pixels choose from."""
_STEPS = 24
"""Steps of belief propagation."""
_BAND = 3
"""Pixels around the hole that a shifted piece should agree with."""
_LIKE = 0.01
"""Squared difference of colours at which pieces count as alike."""
_SMOOTH_COST = 0.03
"""Cost of a pixel that takes no piece but the smooth continuation of what is around."""
_CHANGE = 0.003
"""Cost of neighbours that take different pieces, however alike."""
_STRANGE, _PLAIN = 0.3, 0.7
"""Cost of a piece per squared difference from that continuation, and what is added to it where the background
next to the hole is plain: a rocket is not repeated before a wall."""
_NEVER = 1e3
_GRAIN = 4.0
"""Detail that counts as grain, in medians of its amount in the background."""


def filled(
    picture: NDArray[np.uint8], hole: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> NDArray[np.uint8]:
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
    part = _window(hole)
    if not usable[part].any():
        part = slice(None), slice(None)
    result = picture.copy()
    result[part] = _Filling(picture[part], hole[part], usable[part]).run()
    return result


def _extent(hole: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    places = np.argwhere(hole)
    return places.min(0), places.max(0) + 1


def _thinned(places: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return places[:: max(1, len(places) // most)]


def _window(hole: NDArray[np.bool_]) -> tuple[slice, slice]:
    low, high = _extent(hole)
    reach = round(_CONTEXT * int((high - low).max()) + 8)
    first = np.maximum(low - reach, 0)
    return slice(first[0], high[0] + reach), slice(first[1], high[1] + reach)


class _Filling:
    """A hole and its surroundings, at the picture's size and small."""

    def __init__(
        self, picture: NDArray[np.uint8], hole: NDArray[np.bool_], usable: NDArray[np.bool_]
    ) -> None:
        low, high = _extent(hole)
        scale = min(1.0, _SIZE / int((high - low).max()))
        self._shape = hole.shape
        self._hole, self._usable = hole, usable
        self._picture = picture.astype(np.float32) / np.float32(255)
        height, width = (max(4, round(n * scale)) for n in hole.shape)
        sure = resized(usable.astype(np.float32), width, height, True)
        shown = resized(np.ascontiguousarray(self._picture * usable[..., None]), width, height, True)
        self._gap = resized(hole.astype(np.float32), width, height, True) > 0.01
        self._known = (sure > 0.6) & ~self._gap
        self._colours = np.asarray(shown / np.maximum(sure, 1e-6)[..., None], np.float32)
        if not self._known.any():
            self._known = (sure > 0) | ~self._gap
        self._smooth = spread(self._colours, self._known.astype(np.float32))
        self._pixels = np.argwhere(self._gap)

    def run(self) -> NDArray[np.uint8]:
        """Fill it."""
        shifts = self._shifts()
        pieces, valid = self._shifted(self._pixels, shifts)
        smooth = self._smooth[self._gap][:, None]
        busy = self._busy()[self._gap][:, None]
        strange = _STRANGE + _PLAIN / (1 + busy / _LIKE)
        cost = self._agreement(shifts) + strange * ((pieces - smooth) ** 2).sum(-1)
        cost[~valid] = _NEVER
        pieces = np.concatenate([smooth, pieces], axis=1)
        pieces[:, 1:][~valid] = pieces[:, :1].repeat(len(shifts), 1)[~valid]
        cost = np.concatenate([busy + _SMOOTH_COST, cost], axis=1)
        edges = self._edges()
        labels = _propagated(cost, pieces, edges)
        colours = self._joined(pieces, labels, edges)
        plain = labels == 0  # takes no piece, and the grain of the plainest
        if len(shifts):
            labels = np.where(plain, 1 + self._plainest(pieces[:, 1:], valid, shifts), labels)
        return self._finished(colours, shifts, labels, plain)

    def _shifted(
        self, places: NDArray[np.int64], shifts: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return colours ``[n,K,3]`` at shifted places, and whether they are known ``[n,K]``."""
        limit = np.array(self._gap.shape)
        there = places[:, None] + shifts
        inside = ((there >= 0) & (there < limit)).all(-1)
        there = np.clip(there, 0, limit - 1)
        y, x = there[..., 0], there[..., 1]
        return self._colours[y, x], self._known[y, x] & inside

    def _shifts(self) -> NDArray[np.int64]:
        """Choose shifts ``[K,2]`` that between them cover the hole and agree with its surroundings."""
        low, high = _extent(self._gap)
        step = max(1, int((high - low).max()) // 16)
        reach = [np.arange(-(n // step) * step, n, step) for n in self._gap.shape]
        shifts = np.stack(np.meshgrid(*reach, indexing="ij"), -1).reshape(-1, 2)
        shifts = shifts[np.abs(shifts).max(1) >= 3]
        band = _thinned(self._band(), 200)
        inner = _thinned(self._pixels, 200)
        _, covers = self._shifted(inner, shifts)
        covers_enough = covers.mean(0) > 0.02
        shifts, covers = shifts[covers_enough], covers[:, covers_enough]
        if len(shifts) == 0:
            return shifts
        colours, known = self._shifted(band, shifts)
        off = ((colours - self._colours[band[:, 0], band[:, 1]][:, None]) ** 2).sum(-1)
        alike = np.where(known, np.exp(-off / _LIKE), 0)
        gains = np.concatenate([alike / max(1, len(band)), covers * (0.5 / len(inner))])
        best, chosen = np.zeros(len(gains)), []
        for _ in range(min(_SHIFTS, len(shifts))):
            gain = np.maximum(gains, best[:, None]).sum(0)
            chosen.append(int(gain.argmax()))
            # what was chosen once may be improved upon, with less to gain
            best = np.maximum(best, 0.9 * gains[:, chosen[-1]])
            gains[:, chosen[-1]] = 0
        return shifts[chosen]

    def _band(self) -> NDArray[np.int64]:
        near = cv2.dilate(self._gap.astype(np.uint8), ellipse(_BAND)) > 0
        return np.argwhere(near & self._known)

    def _agreement(self, shifts: NDArray[np.int64]) -> Floats:
        """Return squared differences ``[n,K]`` of shifted pieces from what is known next to each pixel."""
        field, count = (np.zeros((*self._gap.shape, len(shifts)), np.float32) for _ in range(2))
        band = self._band()
        if len(band) == 0 or len(shifts) == 0:
            return np.zeros((len(self._pixels), len(shifts)), np.float32)
        colours, known = self._shifted(band, shifts)
        off = ((colours - self._colours[band[:, 0], band[:, 1]][:, None]) ** 2).sum(-1)
        field[band[:, 0], band[:, 1]] = np.where(known, off, 0.1)
        count[band[:, 0], band[:, 1]] = 1
        side = (2 * _BAND + 1, 2 * _BAND + 1)
        total = cv2.boxFilter(field, -1, side, normalize=False).reshape(field.shape)
        weight = cv2.boxFilter(count, -1, side, normalize=False).reshape(field.shape)
        return np.asarray((total / np.maximum(weight, 1) * np.minimum(weight, 6))[self._gap], np.float32)

    def _busy(self) -> Floats:
        """Return half the squared differences ``[h,w]`` of known pixels to near ones, and over the hole."""
        known = self._known.astype(np.float32)
        side = (9, 9)
        mean = cv2.blur(self._colours * known[..., None], side) / (cv2.blur(known, side) + 1e-6)[..., None]
        off = ((self._colours - mean) ** 2).sum(-1, keepdims=True) / 2
        return spread(np.asarray(off, np.float32), known)[..., 0]

    def _plainest(
        self, pieces: Floats, valid: NDArray[np.bool_], shifts: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return, for each pixel, the number of the shift that is most like the smooth continuation."""
        busy = cv2.morphologyEx(self._colours, cv2.MORPH_GRADIENT, ellipse(2)).max(-1)
        there = np.clip(self._pixels[:, None] + shifts, 0, np.array(self._gap.shape) - 1)
        off = ((pieces - self._smooth[self._gap][:, None]) ** 2).sum(-1) + busy[there[..., 0], there[..., 1]]
        return np.asarray(np.where(valid, off, _NEVER).argmin(1), np.int64)

    def _edges(self) -> list[NDArray[np.int64]]:
        """List pairs of neighbours in the hole, as numbers of pixels: across ``[2,n]``, down ``[2,m]``."""
        number = np.full(self._gap.shape, -1)
        number[self._gap] = np.arange(len(self._pixels))
        pairs = (number[:, :-1], number[:, 1:]), (number[:-1], number[1:])
        return [np.stack([a, b])[:, (a >= 0) & (b >= 0)] for a, b in pairs]

    def _joined(self, pieces: Floats, labels: NDArray[np.int64], edges: list[NDArray[np.int64]]) -> Floats:
        """Join the gradients of the pieces that were chosen, with the known colours as the border."""
        n, every = len(labels), np.arange(len(labels))
        a, b = np.concatenate(edges, axis=1)
        target = sum(pieces[b, labels[end]] - pieces[a, labels[end]] for end in (a, b)) / 2
        row, one = np.arange(len(a)), np.ones(len(a))
        gradient = scipy.sparse.csr_matrix((one, (row, b)), (len(a), n)) - scipy.sparse.csr_matrix(
            (one, (row, a)), (len(a), n)
        )
        anchor, wanted = self._anchors(pieces, labels)
        system = (gradient.T @ gradient + scipy.sparse.diags(anchor + 1e-3)).tocsc()
        own = pieces[every, labels]
        right = gradient.T @ target + wanted + 1e-3 * own
        solved = scipy.sparse.linalg.splu(system).solve(np.asarray(right, np.float64))
        colours = self._smooth.copy()
        colours[self._known] = self._colours[self._known]
        colours[self._gap] = np.clip(solved, 0, 1)
        return np.asarray(colours, np.float32)

    def _anchors(self, pieces: Floats, labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], Floats]:
        """Weights ``[n]`` and weighted colours ``[n,3]`` that known neighbours draw the hole's pixels to."""
        weight, total = np.zeros(len(labels)), np.zeros((len(labels), 3), np.float32)
        limit = np.array(self._gap.shape)
        for way in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            there = self._pixels + way
            inside = ((there >= 0) & (there < limit)).all(1)
            y, x = np.clip(there, 0, limit - 1).T
            known = self._known[y, x] & inside
            weight += known
            total += np.where(known[:, None], self._colours[y, x], 0)
        return weight, total

    def _finished(
        self, colours: Floats, shifts: NDArray[np.int64], labels: NDArray[np.int64], plain: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Return the window at the picture's size: the colours found, and detail of the pieces."""
        height, width = self._shape
        ratio = np.array(self._shape) / np.array(self._gap.shape)
        there = np.where(self._known[..., None], self._colours, self._smooth)
        detail = (self._picture - resized(there, width, height)) * self._usable[..., None]
        small, only_grain = np.zeros(self._gap.shape, np.int64), np.zeros(self._gap.shape, bool)
        small[self._gap], only_grain[self._gap] = labels, plain
        here = np.argwhere(self._hole)
        place = np.minimum((here / ratio).astype(np.int64), np.array(self._gap.shape) - 1)
        label = small[place[:, 0], place[:, 1]]
        moves = np.concatenate([np.zeros((1, 2)), shifts]) * ratio
        origin = here + np.round(moves[label]).astype(np.int64)
        origin = np.clip(origin, 0, np.array(self._shape) - 1)
        result = self._picture.copy()
        base = resized(colours, width, height)
        y, x = here.T
        laid = detail[origin[:, 0], origin[:, 1]]
        grain = _GRAIN * float(np.median(np.abs(detail[self._usable])))
        calm = only_grain[place[:, 0], place[:, 1]][:, None]
        result[y, x] = base[y, x] + np.where(calm, np.clip(laid, -grain, grain), laid)
        return np.clip(result * 255 + 0.5, 0, 255).astype(np.uint8)


def _propagated(cost: Floats, pieces: Floats, edges: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Choose a label for each pixel: least cost, and least difference of pieces where labels meet.

    Args:
        cost: of each label ``[n,K]``.
        pieces: colours ``[n,K,3]``.
        edges: pairs of neighbours, ``[2,m]`` each.

    Returns:
        Labels ``[n]``.
    """
    squares = (pieces**2).sum(-1)
    differ = squares[:, :, None] + squares[:, None] - 2 * pieces @ pieces.transpose(0, 2, 1)
    differ = np.maximum(differ, 0)
    ways = [(a, b) for first, second in edges for a, b in ((first, second), (second, first))]
    change = _CHANGE * (1 - np.eye(cost.shape[1], dtype=np.float32))
    joint = [np.minimum(differ[a] + differ[b], 0.5) + change for a, b in ways]
    messages = [np.zeros((len(a), cost.shape[1]), np.float32) for a, _ in ways]
    back = (1, 0, 3, 2)
    for _ in range(_STEPS):
        belief = cost.copy()
        for (_, b), message in zip(ways, messages, strict=True):
            belief[b] += message
        for i, (a, _) in enumerate(ways):
            toward = belief[a] - messages[back[i]]
            new = (toward[:, :, None] + joint[i]).min(1)
            new -= new.min(1, keepdims=True)
            messages[i] = 0.5 * messages[i] + 0.5 * new
    belief = cost.copy()
    for (_, b), message in zip(ways, messages, strict=True):
        belief[b] += message
    return np.asarray(belief.argmin(1), np.int64)
