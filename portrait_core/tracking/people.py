"""Who is who in a clip: faces of single frames become persons, by motion and by identity.

Frames are read independently of each other, so a face's number within its frame says nothing. Faces of
consecutive frames are linked where they hardly move; the pieces that come of this are joined to persons where
their recognition vectors agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from portrait_core.errors import InputError
from portrait_core.face_model.topology import N_MESH
from portrait_core.tracking.landmarker import face_weight

SAME_PERSON = 0.6
"""Distance of two recognition vectors of one face from which on dlib's network sees two people (King
2017)."""
_JOINED = 0.5
"""Distance of two pieces' mean vectors below which they show one person."""
_FARTHEST = 0.7
"""Largest motion of a face between two frames, over its side: a head that turns or nods moves far less."""
_GAP = 12
"""Frames for which a face may be away and still be taken for the same one by its place alone."""
_WINDOW, _MOST_WINDOWS = 5, 400
"""Frames whose vectors are averaged to tell whether a face that is followed became another one, at least, and
how many such windows are compared."""
_FADED = 0.7
"""Distance of two windows' vectors from which on they show two people; a face that turns changes less."""
_NEAR_TIE = 0.75
"""Weight over the largest person's from which on a person could as well be the main one."""

_FEW = 8
"""Number of frames from which on it can be told that a face never changes."""
STILL = 0.002
"""Change of a face's points over a clip, over its side, below which it is a picture's ..."""
_MOVING_PART = 0.9
"""... for so many of the points."""
_BESIDE_PICTURE = 0.2
"""Weight over a picture's from which on somebody who moves is no passer-by."""


@dataclass(frozen=True)
class Persons:
    """The persons of a clip of T frames with at most K faces each.

    Attributes:
        number: ``[T,K]`` int64: number of the person that each face shows, from 1 by first appearance, and
            from left to right; 0 where there is no face.
        weight: ``[n]``: sum over the frames of the size and centrality of each person's face, in pixels.
        vectors: ``[n,D]``: mean recognition vector of each person; NaN where none is known.
    """

    number: NDArray[np.int64]
    weight: NDArray[np.float64]
    vectors: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.weight)

    def faces_of(self, person: int) -> NDArray[np.int64]:
        """Return the face that shows a person in each frame ``[T]``; -1 where none does."""
        shown = self.number == person
        return np.where(shown.any(axis=1), shown.argmax(axis=1), -1)

    def among(self, able: NDArray[np.bool_]) -> Persons:
        """Return the persons with no weight for those who are not ``able [n]``, unless nobody is."""
        return replace(self, weight=np.where(able, self.weight, 0.0)) if able.any() else self


@dataclass
class _Piece:
    """Faces of consecutive frames that are linked by motion."""

    frames: list[int] = field(default_factory=list)
    faces: list[int] = field(default_factory=list)

    def add(self, frame: int, face: int) -> None:
        self.frames.append(frame)
        self.faces.append(face)


def find_persons(
    points: NDArray[np.floating],
    vectors: NDArray[np.floating],
    cuts: NDArray[np.bool_],
    size: tuple[int, int],
) -> Persons:
    """Find out which faces of a clip show the same person.

    Args:
        points: landmarks ``[T,K,478,2]`` in pixels, NaN where there is no face.
        vectors: recognition vectors ``[T,K,D]`` (:class:`portrait_core.metrics.identity.ShippedRecogniser`),
            NaN where unknown.
        cuts: ``[T]``: whether a new scene begins with the frame; no motion is followed into it.
        size: width and height of the frames in pixels.
    """
    mesh = points[:, :, :N_MESH]
    center = mesh.mean(axis=2)
    side = (mesh.max(axis=2) - mesh.min(axis=2)).max(axis=-1)
    linked = _link(center, side, vectors, cuts)
    pieces = [part for piece in linked for part in _parted(piece, vectors)]
    groups = _join(pieces, vectors)
    groups.sort(
        key=lambda group: min((p.frames[0], float(center[p.frames[0], p.faces[0], 0])) for p in group)
    )
    number = np.zeros(center.shape[:2], np.int64)
    for i, group in enumerate(groups, 1):
        for piece in group:
            number[piece.frames, piece.faces] = i
    there = np.isfinite(side)
    weights = np.zeros(side.shape)
    weights[there] = face_weight(center[there], side[there], size)
    total = [float(weights[number == i].sum()) for i in range(1, len(groups) + 1)]
    means = [_mean_vector(group, vectors) for group in groups]
    return Persons(number, np.array(total), np.array(means).reshape(len(groups), vectors.shape[-1]))


