"""Files of the FLAME head: the model itself and DECA's landmarks on its surface.

Both are pickles, the first one often written by Python 2 with chumpy and old scipy. Neither package is needed
to read it: their objects are read as the arrays that they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from portrait_core.weights.file_checks import integers, numbers, reading
from portrait_core.weights.readers.array_pickle import (
    OBJECT_NAMES,
    PickledObject,
    read_array_pickle,
)
from portrait_core.weights.readers.brief import brief, listed
from portrait_core.weights.readers.npy_pickle import read_object_npy

IDENTITY, EXPRESSION, JOINTS = 300, 100, 5
"""Directions and joints of the published model: shape, then expression."""
_POSE_FEATURES = 9 * (JOINTS - 1)
_MOST_NESTED = 4
_CONTOUR_ROWS, _CONTOUR, _STATIC = 79, 17, 51


@dataclass(frozen=True)
class FlameArrays:
    """FLAME's own arrays: V vertices (5023 as published), F triangles (9976); lengths in metres."""

    v_template: NDArray[np.floating[Any]]
    """``[V,3]`` in metres; float32 or float64 as in the file (the published one: float64), like all arrays
    below."""
    shapedirs: NDArray[np.floating[Any]]
    """``[V,3,400]`` displacements in metres: 300 directions of identity, then 100 of expression."""
    posedirs: NDArray[np.floating[Any]]
    """``[V,3,36]`` pose correctives, by the 9 rotation entries of 4 joints."""
    j_regressor: NDArray[np.floating[Any]]
    """``[5,V]``, dense: joints from vertices."""
    weights: NDArray[np.floating[Any]]
    """``[V,5]`` skinning weights."""
    kintree_table: NDArray[np.int64]
    """``[2,5]`` int64: parents, joints. The root's parent, 4294967295 in the file, is -1 here."""
    faces: NDArray[np.int64]
    """``[F,3]`` int64 vertex indices from 0."""


@dataclass(frozen=True)
class LandmarkEmbedding:
    """The 68 landmarks on FLAME's surface: triangles, and barycentric weights of their corners."""

    static_faces: NDArray[np.int64]
    """``[51]`` int64 triangles of all landmarks but the contour."""
    static_bary: NDArray[np.floating[Any]]
    """``[51,3]`` float32 or float64, like all barycentric weights."""
    dynamic_faces: NDArray[np.int64]
    """``[79,17]`` int64 triangles of the contour, one row per degree of yaw (0 to 39, then -1 to -39)."""
    dynamic_bary: NDArray[np.floating[Any]]
    """``[79,17,3]`` weights of the contour."""
    full_faces: NDArray[np.int64]
    """``[68]`` int64 triangles of all landmarks of the head seen from the front."""
    full_bary: NDArray[np.floating[Any]]
    """``[68,3]`` weights of these landmarks."""


class _Chumpy(PickledObject):
    """A ``chumpy.Ch``: its values are in ``x``; its other attributes depend on the version."""

    def values(self, depth: int) -> NDArray[Any]:
        """Return its values; ``depth`` counts what it is inside of."""
        return _array(self.state.get("x"), depth)


class _Selected(PickledObject):
    """A ``chumpy.reordering.Select``: some entries of another array."""

    def values(self, depth: int) -> NDArray[Any]:
        """Return the selected entries; ``depth`` counts what it is inside of."""
        source, indices = (_array(self.state.get(name), depth).ravel() for name in ("a", "idxs"))
        shape = self.state.get("preferred_shape", indices.shape)
        if indices.dtype.kind not in "iu" or not np.all((indices >= 0) & (indices < source.size)):
            raise ValueError("it selects entries of an array that the array does not have")
        if not isinstance(shape, tuple) or not all(type(length) is int for length in shape):
            raise ValueError("it selects entries into a shape that is none")
        return source[indices.astype(np.int64)].reshape(shape)


class _Columns(PickledObject):
    """A ``scipy.sparse.csc_matrix``."""

    def values(self, rows: int, columns: int) -> NDArray[Any]:
        """Return the dense matrix ``[rows, columns]``; a file that states another size is refused."""
        shape = self.state.get("_shape")
        if not isinstance(shape, tuple) or shape != (rows, columns):
            raise ValueError(f"J_regressor has shape {brief(shape):.40}, expected ({rows}, {columns})")
        arrays = [_array(self.state.get(name)) for name in ("data", "indices", "indptr")]
        try:
            matrix = sparse.csc_matrix(tuple(arrays), shape=shape)
            matrix.check_format(full_check=True)
        except (TypeError, IndexError) as error:
            raise ValueError(f"J_regressor is damaged: {error!s:.120}") from error
        return np.asarray(matrix.toarray())


_NAMES: Mapping[tuple[str, str], Any] = {
    **OBJECT_NAMES,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Selected,
    ("scipy.sparse.csc", "csc_matrix"): _Columns,
    ("scipy.sparse._csc", "csc_matrix"): _Columns,
}


