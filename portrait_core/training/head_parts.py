"""Parts of the head asset other than its shape: skinning, joints, masks, iris points, occlusion."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from portrait_core.face_model.raster import rasterize, vertex_normals
from portrait_core.training.head_source import Array, Body

IRIS_RADIUS_M = 0.00585
"""Half of the visible iris's diameter, which hardly varies between adults."""
RIGID_GROUPS = {
    "helper-l-eye": 3, "helper-r-eye": 4, "helper-upper-teeth": 1, "helper-lower-teeth": 2,
    "helper-tongue": 2,
}  # fmt: skip


class CutLike(Protocol):
    """Protocol of what these functions need of :class:`portrait_core.training.build_head.Cut`."""

    @property
    def vertex(self) -> NDArray[np.int64]:
        """Indices ``[V]`` into the body."""

    @property
    def faces(self) -> NDArray[np.int32]:
        """Triangles ``[F,3]`` of the head's vertices."""

    @property
    def group(self) -> NDArray[np.uint8]:
        """Group ``[F]`` of each triangle."""

    @property
    def uv(self) -> Array:
        """Texture coordinates ``[U,2]``."""

    @property
    def faces_uv(self) -> NDArray[np.int32]:
        """Triangles ``[F,3]`` of the texture coordinates."""


def skinning_weights(body: Body, vertex: NDArray[np.int64]) -> Array:
    """Return weights ``[V,5]`` over root, neck, jaw, left eye, right eye, gathered from the MakeHuman rig."""
    dense, names, parents = body.bone_weights()
    owner = np.zeros(len(names), dtype=np.int64)  # joint of each bone; the root has the bones below the neck
    joint = {"neck01": 1, "jaw": 2, "eye.L": 3, "eye.R": 4}
    for bone, name in enumerate(names):  # parents come before children
        owner[bone] = joint.get(name, owner[parents[bone]] if parents[bone] >= 0 else 0)
    weights = np.zeros((len(vertex), 5))
    for bone in range(len(names)):
        weights[:, owner[bone]] += dense[vertex, bone]
    for group, column in RIGID_GROUPS.items():
        rigid = np.isin(vertex, body.group_indices(group))
        weights[rigid] = np.eye(5)[column]
    return weights / weights.sum(1, keepdims=True)


def joint_regressor(
    v: Array, joints: Array, still: NDArray[np.bool_], eyes: list[NDArray[np.int64]]
) -> Array:
    """Return a regressor ``[5,V]`` that gives ``joints [5,3]`` exactly on ``v`` and follows the head's shape.

    Eye joints are the mean of their eyeball. The others have the smallest weights that sum to one over the 64
    nearest vertices that no blendshape moves (``still``), so that an expression never shifts a joint.
    """
    regressor = np.zeros((5, len(v)))
    candidates = np.flatnonzero(still)
    for j in range(3):
        near = candidates[np.argsort(np.linalg.norm(v[candidates] - joints[j], axis=1), kind="stable")[:64]]
        system = np.concatenate([v[near].T, np.ones((1, 64))])
        regressor[j, near] = np.linalg.pinv(system) @ np.append(joints[j], 1.0)
    for j, eye in zip((3, 4), eyes, strict=True):
        regressor[j, eye] = 1.0 / len(eye)
    return regressor


def texture_masks(body: Body, cut: CutLike) -> dict[str, Array]:
    """Read the CC0 region textures at each skin vertex: ``[V]`` in 0..1 by name."""
    skin = cut.group == 0
    corner, corner_uv = cut.faces[skin].reshape(-1), cut.faces_uv[skin].reshape(-1)
    count = np.bincount(corner, minlength=len(cut.vertex)).clip(1)
    masks = {}
    for name in ("lips", "eyelids", "face", "ears", "inside-mouth"):
        texture = gaussian_filter(body.texture_mask(name), 2.0)
        size = np.array(texture.shape)
        u, v = cut.uv[corner_uv].T
        value = map_coordinates(
            texture, [(1 - v) * size[0] - 0.5, u * size[1] - 0.5], order=1, mode="nearest"
        )
        masks[name.replace("-", "_")] = np.bincount(corner, value, minlength=len(cut.vertex)) / count
    return masks


