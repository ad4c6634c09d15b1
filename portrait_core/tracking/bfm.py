"""The Basel face as Deep3DFaceRecon decodes it: shape, colour, light and the landmarks of its crop.

Paysan et al. 2009 (identity and texture), Guo et al. 2018 (expression); light as in Ramamoorthi and
Hanrahan 2001. EG3D's cameras need none of this: head poses come from the regressor alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.cameras.eg3d import rotation
from portrait_core.tracking.deep3d import Deep3DCoefficients
from portrait_core.weights.readers.mat_files import BfmArrays

FOCAL_PX, CENTER_PX = 1015.0, 112.0
"""The camera of the 224-pixel crop."""
CAMERA_DISTANCE = 10.0
_AMBIENT = 0.8


class BfmFace(NamedTuple):
    """Decoded faces of N vertices."""

    shape: Float[Tensor, "b n 3"]
    """In the model's unit (a decimetre), centred: x right, y up, z toward the viewer."""
    normals: Float[Tensor, "b n 3"]
    """Unit normals of ``shape``."""
    camera_vertices: Float[Tensor, "b n 3"]
    """After the pose, seen from the camera: z is the distance along its axis."""
    texture: Float[Tensor, "b n 3"]
    """Albedo, about 0..1."""
    color: Float[Tensor, "b n 3"]
    """Albedo under the light, not clamped."""
    landmarks: Float[Tensor, "b 68 2"]
    """Pixels of the crop, **y up**; in the image y is ``223 - y``."""


class BfmModel(nn.Module):
    """Decodes coefficients; differentiable, batched."""

    def __init__(self, arrays: BfmArrays):
        """Take the arrays of ``read_bfm``."""
        super().__init__()
        mean = torch.from_numpy(arrays.mean_shape).double()
        for name, value in {
            "mean_shape": mean - mean.mean(0),
            "identity": torch.from_numpy(arrays.identity),
            "expression": torch.from_numpy(arrays.expression),
            "mean_texture": torch.from_numpy(arrays.mean_texture),
            "texture": torch.from_numpy(arrays.texture),
        }.items():
            self.register_buffer(name, value.float(), persistent=False)
        for name, index in {
            "faces": arrays.faces,
            "point_faces": arrays.point_faces,
            "keypoints": arrays.keypoints,
        }.items():
            self.register_buffer(name, torch.from_numpy(index), persistent=False)
        self.mean_shape: Tensor
        self.identity: Tensor
        self.expression: Tensor
        self.mean_texture: Tensor
        self.texture: Tensor
        self.faces: Tensor
        self.point_faces: Tensor
        self.keypoints: Tensor

    def forward(self, code: Deep3DCoefficients) -> BfmFace:
        """Decode the coefficients of a batch."""
        shape = self.mean_shape + _combined(self.identity, code.id) + _combined(self.expression, code.exp)
        normals, turn = self._normals(shape), rotation(code.angle)
        posed = shape @ turn + code.trans[:, None]
        camera = torch.cat([posed[..., :2], CAMERA_DISTANCE - posed[..., 2:]], -1)
        albedo = (self.mean_texture + _combined(self.texture, code.tex)) / 255
        marks = camera[:, self.keypoints]
        return BfmFace(
            shape=shape,
            normals=normals,
            camera_vertices=camera,
            texture=albedo,
            color=albedo * _shading(normals @ turn, code.gamma),
            landmarks=FOCAL_PX * marks[..., :2] / marks[..., 2:] + CENTER_PX,
        )

    def _normals(self, shape: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n 3"]:
        """Return the normalised sums of the unit normals of the triangles around each vertex."""
        a, b, c = (shape[:, self.faces[:, k]] for k in range(3))
        flat = F.normalize(torch.linalg.cross(a - b, b - c), dim=-1)
        padded = F.pad(flat, (0, 0, 0, 1))  # the last one is that of no triangle
        return F.normalize(padded[:, self.point_faces].sum(2), dim=-1)


def _combined(basis: Float[Tensor, "n 3 k"], code: Float[Tensor, "b k"]) -> Float[Tensor, "b n 3"]:
    return torch.einsum("nck,bk->bnc", basis, code)


def _shading(normals: Float[Tensor, "b n 3"], gamma: Float[Tensor, "b 3 9"]) -> Float[Tensor, "b n 3"]:
    """Light on posed normals: nine spherical harmonics, each with its band's share of a cosine lobe."""
    x, y, z = normals.unbind(-1)
    band0 = math.pi / math.sqrt(4 * math.pi)
    band1 = 2 * math.pi / math.sqrt(4 * math.pi)
    band2 = (2 * math.pi / math.sqrt(8)) * 3 * math.sqrt(5 / (12 * math.pi))
    basis = torch.stack(
        [
            torch.full_like(x, band0),
            -band1 * y,
            band1 * z,
            -band1 * x,
            band2 * x * y,
            -band2 * y * z,
            band2 / (2 * math.sqrt(3)) * (3 * z * z - 1),
            -band2 * x * z,
            band2 / 2 * (x * x - y * y),
        ],
        -1,
    )
    light = torch.cat([gamma[..., :1] + _AMBIENT, gamma[..., 1:]], -1)
    return torch.einsum("bnk,bck->bnc", basis, light)
