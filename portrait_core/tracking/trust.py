"""Which frames of one person's face can be believed: the face lies in the picture and does not jump.

The landmark network gives 468 points for whatever it is shown; where half of a face is outside the picture it
makes up the rest. Thresholds are in units of the face, so they hold for any resolution.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.topology import EYE_CONTOUR_LEFT, EYE_CONTOUR_RIGHT, N_MESH

UNTRUSTED = {
    "no_face": "no face was found",
    "another_person": "the person who drives is not in the picture, or not recognised (a covered face?)",
    "outside_picture": "the face lies partly outside the picture",
    "jumps": "the face jumps away from where it is before and after",
}
"""Reasons for which a frame is held from its neighbour, in the order in which they are looked for."""
_MOST_OUTSIDE = 0.1
"""Share of the landmarks that may lie outside the picture: hair and an ear's edge, no part that moves."""
_JUMP = 0.3
"""Mean motion of a face's points between two frames, over the face's side, that no head makes."""
_SHORT = 3
"""Longest run of frames between two jumps that is taken for wrong."""
_MOUTH = (13, 14, 61, 291)
_PARTS = (list(EYE_CONTOUR_RIGHT), list(EYE_CONTOUR_LEFT), list(_MOUTH))
_BROWS_AND_CHIN = (105, 334, 152)
_CUT_CHIN = 0.05
"""Largest distance beyond the edge, over the face's height, at which a brow or the chin counts as shown."""
_SQUEEZED = 0.85
"""Distance of eyes and mouth, over that of the eyes and over what it is in frames around, below which a face
at the edge is squeezed into what the picture shows of it."""
_SKULL_ABOVE, _SKULL_BESIDE = 0.45, 0.1
THUMBNAIL = 16
"""Side in pixels of the small copies of frames that scene cuts are found in."""
_CUT = 14.0
"""Mean difference of two frames' copies, in levels, from which on a new scene begins ..."""
_CUT_OVER_USUAL = 5.0
"""... if it is so many times the usual difference around it."""
_AROUND = 12


