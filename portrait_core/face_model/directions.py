"""Directions of expression beyond the head's named units: small smooth displacements of the skin.

52 units do not span what faces do: the corner of a mouth goes where the sum of none of them goes. A
direction moves one handle (a group of landmarks) along the skin by :data:`HANDLE_M` and leaves every other
handle where it is; between them the skin bends as a thin plate. Directions stand behind the units in the
head's basis, so that decoding, fitting and retargeting of expressions include them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.alignment import landmark_matrix, mesh_laplacian
from portrait_core.face_model.expression_names import PREFIX, is_direction
from portrait_core.face_model.head import MorphableHead

Array = NDArray[np.float64]

HANDLE_M = 0.01
"""Distance that a handle moves when its direction's coefficient is 1, in metres."""
_STIFFNESS = 0.5
_HOLD = 50.0
_OUTSIDE_HOLD = 1.0
_MIN_HOLD = 1e-6
_STEEPEST = 1.0
"""Largest slope of the skin against the face's plane along which a handle moves."""


@dataclass(frozen=True)
class Handle:
    """A group of landmarks that move as one; ``name`` without its side."""

    name: str
    right: tuple[int, ...]
    left: tuple[int, ...] = ()
    along_skin: bool = False
    """True where it moves along the skin's slope, which edges of lips do not have."""


HANDLES = (
    Handle("LipCorner", (61,), (291,), along_skin=True),
    Handle("LipCornerEdge", (78,), (308,)),
    Handle("UpperLipMiddle", (0, 11)),
    Handle("UpperLip", (39, 37), (269, 267)),
    Handle("UpperLipSide", (185, 40), (409, 270)),
    Handle("UpperLipEdgeMiddle", (13, 82, 312)),
    Handle("UpperLipEdge", (81,), (311,)),
    Handle("UpperLipEdgeSide", (191,), (415,)),
    Handle("LowerLipEdgeMiddle", (14, 87, 317)),
    Handle("LowerLipEdge", (178,), (402,)),
    Handle("LowerLipEdgeSide", (95,), (324,)),
    Handle("LowerLipMiddle", (17, 84, 314, 16)),
    Handle("LowerLip", (181,), (405,)),
    Handle("InnerBrow", (107, 55), (336, 285), along_skin=True),
    Handle("MiddleBrow", (105, 52), (334, 282), along_skin=True),
    Handle("OuterBrow", (70, 46), (300, 276), along_skin=True),
    Handle("BetweenBrows", (9, 8), along_skin=True),
    Handle("EyeCorner", (33, 130), (263, 359)),
    Handle("NoseWing", (48, 64), (278, 294), along_skin=True),
    Handle("Cheek", (50, 205), (280, 425), along_skin=True),
)
"""Right and left are the subject's; a handle without a left one lies on the midline."""
_STILL = (6, 197, 195, 5, 4, 1, 151, 10, 109, 338, 67, 297, 152, 175, 199, 200)
"""Landmarks that no direction moves, beside the eyes' and the face's outline: nose, forehead, chin."""


def handle_points() -> list[int]:
    """Give the first landmark of every handle, which its directions bring to where it was seen."""
    return [points[0] for _, points, _ in _sided()]


def _sided() -> Iterator[tuple[str, tuple[int, ...], bool]]:
    for handle in HANDLES:
        if not handle.left:
            yield handle.name, handle.right, handle.along_skin
            continue
        yield f"{handle.name}Right", handle.right, handle.along_skin
        yield f"{handle.name}Left", handle.left, handle.along_skin


def direction_names() -> list[str]:
    """Name the directions, in the order of their coefficients: each handle across, then up."""
    return [f"{PREFIX}{name}{axis}" for name, _, _ in _sided() for axis in ("Across", "Up")]


def with_directions(head: MorphableHead) -> MorphableHead:
    """Give the head with the directions appended to its expressions; a third of a second.

    Args:
        head: one with the 478 face-mesh landmarks, without directions.

    Raises:
        ValueError: if it is another head.
    """
    if len(dict(head.named_buffers()).get("lmk_faces_idx", ())) != regions.N_LANDMARKS:
        raise ValueError(
            f"this head does not have {regions.N_LANDMARKS} face-mesh landmarks, which directions move; use "
            "the embedded head"
        )
    if any(is_direction(name) for name in head.expression_names):
        raise ValueError("this head has directions already; extend the head of the file")
    handles = [(points, along) for _, points, along in _sided()]
    bumps = _bumps(head, [points for points, _ in handles])
    axes = np.stack([_axes(head, points) if along else _FLAT for points, along in handles])
    basis = HANDLE_M * np.einsum("vh,had->vdha", bumps, axes).reshape(head.n_vertices, 3, -1)
    return head.extended(torch.from_numpy(basis).float(), direction_names())


_FLAT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def _axes(head: MorphableHead, points: Sequence[int]) -> Array:
    """Return across and up ``[2,3]`` along the skin at a handle, of length 1 as the viewer sees them."""
    template = head.landmarks(head.template[None])[0].cpu().double().numpy()
    around = np.linalg.norm(template - template[list(points)].mean(0), axis=1) < 0.022
    near = template[around] - template[around].mean(0)
    normal = np.linalg.svd(near)[2][2]
    normal = normal * np.sign(normal[2])
    slope = np.clip(-normal[:2] / max(normal[2], 1e-3), -_STEEPEST, _STEEPEST)
    return np.array([[1.0, 0.0, slope[0]], [0.0, 1.0, slope[1]]])


def _bumps(head: MorphableHead, handles: Sequence[Sequence[int]]) -> Array:
    """Return the share of each handle's motion that each vertex takes ``[V,H]``.

    It is 1 at the handle and 0 at the others.
    """
    eyes = (regions.RIGHT_EYE, regions.LEFT_EYE)
    still = {*_STILL, *regions.FACE_OVAL, *(i for eye in eyes for i in eye.upper + eye.lower)}
    still -= {i for group in handles for i in group}
    groups = [*handles, sorted(still)]
    pick = landmark_matrix(head)
    held = np.concatenate([np.asarray(group) for group in groups])
    wanted = np.zeros((len(held), len(handles)))
    start = 0
    for column, group in enumerate(handles):
        wanted[start : start + len(group), column] = 1.0
        start += len(group)
    rows = pick[held]
    laplacian = mesh_laplacian(head)
    face, mouth = (head.mask(name).cpu().numpy() for name in ("face", "inside_mouth"))
    outside = np.where((face < 0.01) & (mouth <= 0.5), _OUTSIDE_HOLD, 0.0)
    held_still = sp.diags(outside + _MIN_HOLD)
    system = _STIFFNESS * laplacian.T @ laplacian + _HOLD * rows.T @ rows + held_still
    bumps = splu(system.tocsc()).solve(_HOLD * (rows.T @ wanted))
    skin = head.group_vertices(head.group_names[0]).cpu().numpy()
    return np.asarray(np.where(skin[:, None], bumps, 0.0))