def _link(
    center: NDArray[np.floating],
    side: NDArray[np.floating],
    vectors: NDArray[np.floating],
    cuts: NDArray[np.bool_],
) -> list[_Piece]:
    """Link faces of consecutive frames into pieces."""
    pieces: list[_Piece] = []
    open_pieces: list[_Piece] = []
    for i in range(len(center)):
        here = np.flatnonzero(np.isfinite(side[i]))
        open_pieces = [] if cuts[i] else [p for p in open_pieces if i - p.frames[-1] <= _GAP]
        costs = np.array(
            [[_cost(piece, i, k, center, side, vectors) for k in here.tolist()] for piece in open_pieces]
        ).reshape(len(open_pieces), len(here))
        taken = set()
        for row, column in zip(*linear_sum_assignment(np.minimum(costs, 1e6)), strict=True):
            if np.isfinite(costs[row, column]):
                open_pieces[row].add(i, int(here[column]))
                taken.add(int(here[column]))
        for k in here:
            if int(k) not in taken:
                open_pieces.append(_Piece([i], [int(k)]))
                pieces.append(open_pieces[-1])
    return pieces


def _cost(
    piece: _Piece,
    frame: int,
    face: int,
    center: NDArray[np.floating],
    side: NDArray[np.floating],
    vectors: NDArray[np.floating],
) -> float:
    """Return how unlikely a face continues a piece; infinite where it cannot."""
    before = piece.frames[-1], piece.faces[-1]
    sides = side[before], side[frame, face]
    motion = float(np.linalg.norm(center[frame, face] - center[before]) / np.mean(sides))
    growth = float(abs(np.log(sides[1] / sides[0])))
    apart = float(np.linalg.norm(vectors[frame, face] - vectors[before]))
    if motion > _FARTHEST or growth > _FARTHEST or apart > SAME_PERSON:
        return float("inf")
    return motion + growth + (0.0 if np.isnan(apart) else apart)