def read_flame(path: str | Path) -> FlameArrays:
    """Read ``generic_model.pkl``, with plain numpy arrays or chumpy's, of Python 2 or 3.

    Neither chumpy nor the scipy that wrote it need be installed, and nothing in it is run.

    Raises:
        ModelFileError: the file is missing, asks for anything but arrays, or does not hold a FLAME head.
    """
    with reading(path, "flame") as file:
        content = read_array_pickle(file, _NAMES)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, expected a dict of arrays")
        return _flame(content)


def _flame(content: Mapping[str, Any]) -> FlameArrays:
    template = numbers(_named(content, "v_template"), "v_template", (None, 3))
    count = len(template)
    regressor = content.get("J_regressor")
    dense = regressor.values(JOINTS, count) if isinstance(regressor, _Columns) else _array(regressor)
    return FlameArrays(
        v_template=template,
        shapedirs=numbers(_named(content, "shapedirs"), "shapedirs", (count, 3, IDENTITY + EXPRESSION)),
        posedirs=numbers(_named(content, "posedirs"), "posedirs", (count, 3, _POSE_FEATURES)),
        j_regressor=numbers(dense, "J_regressor", (JOINTS, count)),
        weights=numbers(_named(content, "weights"), "weights", (count, JOINTS)),
        kintree_table=_tree(_named(content, "kintree_table")),
        faces=integers(_named(content, "f"), "f", (None, 3), count),
    )


def _tree(table: NDArray[Any]) -> NDArray[np.int64]:
    """Return the table of parents, with -1 for the root's; refuse parents after their children."""
    if table.shape != (2, JOINTS) or table.dtype.kind not in "iu":
        raise ValueError(f"kintree_table is {table.dtype} {table.shape}, expected integers (2, {JOINTS})")
    tree = table.astype(np.int64)
    if tree[0, 0] == 2**32 - 1:
        tree[0, 0] = -1
    joints = np.arange(JOINTS)
    if tree[0, 0] != -1 or np.any(tree[0, 1:] < 0) or np.any(tree[0] >= joints) or np.any(tree[1] != joints):
        raise ValueError(f"kintree_table is no tree of {JOINTS} joints: {tree.tolist()}")
    return tree


def read_landmark_embedding(path: str | Path) -> LandmarkEmbedding:
    """Read ``landmark_embedding.npy``, an array of one pickled dict of arrays and torch tensors.

    Nothing in it is run, nor in the pickles inside its tensors.

    Raises:
        ModelFileError: the file is missing, asks for anything but arrays and tensors, or does not hold
            FLAME's landmarks.
    """
    with reading(path, "flame_landmarks") as file:
        content = read_object_npy(file)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, expected a dict of arrays")
        rows = (_CONTOUR_ROWS, _CONTOUR)
        return LandmarkEmbedding(
            *_points(content, "static", (_STATIC,)),
            *_points(content, "dynamic", rows),
            *_points(content, "full", (_STATIC + _CONTOUR,)),
        )


def _points(
    content: Mapping[str, Any], kind: str, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.floating[Any]]]:
    faces_name, bary_name = f"{kind}_lmk_faces_idx", f"{kind}_lmk_bary_coords"
    faces, bary = _named(content, faces_name), _named(content, bary_name)
    if kind == "full" and faces.shape[:1] == (1,):  # these two have a batch axis in the file
        faces, bary = faces[0], bary.reshape(bary.shape[1:]) if bary.shape[:1] == (1,) else bary
    return integers(faces, faces_name, shape), numbers(bary, bary_name, (*shape, 3))


def _named(content: Mapping[str, Any], name: str) -> NDArray[Any]:
    if name not in content:
        raise ValueError(f"it lacks {name}; it holds {listed(content)}")
    try:
        return _array(content[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _array(value: Any, depth: int = 0) -> NDArray[Any]:
    if depth > _MOST_NESTED:
        raise ValueError("arrays are inside each other too deeply")
    if isinstance(value, _Chumpy | _Selected):
        return value.values(depth + 1)
    if isinstance(value, Tensor):
        return value.numpy()
    if not isinstance(value, np.ndarray):
        raise ValueError(f"expected an array, got a {type(value).__name__}")
    return np.asarray(value)


@dataclass(frozen=True)
class FlameMasks:
    """Regions of the head by FLAME's own names: ``face``, ``lips``, ``eye_region``, ``scalp`` and others."""

    regions: Mapping[str, NDArray[np.int64]]
    """``[n]`` int64 vertex indices of each region."""


def read_flame_masks(path: str | Path) -> FlameMasks:
    """Read ``FLAME_masks.pkl``.

    Raises:
        ModelFileError: the file is missing, asks for anything but arrays, or lacks the face or the lips.
    """
    with reading(path, "flame_masks") as file:
        content = read_array_pickle(file)
        if not isinstance(content, dict) or not {"face", "lips"} <= set(content):
            held = listed(content) if isinstance(content, dict) else ""
            raise ValueError(f"it holds {held or type(content).__name__}, expected face, lips and others")
        regions = {str(name): _array(value).ravel() for name, value in content.items()}
        return FlameMasks({name: integers(value, name, (None,)) for name, value in regions.items()})
