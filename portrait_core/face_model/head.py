"""A morphable head in FLAME's arrays.

It has linear bases of shape and expression, pose correctives and linear blend skinning over five joints (Li
et al. 2017, "Learning a model of facial shape and expression from 4D scans").

The same class decodes the embedded head (``data/models/embedded_head.safetensors``) and FLAME itself, which
``portrait_core.face_model.flame`` builds from its files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.errors import ModelFileError
from portrait_core.weights.readers.safetensors_files import open_safetensors

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
_REQUIRED = ("v_template", "shapedirs", "J_regressor", "weights", "kintree_table", "f")
_INTEGER = ("kintree_table", "f", "f_uv", "face_group", "lmk_faces_idx")


def axis_angle_to_matrix(rotation: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Turn axis-angle in radians into rotation matrices (Rodrigues; FLAME's epsilon, so zero is safe)."""
    angle = torch.linalg.vector_norm(rotation + 1e-8, dim=-1, keepdim=True)
    x, y, z = (rotation / angle).unbind(-1)
    zero = torch.zeros_like(x)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*rotation.shape[:-1], 3, 3)
    angle = angle[..., None]
    eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    return eye + torch.sin(angle) * k + (1 - torch.cos(angle)) * (k @ k)


class PosedHead(NamedTuple):
    """A decoded head, in metres."""

    vertices: Float[Tensor, "b v 3"]
    joints: Float[Tensor, "b 5 3"]
    """Places of the moved :data:`JOINTS`."""