def lash_masks(body: Body, whole: Array, cut: CutLike) -> dict[str, Array]:
    """Return masks of the lids' margins: 1 on skin at MakeHuman's eyelashes, fading over 2 mm."""
    skin = np.unique(cut.faces[cut.group == 0])
    masks = {}
    for name, part in (("lashes_1", "1"), ("lashes_2", "2")):
        lash = np.concatenate([body.group_indices(f"helper-{side}-eyelashes-{part}") for side in "lr"])
        distance, _ = cKDTree(whole[lash]).query(whole[cut.vertex[skin]])
        mask = np.zeros(len(cut.vertex))
        mask[skin] = np.clip(1.3 - distance / 0.0015, 0.0, 1.0)
        masks[name] = mask
    return masks


def eye_landmarks(v: Array, faces: NDArray[np.int32], group: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Return iris points of the subject's right, then left eye: triangle ``[10]`` and weights ``[10,3]``.

    Per eye: the centre, then the rim at the image's right, top, left, bottom.
    """
    offsets = IRIS_RADIUS_M * np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [0, -1]])
    index, bary = [], []
    for eye in (2, 1):
        candidates = np.flatnonzero(group == eye)
        corner = v[faces[candidates]]
        middle = corner.reshape(-1, 3).mean(0)
        for offset in offsets:
            triangle, weight = front_hit(corner, middle[:2] + offset)
            index.append(candidates[triangle])
            bary.append(weight)
    return np.array(index), np.array(bary)


def front_hit(corner: Array, xy: Array) -> tuple[int, Array]:
    """Return the first triangle of ``corner [n,3,3]`` on a ray from +z at ``xy``, and barycentric weights."""
    a, b, c = corner[:, 0, :2], corner[:, 1, :2], corner[:, 2, :2]

    def cross(p: Array, q: Array) -> Array:
        return np.asarray(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])

    area = cross(b - a, c - a)
    area = np.where(np.abs(area) < 1e-14, np.nan, area)
    weight = (
        np.stack([cross(b - xy, c - xy), cross(c - xy, a - xy), cross(a - xy, b - xy)], 1) / area[:, None]
    )
    z = np.where((weight >= -1e-9).all(1), (weight * corner[..., 2]).sum(1), -np.inf)
    best = int(np.argmax(z))
    return best, weight[best]


def sky_visibility(v: Array, faces: NDArray[np.int32], count: int = 96, size: int = 192) -> Array:
    """Return how much of a soft light from above and in front reaches each vertex, ``[V]`` in 0..1.

    The head is drawn from ``count`` directions; a vertex is lit where no other surface is more than 2 mm in
    front of it. This is the ambient occlusion of nostrils, eye sockets, ears and the neck under the chin.
    """
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(4 * count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    direction = direction[direction @ np.array([0.0, 0.7, 0.7]) > -0.25][:count]
    points, triangles = torch.from_numpy(v).float(), torch.from_numpy(faces.astype(np.int64))
    normal = vertex_normals(points[None], triangles)[0].numpy()
    lit, total = np.zeros(len(v)), np.full(len(v), 1e-6)
    for toward in direction:
        cosine = np.clip(normal @ toward, 0.0, None)
        lit += cosine * seen_from(v, triangles, toward, size)
        total += cosine
    return lit / total


def seen_from(v: Array, faces: torch.Tensor, toward: Array, size: int, slack_m: float = 0.002) -> Array:
    """Return 1 where an orthographic view from ``toward`` shows a vertex, else 0: ``[V]``."""
    side = np.cross([0.0, 1.0, 0.0] if abs(toward[1]) < 0.9 else [1.0, 0.0, 0.0], toward)
    side /= np.linalg.norm(side)
    up = np.cross(toward, side)
    low, high = (v @ np.stack([side, up, toward], 1)).min(0), (v @ np.stack([side, up, toward], 1)).max(0)
    scale = (size - 2) / (high - low)[:2].max()
    xy = (v @ np.stack([side, up], 1) - low[:2]) * scale + 1
    depth = high[2] - v @ toward + 1.0
    pixels = torch.from_numpy(np.concatenate([xy, depth[:, None]], 1)).float()[None]
    nearest = rasterize(pixels, faces, size, size).depth[0].numpy()
    column, row = np.clip(xy.astype(int), 0, size - 1).T
    return np.asarray(depth <= nearest[row, column] + slack_m, dtype=np.float64)
