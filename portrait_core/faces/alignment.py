"""Small corrections that make the fitted mesh pass exactly through the landmarks of one photograph.

The fit leaves a pixel or two of error around eyes and lips. There a pixel decides whether a lid is sampled
from the lid or from the eyeball, so the remaining error is spread smoothly over the mesh, as a thin plate.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from portrait_core.faces import landmark_regions as regions
from portrait_core.faces.head import MorphableHead

_STIFFNESS = 2.0
_PULL_TO_ZERO = 2e-4


def landmark_residual_field(
    head: MorphableHead, projected_px: NDArray[np.floating], detected_px: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Displacements ``[V,2]`` in pixels that carry projected landmarks onto detected ones.

    Args:
        head: a head with the 478 landmarks of :mod:`landmark_regions`.
        projected_px: ``[478,2]`` landmarks of the fitted mesh, in pixels.
        detected_px: ``[478,2]`` landmarks found in the photograph, in the same pixels.

    Returns:
        A smooth field over the skin; the teeth and the tongue take the lips' mean, each eye its iris's.
    """
    residual = np.nan_to_num(np.asarray(detected_px, float) - np.asarray(projected_px, float))
    faces = head.faces.cpu().numpy()
    body = faces[head.face_group.cpu().numpy() == 0]
    field = _thin_plate(body, head, residual, head.n_vertices)
    lips = residual[list(regions.INNER_LIPS.upper + regions.INNER_LIPS.lower)].mean(0)
    parts = {
        "helper-upper-teeth": lips,
        "helper-lower-teeth": lips,
        "helper-tongue": lips,
        "helper-r-eye": residual[list(regions.RIGHT_IRIS)].mean(0),
        "helper-l-eye": residual[list(regions.LEFT_IRIS)].mean(0),
    }
    for name, shift in parts.items():
        if name in head.group_names:
            field[head.group_vertices(name).cpu().numpy()] = shift
    return field.astype(np.float32)


def _thin_plate(body: NDArray[np.int64], head: MorphableHead, residual: NDArray[np.float64], n: int):  # type: ignore[no-untyped-def]
    edge = np.concatenate([body[:, [0, 1]], body[:, [1, 2]], body[:, [2, 0]]])
    graph = sp.coo_matrix((np.ones(len(edge)), (edge[:, 0], edge[:, 1])), shape=(n, n)).tocsr()
    graph = ((graph + graph.T) > 0).astype(float)
    degree = np.maximum(np.asarray(graph.sum(1))[:, 0], 1.0)
    laplacian = sp.eye(n) - sp.diags(1.0 / degree) @ graph
    corner = head.faces[head._array("lmk_faces_idx")].cpu().numpy()[: len(residual)]
    bary = head._array("lmk_bary_coords").cpu().numpy()[: len(residual)]
    rows = np.repeat(np.arange(len(residual)), 3)
    pick = sp.coo_matrix((bary.reshape(-1), (rows, corner.reshape(-1))), shape=(len(residual), n)).tocsr()
    weight = _landmark_weights(len(residual))
    system = (
        _STIFFNESS * laplacian.T @ laplacian + pick.T @ sp.diags(weight) @ pick + _PULL_TO_ZERO * sp.eye(n)
    )
    return splu(system.tocsc()).solve(pick.T @ (weight[:, None] * residual))


def _landmark_weights(count: int) -> NDArray[np.float64]:
    weight = np.full(count, 0.3)
    weight[list(regions.FACE_OVAL)] = 0.02  # under the hair the detector guesses
    weight[list(regions.JAW_LINE)] = 0.15
    for curves in (regions.RIGHT_EYE, regions.LEFT_EYE, regions.INNER_LIPS, regions.OUTER_LIPS):
        weight[list(curves.upper + curves.lower)] = 5.0
    weight[list(regions.RIGHT_IRIS + regions.LEFT_IRIS)] = 0.0  # the eyeballs are not part of the skin
    return weight