class MorphableHead(nn.Module):
    """Decodes (shape, expression, pose) into vertices in metres, in the head frame.

    Head frame: x to the image's right (the subject's left), y up, z toward the viewer. For the embedded head
    the origin is midway between the eyes. ``to_box`` maps into the generator's world.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.generic] | Tensor], metadata: Mapping[str, str]):
        """Take the arrays by name (FLAME's names) and string metadata.

        Args:
            arrays: ``v_template [V,3]``, ``shapedirs [V,3,S+E]`` (shape first), ``posedirs [V,3,P]``
                (optional, P = 36 or 0), ``J_regressor [5,V]``, ``weights [V,5]``, ``kintree_table [2,5]``,
                ``f [F,3]``; optional ``face_group [F]``, ``uv``, ``f_uv``, ``mask_* [V]``,
                ``lmk_faces_idx [L]``, ``lmk_bary_coords [L,3]``, ``lmk_spread_m``.
            metadata: ``n_shape`` (required); ``expression_names`` and ``group_names`` (JSON lists),
                ``jaw_open_angle_rad``, ``box_center_m`` (JSON list of 3), ``box_unit_m`` (optional).

        Raises:
            ValueError: if an array is missing or the bases do not match ``n_shape``.
        """
        super().__init__()
        missing = [name for name in _REQUIRED if name not in arrays]
        if missing:
            raise ValueError(f"head model lacks {missing}; expected FLAME's arrays {list(_REQUIRED)}")
        for name, value in arrays.items():
            tensor = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
            tensor = tensor.long() if name in _INTEGER else tensor.float()
            self.register_buffer(name, tensor.contiguous(), persistent=False)
        if not self._array("shapedirs").numel():  # without values, a shape can name any number of directions
            raise ValueError("head model has no directions in shapedirs")
        self.n_shape = int(metadata["n_shape"])
        self.n_expression = int(self._array("shapedirs").shape[-1]) - self.n_shape
        if self.n_expression < 0:
            total = self.n_shape + self.n_expression
            raise ValueError(f"n_shape={self.n_shape}, but shapedirs has {total} components; fix n_shape")
        names = json.loads(metadata.get("expression_names", "[]"))
        self.expression_names: list[str] = names or [f"expression{i}" for i in range(self.n_expression)]
        self.group_names: list[str] = json.loads(metadata.get("group_names", '["body"]'))
        self.jaw_open_angle_rad = float(metadata.get("jaw_open_angle_rad", "0"))
        self.box_unit_m = float(metadata.get("box_unit_m", "0.5"))
        center = json.loads(metadata.get("box_center_m", "[0.0, -0.012, -0.06]"))
        self.register_buffer("_box_center", torch.tensor(center, dtype=torch.float32), persistent=False)
        self._names = sorted(arrays)
        self._parents = [int(p) if 0 <= int(p) < len(JOINTS) else -1 for p in self._array("kintree_table")[0]]
        if self._parents[0] != -1 or any(p < 0 or p >= i for i, p in enumerate(self._parents) if i):
            raise ValueError(f"kintree_table parents are {self._parents}; expected the root first")

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> MorphableHead:
        """Read a head from a safetensors file.

        Raises:
            ModelFileError: if the file is missing.
            ValueError: if it lacks an array.
        """
        if not Path(path).is_file():
            raise ModelFileError(f"no head model at {path}; run `portrait models` to see where it comes from")
        with open_safetensors(path) as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        if "n_shape" not in metadata:
            raise ValueError(f"{path} has no n_shape in its metadata; it is not a head model of this project")
        try:
            return cls(arrays, metadata).to(device)
        except (RuntimeError, TypeError, IndexError) as error:  # of nested lists: RecursionError
            raise ValueError(f"{path} is no head model of this project: {error!s:.200}") from error

    def extended(self, basis: Float[Tensor, "v 3 k"], names: Sequence[str]) -> MorphableHead:
        """Give this head with k more expressions, named ``names``, after its own; ``basis`` in metres."""
        arrays = {name: self._array(name) for name in self._names}
        arrays["shapedirs"] = torch.cat([arrays["shapedirs"], basis.to(arrays["shapedirs"])], dim=-1)
        metadata = {
            "n_shape": str(self.n_shape),
            "expression_names": json.dumps([*self.expression_names, *names]),
            "group_names": json.dumps(self.group_names),
            "jaw_open_angle_rad": repr(self.jaw_open_angle_rad),
            "box_unit_m": repr(self.box_unit_m),
            "box_center_m": json.dumps(self._array("_box_center").tolist()),
        }
        return MorphableHead(arrays, metadata)

    @property
    def template(self) -> Float[Tensor, "v 3"]:
        """The mean head at rest, in metres."""
        return self._array("v_template")

    def _array(self, name: str) -> Tensor:
        value = self._buffers[name]  # not get_buffer: a property here may have the buffer's name
        if value is None:
            raise ValueError(f"head array {name!r} is empty; load the head again")
        return value

    @property
    def faces(self) -> Int[Tensor, "f 3"]:
        """Triangles ``[F,3]`` int64, counter-clockwise seen from outside."""
        return self._array("f")

    @property
    def face_group(self) -> Int[Tensor, " f"]:
        """Index into ``group_names`` of each triangle ``[F]`` int64 (0 = body)."""
        if "face_group" in self._names:
            return self._array("face_group")
        return torch.zeros(len(self.faces), dtype=torch.long, device=self.faces.device)

    def group(self, name: str) -> int:
        """Return the number of a face group such as ``"helper-upper-teeth"``."""
        if name not in self.group_names:
            raise ValueError(f"no face group {name!r}; this head has {self.group_names}")
        return self.group_names.index(name)

    def group_vertices(self, name: str) -> Tensor:
        """Return the vertices ``[V]`` (booleans) that a face group uses."""
        used = torch.zeros(self.n_vertices, dtype=torch.bool, device=self.faces.device)
        used[self.faces[self.face_group == self.group(name)].reshape(-1)] = True
        return used

    @property
    def masks(self) -> list[str]:
        """Names accepted by :meth:`mask`."""
        return [name[5:] for name in self._names if name.startswith("mask_")]

    def mask(self, name: str) -> Float[Tensor, " v"]:
        """Return the per-vertex weight ``[V]`` in 0..1 of a region such as ``"lips"``."""
        if name not in self.masks:
            raise ValueError(f"no mask {name!r}; this head has {self.masks}")
        return self._array(f"mask_{name}")

    @property
    def n_vertices(self) -> int:
        """Number of vertices V."""
        return int(self._array("v_template").shape[0])

    def index(self, name: str) -> int:
        """Return the position of an expression such as ``"jawOpen"``."""
        if name not in self.expression_names:
            raise ValueError(f"no expression unit {name!r}; this head has {self.expression_names}")
        return self.expression_names.index(name)

    def jaw_from_expression(self, expression: Float[Tensor, "b e"]) -> Float[Tensor, "b 3"]:
        """Return the jaw's axis-angle (radians) that goes with the ``jawOpen`` blendshape."""
        jaw = expression.new_zeros(len(expression), 3)
        if self.jaw_open_angle_rad:
            jaw[:, 0] = self.jaw_open_angle_rad * expression[:, self.index("jawOpen")]
        return jaw

    def to_box(self, vertices_m: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """Map the head frame (metres) to the box frame (the generator's world)."""
        return (vertices_m - self._array("_box_center")) / self.box_unit_m

    def from_box(self, points: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v 3"]:
        """Map the box frame to the head frame (metres)."""
        return points * self.box_unit_m + self._array("_box_center")

    def decode(
        self,
        shape: Float[Tensor, "b s"],
        expression: Float[Tensor, "b e"],
        jaw: Float[Tensor, "b 3"] | None = None,
        eyes: Float[Tensor, "b 6"] | None = None,
        neck: Float[Tensor, "b 3"] | None = None,
        root: Float[Tensor, "b 3"] | None = None,
    ) -> Float[Tensor, "b v 3"]:
        """Return vertices in metres. Rotations are axis-angle in radians; ``None`` means at rest.

        ``shape`` and ``expression`` may have fewer components than the bases (the rest are zero), and a
        batch of one is shared with the others.

        Raises:
            ValueError: if a code has more components than its basis.
        """
        return self.pose(shape, expression, jaw, eyes, neck, root).vertices

    def pose(
        self,
        shape: Float[Tensor, "b s"],
        expression: Float[Tensor, "b e"],
        jaw: Float[Tensor, "b 3"] | None = None,
        eyes: Float[Tensor, "b 6"] | None = None,
        neck: Float[Tensor, "b 3"] | None = None,
        root: Float[Tensor, "b 3"] | None = None,
    ) -> PosedHead:
        """Decode as :meth:`decode`, and return the joints too."""
        batch = max(len(x) for x in (shape, expression, jaw, eyes, neck, root) if x is not None)
        rest = self._shaped(shape, expression, batch)
        turns = self._full_pose(batch, rest, root, neck, jaw, eyes)
        rotation = axis_angle_to_matrix(turns)  # b 5 3 3
        joints = self.joints_of(rest)
        if "posedirs" in self._names and self._array("posedirs").numel():
            eye = torch.eye(3, dtype=rest.dtype, device=rest.device)
            feature = (rotation[:, 1:] - eye).reshape(batch, -1)
            rest = rest + torch.einsum("vcp,bp->bvc", self._array("posedirs"), feature)
        transform, moved = self._joint_transforms(rotation, joints)  # b 5 3 4, b 5 3
        blended = torch.einsum("vj,bjrc->bvrc", self._array("weights"), transform)
        vertices = torch.einsum("bvrc,bvc->bvr", blended[..., :3], rest) + blended[..., 3]
        return PosedHead(vertices, moved)

    def _shaped(self, shape: Tensor, expression: Tensor, batch: int) -> Float[Tensor, "b v 3"]:
        for name, code, limit in (
            ("shape", shape, self.n_shape),
            ("expression", expression, self.n_expression),
        ):
            if code.shape[-1] > limit:
                raise ValueError(f"{name} has {code.shape[-1]} components, the head has {limit}; cut it")
        basis = self._array("shapedirs")
        part = torch.einsum("vck,bk->bvc", basis[..., : shape.shape[-1]], shape)
        stop = self.n_shape + expression.shape[-1]
        moved = torch.einsum("vck,bk->bvc", basis[..., self.n_shape : stop], expression)
        return (self._array("v_template") + part + moved).expand(batch, -1, -1)

    def _full_pose(self, batch: int, like: Tensor, *parts: Tensor | None) -> Float[Tensor, "b 5 3"]:
        widths = (3, 3, 3, 6)
        filled = [
            like.new_zeros(batch, width) if part is None else part.to(like).expand(batch, width)
            for part, width in zip(parts, widths, strict=True)
        ]
        return torch.cat(filled, 1).reshape(batch, len(JOINTS), 3)

    def _joint_transforms(self, rotation: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Return the joints' rigid motions relative to rest ``[b,5,3,4]``, and places ``[b,5,3]``."""
        turns, origins = [rotation[:, 0]], [joints[:, 0]]
        for joint, parent in enumerate(self._parents[1:], start=1):
            turns.append(turns[parent] @ rotation[:, joint])
            offset = (joints[:, joint] - joints[:, parent])[..., None]
            origins.append(origins[parent] + (turns[parent] @ offset)[..., 0])
        turn, origin = torch.stack(turns, 1), torch.stack(origins, 1)
        shift = origin[..., None] - turn @ joints[..., None]
        return torch.cat([turn, shift], -1), origin

    def joints_of(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b 5 3"]:
        """Give the places of :data:`JOINTS` of a mesh at rest, in the mesh's own frame and units."""
        return torch.einsum("jv,bvc->bjc", self._array("J_regressor"), vertices)

    def head_weights(self) -> Float[Tensor, " v"]:
        """Give the share of each vertex that turns with the neck ``[V]`` in 0..1; the rest is the body's."""
        return 1.0 - self._array("weights")[:, JOINTS.index("root")]

    def landmarks(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b l 3"]:
        """Return the landmarks on the mesh.

        The embedded head has the 468 points of the face mesh, then 5 of each iris; FLAME has the 68 points at
        fixed places (DECA's ``landmarks3d``).
        """
        corner = self.faces[self._array("lmk_faces_idx")]  # l 3
        weight = self._array("lmk_bary_coords")
        return (vertices[:, corner] * weight[None, :, :, None]).sum(2)

    def landmark_basis(self, indices: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return landmarks as linear functions of the codes, joints at rest.

        Returns:
            Template positions ``[n,3]`` (metres) and basis ``[n,3,S+E]``.
        """
        picked = torch.as_tensor(list(indices), device=self.faces.device)
        corner = self.faces[self._array("lmk_faces_idx")[picked]]
        weight = self._array("lmk_bary_coords")[picked]
        mean = (self._array("v_template")[corner] * weight[..., None]).sum(1)
        basis = (self._array("shapedirs")[corner] * weight[..., None, None]).sum(1)
        return mean.double().cpu().numpy(), basis.double().cpu().numpy()
