"""MATLAB files of Deep3DFaceRecon: landmarks of its mean face, and its conversion of the Basel face.

Only plain arrays of numbers are read; files with functions or objects are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.weights.file_checks import Shape, checking, integers, numbers, open_weights
from portrait_core.weights.readers.matlab import read_arrays

_IDENTITY, _EXPRESSION, _TEXTURE, _LANDMARKS = 80, 64, 80, 68


@dataclass(frozen=True)
class SimilarityLandmarks:
    """The used content of ``similarity_Lm3D_all.mat``."""

    landmarks: NDArray[np.floating[Any]]
    """``[68,3]`` float64, y up: the mean face's landmarks in the order of the 68-point scheme."""


@dataclass(frozen=True)
class BfmArrays:
    """Content of ``BFM_model_front.mat``: N vertices (35,709 as published), F triangles; indices from 0."""

    mean_shape: NDArray[np.floating[Any]]
    """``[N,3]`` positions."""
    identity: NDArray[np.floating[Any]]
    """``[N,3,80]`` displacements of identity."""
    expression: NDArray[np.floating[Any]]
    """``[N,3,64]`` displacements of expression."""
    mean_texture: NDArray[np.floating[Any]]
    """``[N,3]`` colours from 0 to 255."""
    texture: NDArray[np.floating[Any]]
    """``[N,3,80]`` differences of colour."""
    faces: NDArray[np.int64]
    """``[F,3]`` int64 vertex indices."""
    point_faces: NDArray[np.int64]
    """``[N,8]`` int64 triangles around a vertex; F where there are fewer."""
    keypoints: NDArray[np.int64]
    """``[68]`` int64 vertices of the landmarks."""


def read_similarity_landmarks(path: str | Path) -> SimilarityLandmarks:
    """Read ``similarity_Lm3D_all.mat``.

    Raises:
        ModelFileError: the file is missing, is not a MATLAB 5 file of numbers, or holds no landmarks.
    """
    with checking(path, "deep3d_landmarks"):
        arrays = read_mat(path, ["lm"])
        return SimilarityLandmarks(numbers(arrays["lm"], "lm", (_LANDMARKS, 3)).astype(np.float64))


def read_bfm(path: str | Path) -> BfmArrays:
    """Read ``BFM_model_front.mat``.

    Raises:
        ModelFileError: the file is missing, is not a MATLAB 5 file of numbers, or holds no such face.
    """
    names = ["meanshape", "idBase", "exBase", "meantex", "texBase", "tri", "point_buf", "keypoints"]
    with checking(path, "bfm"):
        arrays = read_mat(path, names)
        count = arrays["meanshape"].size // 3

        def values(name: str, shape: Shape) -> NDArray[np.floating[Any]]:
            return numbers(arrays[name], name, shape)

        def indices(name: str, shape: Shape, below: int) -> NDArray[np.int64]:
            """Return indices from 0; the file holds numbers of any type, from 1."""
            rounded = np.rint(values(name, shape))
            if np.any(rounded != arrays[name]) or np.any(np.abs(rounded) > 2**40):
                raise ValueError(f"{name} has entries that are no indices")
            return integers(rounded.astype(np.int64) - 1, name, shape, below)

        faces = indices("tri", (None, 3), count)
        return BfmArrays(
            mean_shape=values("meanshape", (1, 3 * count)).reshape(count, 3),
            identity=values("idBase", (3 * count, _IDENTITY)).reshape(count, 3, _IDENTITY),
            expression=values("exBase", (3 * count, _EXPRESSION)).reshape(count, 3, _EXPRESSION),
            mean_texture=values("meantex", (1, 3 * count)).reshape(count, 3),
            texture=values("texBase", (3 * count, _TEXTURE)).reshape(count, 3, _TEXTURE),
            faces=faces,
            point_faces=indices("point_buf", (count, 8), len(faces) + 1),
            keypoints=indices("keypoints", (1, _LANDMARKS), count)[0],
        )


def read_mat(path: str | Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Read arrays of numbers from a MATLAB 5 file, as float or integer arrays of the file's shapes.

    Raises:
        OSError: the file does not exist.
        ValueError: it is not a MATLAB 5 file, is damaged, lacks one of ``names`` or holds functions or
            objects.
    """
    with open_weights(path) as file:
        return read_arrays(file, names)
