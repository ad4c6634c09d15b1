"""Smooth displacements of the skin through given landmark displacements.

The fit leaves a pixel or two of error around eyes and lips. There a pixel decides whether a lid is sampled
from the lid or from the eyeball, so the remaining error is spread smoothly over the mesh, as a thin plate.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening
from portrait_core.face_model.head import MorphableHead

_STIFFNESS = 2.0
_PULL_TO_ZERO = 2e-4


class LandmarkSpline:
    """A thin plate over a head's skin, bent so that landmarks move as told. Factorised once."""

    def __init__(self, head: MorphableHead):
        self._head, self._pick, self._weight = head, landmark_matrix(head), _landmark_weights()
        laplacian = mesh_laplacian(head)
        pull = self._pick.T @ sp.diags(self._weight) @ self._pick
        system = _STIFFNESS * laplacian.T @ laplacian + pull + _PULL_TO_ZERO * sp.eye(head.n_vertices)
        self._factor = splu(system.tocsc())

    def skin(self, moves: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the displacement of every vertex ``[V,2]`` for landmark displacements ``[478,2]``.

        Only the skin's values mean anything.
        """
        right = self._pick.T @ (self._weight[:, None] * np.nan_to_num(moves))
        return np.asarray(self._factor.solve(right), np.float32)

    def residual_field(
        self, projected_px: NDArray[np.floating], detected_px: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """Return displacements ``[V,2]`` that carry projected landmarks ``[478,2]`` onto detected ones.

        The skin bends; teeth and tongue take the lips' mean, each eye its iris's.
        """
        residual = _slide_along_curves(np.asarray(projected_px, float), np.asarray(detected_px, float))
        field = self.skin(residual)
        lips = residual[list(regions.INNER_LIPS.upper + regions.INNER_LIPS.lower)].mean(0)
        parts = {
            "helper-upper-teeth": lips,
            "helper-lower-teeth": lips,
            "helper-tongue": lips,
            "helper-r-eye": residual[list(regions.RIGHT_IRIS)].mean(0),
            "helper-l-eye": residual[list(regions.LEFT_IRIS)].mean(0),
        }
        for name, shift in parts.items():
            if name in self._head.group_names:
                field[self._head.group_vertices(name).cpu().numpy()] = shift
        return field


def _slide_along_curves(projected: NDArray[np.float64], detected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return residuals ``[478,2]`` that bring the points of lids and lips onto the detected curves.

    Every point keeps its place along the curve. A landmark's place along a smooth edge is not well defined;
    corners and distances across the edge are.
    Pulling points along the edge would carry the motion of a lip's side to its middle.
    """
    residual = detected - projected
    for curves in (regions.RIGHT_EYE, regions.LEFT_EYE, regions.INNER_LIPS, regions.OUTER_LIPS):
        upper, lower = list(curves.upper), list(curves.lower)
        mesh = Opening.from_points(projected[upper], projected[lower])
        photo = Opening.from_points(detected[upper], detected[lower])
        for points, side in ((upper, 0), (lower, 1)):
            inner = points[1:-1]
            along, _ = mesh.local(*projected[inner].T)
            along = np.clip(along, 0.0, 1.0)
            x, y = photo.position(along, photo.edges(along)[side])
            residual[inner] = np.stack([x, y], 1) - projected[inner]
    return residual


def landmark_matrix(head: MorphableHead) -> Any:
    """Give the sparse matrix ``[478,V]`` that takes vertices to landmarks."""
    corner = head.faces[head._array("lmk_faces_idx")].cpu().numpy()[: regions.N_LANDMARKS]
    bary = head._array("lmk_bary_coords").cpu().numpy()[: regions.N_LANDMARKS]
    rows = np.repeat(np.arange(len(corner)), 3)
    shape = (len(corner), head.n_vertices)
    return sp.coo_matrix((bary.reshape(-1), (rows, corner.reshape(-1))), shape=shape).tocsr()


def mesh_laplacian(head: MorphableHead) -> Any:
    """Give the uniform Laplacian of the head's skin, sparse ``[V,V]``."""
    n = head.n_vertices
    triangles = head.faces.cpu().numpy()[head.face_group.cpu().numpy() == 0]
    edge = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    graph = sp.coo_matrix((np.ones(len(edge)), (edge[:, 0], edge[:, 1])), shape=(n, n)).tocsr()
    graph = ((graph + graph.T) > 0).astype(float)
    degree = np.maximum(np.asarray(graph.sum(1))[:, 0], 1.0)
    return sp.eye(n) - sp.diags(1.0 / degree) @ graph


def _landmark_weights() -> NDArray[np.float64]:
    weight = np.full(regions.N_LANDMARKS, 0.3)
    weight[list(regions.FACE_OVAL)] = 0.02  # under the hair the detector guesses
    weight[list(regions.JAW_LINE)] = 0.15
    weight[list(regions.BELOW_LIPS)] = 2.0
    for curves in (regions.RIGHT_EYE, regions.LEFT_EYE, regions.INNER_LIPS, regions.OUTER_LIPS):
        weight[list(curves.upper + curves.lower)] = 5.0
    weight[list(regions.RIGHT_IRIS + regions.LEFT_IRIS)] = 0.0  # the eyeballs are not part of the skin
    return weight
