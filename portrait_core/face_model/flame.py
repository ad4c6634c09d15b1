"""FLAME as DECA uses it: which of its directions a code has, the 6-number pose, the 68 landmarks.

Li et al. 2017, "Learning a model of facial shape and expression from 4D scans"; the decoding itself is
:class:`~portrait_core.face_model.head.MorphableHead`'s.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.face_model.head import MorphableHead, PosedHead, axis_angle_to_matrix
from portrait_core.weights.readers.flame_files import EXPRESSION, IDENTITY, FlameArrays, LandmarkEmbedding

DECA_SHAPE, DECA_EXPRESSION = 100, 50
"""Directions of identity and of expression in a DECA code."""
POSE = 6
"""A pose: the global rotation, then the jaw's, each an axis-angle in radians."""
_LAST_COLUMN = 39
"""The contour is tabulated for yaws of 0 to 39 degrees, then -1 to -39."""


def flame_head(
    arrays: FlameArrays,
    n_shape: int = DECA_SHAPE,
    n_expression: int = DECA_EXPRESSION,
    landmarks: LandmarkEmbedding | None = None,
) -> MorphableHead:
    """Build the head from FLAME's arrays.

    Args:
        arrays: from ``read_flame``.
        n_shape: leading directions of identity to keep, 1..300.
        n_expression: leading directions of expression to keep, 1..100.
        landmarks: makes ``head.landmarks(vertices)`` the 68 points at fixed places (DECA's ``landmarks3d``).

    Raises:
        ValueError: if a number of directions is outside its range.
    """
    for name, count, limit in (("n_shape", n_shape, IDENTITY), ("n_expression", n_expression, EXPRESSION)):
        if not 1 <= count <= limit:
            raise ValueError(f"{name}={count}, but FLAME has {limit} such directions; choose 1 to {limit}")
    basis = torch.as_tensor(arrays.shapedirs)
    used: dict[str, NDArray[Any] | Tensor] = {
        "v_template": arrays.v_template,
        "shapedirs": torch.cat(
            [basis[..., :n_shape], basis[..., IDENTITY : IDENTITY + n_expression]], dim=-1
        ),
        "posedirs": arrays.posedirs,
        "J_regressor": arrays.j_regressor,
        "weights": arrays.weights,
        "kintree_table": arrays.kintree_table,
        "f": arrays.faces,
    }
    if landmarks is not None:
        used |= {"lmk_faces_idx": landmarks.full_faces, "lmk_bary_coords": landmarks.full_bary}
    return MorphableHead(used, {"n_shape": str(n_shape)})


def decode(
    head: MorphableHead,
    shape: Float[Tensor, "b s"],
    expression: Float[Tensor, "b e"],
    pose: Float[Tensor, "b 6"],
    eyes: Float[Tensor, "b 6"] | None = None,
) -> PosedHead:
    """Decode a DECA code; the neck stays at rest.

    Args:
        head: from :func:`flame_head`.
        shape: in standard deviations, at most as many components as the head has.
        expression: in standard deviations, at most as many components as the head has.
        pose: global rotation, then jaw; axis-angles in radians.
        eyes: left and right eyeball, axis-angles in radians; at rest if ``None``.

    Raises:
        ValueError: if the pose has not 6 numbers or a code too many components.
    """
    if pose.shape[-1] != POSE:
        raise ValueError(f"pose must be [B,{POSE}] (global, jaw), got {tuple(pose.shape)}; cut or pad it")
    return head.pose(shape, expression, jaw=pose[:, 3:], eyes=eyes, root=pose[:, :3])


def transfer_pose(source: Float[Tensor, "b 6"], target: Float[Tensor, "b 6"]) -> Float[Tensor, "b 6"]:
    """Return the source's head with the target's jaw (paper section 3.2); one row serves every other row."""
    batch = max(len(source), len(target))
    return torch.cat([source[:, :3].expand(batch, -1), target[:, 3:].expand(batch, -1)], 1)


class FlameLandmarks(nn.Module):
    """The 68 landmarks whose contour slides over the cheeks as the head turns (DECA's ``landmarks2d``)."""

    def __init__(self, embedding: LandmarkEmbedding, faces: Int[Tensor, "f 3"]):
        """Take the embedding of ``read_landmark_embedding`` and the head's triangles.

        Raises:
            ValueError: if the embedding names triangles that the head does not have.
        """
        super().__init__()
        highest = max(int(embedding.static_faces.max()), int(embedding.dynamic_faces.max()))
        if highest >= len(faces):
            raise ValueError(
                f"the landmarks name triangle {highest}, the head has {len(faces)}; "
                "use the landmark file that belongs to this head"
            )
        for name, triangles, weights in (
            ("static", embedding.static_faces, embedding.static_bary),
            ("contour", embedding.dynamic_faces, embedding.dynamic_bary),
        ):
            corner = faces[torch.as_tensor(triangles, device=faces.device)]
            self.register_buffer(f"_{name}_corner", corner, persistent=False)
            weight = torch.as_tensor(weights).float().to(faces.device)
            self.register_buffer(f"_{name}_weight", weight, persistent=False)
        self._static_corner: Tensor
        self._static_weight: Tensor
        self._contour_corner: Tensor
        self._contour_weight: Tensor

    def forward(
        self,
        vertices: Float[Tensor, "b v 3"],
        root: Float[Tensor, "b 3"],
        neck: Float[Tensor, "b 3"] | None = None,
    ) -> Float[Tensor, "b 68 3"]:
        """Return 17 points of the contour, then the 51 others, in the vertices' unit.

        ``root`` and ``neck`` are the rotations that the vertices were decoded with (axis-angle, radians).
        """
        row = contour_row(root, neck)
        corner = torch.cat(
            [self._contour_corner[row], self._static_corner.expand(len(row), -1, -1)], 1
        )  # b 68 3
        weight = torch.cat([self._contour_weight[row], self._static_weight.expand(len(row), -1, -1)], 1)
        image = torch.arange(len(row), device=vertices.device)[:, None, None]
        return (vertices[image, corner] * weight.to(vertices)[..., None]).sum(2)


def contour_row(root: Float[Tensor, "b 3"], neck: Float[Tensor, "b 3"] | None = None) -> Int[Tensor, " b"]:
    """Return the row of the contour's table for heads: their yaw in whole degrees, at most 39 either way.

    Halves round to even. Rows 0..39 are yaws of 0..39 degrees, rows 40..78 those of -1..-39.
    """
    turn = axis_angle_to_matrix(root)
    if neck is not None:
        turn = turn @ axis_angle_to_matrix(neck)
    yaw = torch.atan2(-turn[:, 2, 0], torch.hypot(turn[:, 0, 0], turn[:, 1, 0]))
    angle = torch.round(torch.rad2deg(yaw)).long().clamp(-_LAST_COLUMN, _LAST_COLUMN)
    return torch.where(angle >= 0, angle, _LAST_COLUMN - angle)