def _parted(piece: _Piece, vectors: NDArray[np.floating]) -> list[_Piece]:
    """Part a piece where one person fades into another one: no single step of that is too large to follow."""
    rows = vectors[piece.frames, piece.faces].astype(np.float64)
    known = np.flatnonzero(np.isfinite(rows).all(axis=1))
    if len(known) < 2 * _WINDOW:
        return [piece]
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows[known], axis=0)])
    width = max(_WINDOW, len(known) // _MOST_WINDOWS)
    starts = np.arange(0, len(known) - width + 1, width)
    means = (sums[starts + width] - sums[starts]) / width
    if float(cdist(means, means).max()) < _FADED:
        return [piece]
    count = np.arange(_WINDOW, len(known) - _WINDOW + 1)
    before, after = sums[count] / count[:, None], (sums[-1] - sums[count]) / (len(known) - count)[:, None]
    apart = ((before - after) ** 2).sum(axis=1) * count * (len(known) - count)
    at = int(known[count[int(apart.argmax())]])
    first, second = _Piece(piece.frames[:at], piece.faces[:at]), _Piece(piece.frames[at:], piece.faces[at:])
    return [*_parted(first, vectors), *_parted(second, vectors)]


def _mean_vector(group: list[_Piece], vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = np.concatenate([vectors[piece.frames, piece.faces] for piece in group])
    known = rows[np.isfinite(rows).all(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(vectors.shape[-1], np.nan)


def _join(pieces: list[_Piece], vectors: NDArray[np.floating]) -> list[list[_Piece]]:
    """Join pieces that show one person, the most alike first; no two of a person share a frame."""
    groups = [[piece] for piece in pieces]
    means = [_mean_vector(group, vectors) for group in groups]
    frames = [set(piece.frames) for piece in pieces]
    while len(groups) > 1:
        apart = np.linalg.norm(np.array(means)[:, None] - np.array(means)[None], axis=-1)
        apart[np.isnan(apart)] = np.inf
        for i in range(len(groups)):
            for j in range(i + 1):
                apart[i, j] = np.inf
                if i != j and frames[i] & frames[j]:
                    apart[j, i] = np.inf
        j, i = map(int, np.unravel_index(int(apart.argmin()), apart.shape))
        if apart[j, i] > _JOINED:
            break
        groups[j] += groups.pop(i)
        frames[j] |= frames.pop(i)
        means.pop(i)
        means[j] = _mean_vector(groups[j], vectors)
    return groups


def changes(persons: Persons, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return how much each person's face changes: a picture's on the wall never does (:data:`STILL`).

    Place, size and turn of a face do not count: a camera can move.

    Args:
        persons: the clip's persons.
        points: landmarks ``[T,K,478,2]`` in pixels.

    Returns:
        ``[n]``: mean motion of the points that move, over the face's side; NaN for who is seen in few frames.
    """
    changed = np.full(len(persons), np.nan)
    for i in range(len(persons)):
        face = persons.faces_of(i + 1)
        frames = np.flatnonzero(face >= 0)
        if len(frames) < _FEW:
            continue
        mesh = points[frames, face[frames], :N_MESH].astype(np.float64)
        mesh -= mesh.mean(axis=1, keepdims=True)
        # as complex numbers, so that one factor takes size and turn away
        flat = mesh[..., 0] + 1j * mesh[..., 1]
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        mean = flat[0]
        for _ in range(2):
            turn = (flat.conj() * mean).sum(axis=1, keepdims=True)
            flat *= turn / np.abs(turn)
            mean = flat.mean(axis=0)
        side = float(max(np.ptp(mean.real), np.ptp(mean.imag)))
        change = np.sqrt((np.abs(flat - mean) ** 2).mean(axis=0))
        changed[i] = float(np.quantile(change, _MOVING_PART)) / side
    return changed


def alive(persons: Persons, changed: NDArray[np.floating]) -> Persons:
    """Return the persons with no weight for pictures on the wall, where somebody beside them moves.

    Args:
        persons: the clip's persons.
        changed: ``[n]``: how much each face changes (:func:`changes`).
    """
    with np.errstate(invalid="ignore"):
        moves = changed >= STILL
    return persons.among(moves & (persons.weight > _BESIDE_PICTURE * persons.weight.max()))


def choose_person(
    persons: Persons, choice: str, points: NDArray[np.floating], like: NDArray[np.floating] | None = None
) -> int:
    """Return the number of the person that drives.

    Args:
        persons: the clip's persons.
        choice: ``largest``: the one who is largest and most central over the clip, and of those who are
            nearly so the largest one when they first appear; a number; or ``like``.
        points: landmarks ``[T,K,478,2]`` in pixels.
        like: recognition vector ``[D]`` of the person to choose.

    Raises:
        InputError: there is no such person; the message follows the video's name.
    """
    if choice == "like":
        if like is None or not np.isfinite(like).all():
            raise InputError("cannot be searched for a face: the picture to compare with shows none")
        apart = np.linalg.norm(persons.vectors - like, axis=1)
        best = int(np.nanargmin(apart)) if np.isfinite(apart).any() else -1
        if best < 0 or apart[best] > SAME_PERSON:
            how_near = f"the nearest is {apart[best]:.2f} away" if best >= 0 else "no face can be compared"
            raise InputError(
                f"shows nobody like the given picture ({how_near}, the limit is {SAME_PERSON}); choose a "
                "person by number"
            )
        return best + 1
    if choice != "largest":
        if not 1 <= int(choice) <= len(persons):
            raise InputError(
                f"shows {len(persons)} persons, and number {choice} is asked for; `portrait check` shows "
                "them with their numbers"
            )
        return int(choice)
    near = np.flatnonzero(persons.weight >= _NEAR_TIE * persons.weight.max()) + 1
    if len(near) == 1:
        return int(near[0])
    mesh = points[:, :, :N_MESH]
    side = (mesh.max(axis=2) - mesh.min(axis=2)).max(axis=-1)
    shown = np.isin(persons.number, near)
    frame = int(shown.any(axis=1).argmax())
    face = int(np.where(shown[frame], np.nan_to_num(side[frame]), -1).argmax())
    return int(persons.number[frame, face])
