"""PIRenderer without eyes: the paper's variant whose eye region keeps the expression of the first frame.

The paper fixes "the eye vertices of the 3DMM model to those of the first frame in the target image sequence"
(section 4.1, table 1) and does not state how. PIRenderer sees no vertices, only coefficients that move the
whole face, so here the expression is solved for: its vertices around the eyes stand as in the first frame,
all others as in their own frame, as nearly as 64 coefficients allow. That takes the Basel face's expression
basis, from a file that the user brings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from portrait_core.baselines.pirenderer_windows import EXPRESSION, Rows, checked_rows
from portrait_core.weights.file_checks import checking
from portrait_core.weights.locate import require
from portrait_core.weights.readers.mat_files import BfmArrays, read_bfm
from portrait_core.weights.registry import explain

_EYES = (slice(36, 42), slice(42, 48))
"""Landmarks of either eye among the 68."""
_REACH = 1.3
"""Distance of the eye region's border from the eye's middle, over that of the farthest corner.

The value is ours: the region holds both lids and ends below the brow.
"""
_RIDGE = 1e-6
"""Pull toward the frame's own expression, over the mean of the normal matrix' diagonal, for coefficients that
move nothing."""


def eye_vertices(face: BfmArrays) -> NDArray[np.bool_]:
    """Return which vertices ``[N]`` of the mean face lie around the eyes."""
    points = np.asarray(face.mean_shape, np.float64)
    out = np.zeros(len(points), bool)
    for eye in _EYES:
        marks = points[face.keypoints[eye]]
        middle = marks.mean(0)
        reach = _REACH * np.linalg.norm(marks - middle, axis=1).max()
        out |= np.linalg.norm(points - middle, axis=1) <= reach
    return out


def eye_part(face: BfmArrays) -> NDArray[np.float64]:
    """Return the matrix ``[64,64]`` that takes the part of a change of expression that is seen at the eyes.

    For an expression c and that of the first frame, a, it gives the least squares ``c + part @ (a - c)``: the
    mean squared distance of vertices around the eyes from a's, and of the others from c's, in sum the
    smallest. Both means weigh the same, so that the many others do not outvote the eyes; this too is ours.

    Raises:
        ValueError: if all vertices lie around the eyes.
    """
    eyes = eye_vertices(face)
    if eyes.all():
        raise ValueError(
            "all vertices of the face lie around its eyes: its landmarks are not those of a face"
        )
    held, free = (_mean_product(face.expression[part]) for part in (eyes, ~eyes))
    whole = held + free
    whole[np.diag_indices(len(whole))] += _RIDGE * max(np.trace(whole) / len(whole), 1e-30)
    return np.asarray(np.linalg.solve(whole, held), np.float64)


def _mean_product(basis: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the normal matrix of displacements ``[n,3,64]`` over their number."""
    flat = np.asarray(basis, np.float64).reshape(-1, basis.shape[2])
    return flat.T @ flat / len(basis)


def eye_part_from_file(path: str | Path | None = None) -> NDArray[np.float64]:
    """Return :func:`eye_part` of the user's Basel face.

    Args:
        path: ``BFM_model_front.mat``; None looks where all files of weights are looked for.

    Raises:
        ModelFileError: the file is missing or is no such face; the message names it, its source, its licence
            and the command that checks it.
    """
    path = require(["bfm"])["bfm"] if path is None else path
    face = read_bfm(path)
    with checking(path, "bfm"):
        return eye_part(face)


def without_eyes(rows: NDArray[np.floating], part: NDArray[np.floating] | None) -> Rows:
    """Return the driver's rows with the eyes' expression of the first frame in all frames.

    This stands for the paper's variant "w/o eyes"; the paper does not state how it was done (see the module).

    Args:
        rows: the driver's ``[T,260]``.
        part: :func:`eye_part` or :func:`eye_part_from_file`.

    Raises:
        ValueError: if there is no ``part``; the message names the file that it comes from, its source, its
            licence and the command that checks it.
    """
    if part is None:
        problem = (
            "is needed to hold the eyes still: PIRenderer's coefficients alone do not tell which of them "
            "move the eyes; pass eye_part_from_file()"
        )
        raise ValueError(explain("bfm", "bfm", problem))
    out = checked_rows(rows).copy()
    own = out[:, EXPRESSION].astype(np.float64)
    out[:, EXPRESSION] = own + (own[:1] - own) @ np.asarray(part, np.float64).T
    return out