def outside_picture(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which faces lie so far outside their picture that they cannot be read.

    Args:
        points: landmarks ``[n,478,2]`` in pixels; rows of NaN give False.
        size: width and height of the picture in pixels.

    Returns:
        ``[n]`` bool.
    """
    with np.errstate(invalid="ignore"):
        out = ((points < 0) | (points > np.asarray(size))).any(axis=-1)
    share = np.asarray(out)[:, :N_MESH].mean(axis=1)
    middles = np.stack([points[:, part].mean(axis=1) for part in _PARTS], axis=1)
    with np.errstate(invalid="ignore"):
        lost = ((middles < 0) | (middles > np.asarray(size))).any(axis=(1, 2))
    return np.asarray((share > _MOST_OUTSIDE) | lost)


def face_is_cut(points: NDArray[np.floating], size: tuple[int, int]) -> bool:
    """Tell whether a picture shows too little of a face to animate it: a brow, the chin, or more is outside.

    Args:
        points: landmarks ``[478,2]`` in pixels.
        size: width and height of the picture in pixels.
    """
    tolerance = _CUT_CHIN * float(np.linalg.norm(points[152] - points[10]))
    ends = points[list(_BROWS_AND_CHIN)]
    lost = ((ends < -tolerance) | (ends > np.asarray(size) + tolerance)).any()
    return bool(lost or outside_picture(points[None], size)[0])


def head_is_cut(points: NDArray[np.floating], size: tuple[int, int]) -> bool:
    """Tell whether the edge of a picture cuts the head of a face that it shows.

    Skull and hair reach almost half of the face's height above the mesh's highest point, and a tenth of its
    width beyond its sides.

    Args:
        points: landmarks ``[478,2]`` in pixels.
        size: width and height of the picture in pixels.
    """
    forehead, chin, right, left = points[[10, 152, 234, 454]].astype(np.float64)
    skull = forehead + _SKULL_ABOVE * (forehead - chin)
    sides = right + _SKULL_BESIDE * (right - left), left + _SKULL_BESIDE * (left - right)
    outline = np.stack([skull, *sides, chin])
    return bool(((outline < 0) | (outline > np.asarray(size))).any())


def squeezed(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell in which frames a face at the picture's edge is read shorter than around it.

    Where the edge cuts off the eyes or the mouth, the network may find them in what is left.

    Args:
        points: landmarks ``[T,478,2]`` of one person in pixels; rows of NaN give False.
        size: width and height of the picture in pixels.

    Returns:
        ``[T]`` bool.
    """
    right, left, mouth = (points[:, part].mean(axis=1) for part in _PARTS)
    length = np.linalg.norm((right + left) / 2 - mouth, axis=-1) / np.linalg.norm(right - left, axis=-1)
    out = _at_edge(points, size)
    short = np.zeros(len(points), bool)
    for i in np.flatnonzero(out & np.isfinite(length)).tolist():
        around = length[max(0, i - _AROUND) : i + _AROUND + 1]
        short[i] = length[i] < _SQUEEZED * np.nanmedian(around)
    return short


def _at_edge(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell of which faces ``[T,478,2]`` any point lies outside the picture."""
    with np.errstate(invalid="ignore"):
        return np.asarray(((points < 0) | (points > np.asarray(size))).any(axis=(1, 2)))


def _lost(points: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell in which frames a face is outside the picture or squeezed at its edge.

    For a moment between such frames it only seems not to be.
    """
    lost = outside_picture(points, size) | squeezed(points, size)
    there = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    between = _at_edge(points, size) & ~lost
    for run in np.split(there, np.flatnonzero(np.diff(between[there].astype(int))) + 1):
        if len(run) == 0 or not between[run[0]] or len(run) > _SHORT:
            continue
        before, after = there[there < run[0]][-1:], there[there > run[-1]][:1]
        if len(before) and len(after) and lost[before[0]] and lost[after[0]]:
            lost[run] = True
    return lost


def jumps(points: NDArray[np.floating], cuts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell in which frames a face stands where it cannot be, by the frames before and after.

    A run of at most three frames is wrong whose face jumps away from both neighbours (at a scene's ends, from
    the one that it has), if it is shorter than what lies beside it.

    Args:
        points: landmarks ``[T,478,2]`` in pixels; rows of NaN are passed over.
        cuts: ``[T]``: whether a new scene begins with the frame.

    Returns:
        ``[T]`` bool.
    """
    wrong = np.zeros(len(points), bool)
    there = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    for scene in np.split(there, _breaks(there, cuts)):
        runs = _runs(points, scene)
        longest = max(map(len, runs), default=0)
        for run in runs:
            if len(runs) > 1 and len(run) <= _SHORT and len(run) < longest:
                wrong[run] = True
    return wrong


def _breaks(there: NDArray[np.intp], cuts: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where in the frames ``there`` new scenes begin."""
    scene = np.cumsum(cuts)[there]
    return np.flatnonzero(np.diff(scene)) + 1


def _runs(points: NDArray[np.floating], scene: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Cut a scene's frames where the face jumps."""
    if len(scene) < 2:
        return [scene]
    mesh = points[scene, :N_MESH]
    side = (mesh.max(axis=1) - mesh.min(axis=1)).max(axis=-1)
    moved = np.linalg.norm(np.diff(mesh, axis=0), axis=-1).mean(axis=1)
    elapsed = np.sqrt(np.diff(scene))  # frames without a face lie between
    return np.split(scene, np.flatnonzero(moved / np.minimum(side[1:], side[:-1]) > _JUMP * elapsed) + 1)


def scene_cuts(thumbnails: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find the frames with which a new scene begins.

    Args:
        thumbnails: small copies of the frames ``[T,h,w,3]``.

    Returns:
        ``[T]`` bool; the first frame is none.
    """
    levels = thumbnails.astype(np.float64)
    change = np.abs(np.diff(levels, axis=0)).mean(axis=(1, 2, 3))
    cuts = np.zeros(len(thumbnails), bool)
    for i in np.flatnonzero(change > _CUT).tolist():
        around = np.delete(change[max(0, i - _AROUND) : i + _AROUND + 1], min(i, _AROUND))
        cuts[i + 1] = change[i] > _CUT_OVER_USUAL * (np.median(around) if len(around) else 0.0)
    return cuts


def untrusted(
    points: NDArray[np.floating],
    any_face: NDArray[np.bool_],
    cuts: NDArray[np.bool_],
    size: tuple[int, int],
) -> dict[str, NDArray[np.bool_]]:
    """Tell which frames of a person cannot be believed, and why.

    Args:
        points: the person's landmarks ``[T,478,2]`` in pixels, NaN where they are not seen.
        any_face: ``[T]``: whether the frame shows a face at all.
        cuts: ``[T]``: whether a new scene begins with the frame.
        size: width and height of the frames in pixels.

    Returns:
        Frames ``[T]`` by their first reason, a name of :data:`UNTRUSTED`.
    """
    seen = np.isfinite(points[:, 0, 0])
    outside = _lost(points, size)
    inside = np.where((seen & ~outside)[:, None, None], points, np.nan)
    return {
        "no_face": ~seen & ~any_face,
        "another_person": ~seen & any_face,
        "outside_picture": outside,
        "jumps": jumps(inside, cuts),
    }
