"""DECA's camera, rasteriser, texture maps, picture and crop (Feng et al. 2021), in numpy and double
precision: every triangle asks every pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def project(points: Array, cam: Array) -> Array:
    """``s (x + tx, y + ty, z)`` of points ``[n,3]`` for ``cam (s, tx, ty)``."""
    return np.asarray(cam[0] * (points + np.array([cam[1], cam[2], 0])))


def to_ndc(points: Array, cam: Array) -> Array:
    """The same with y and z negated: x right, y down, z away."""
    return project(points, cam) * [1, -1, -1]


def transform_points(points: Array, tform: Array, crop: int, size_hw: tuple[int, int] | None = None) -> Array:
    """NDC of a crop to pixels of its source, or to the source's NDC; ``tform`` is stored transposed to act
    on rows."""
    pixels = np.concatenate([(points[:, :2] * 0.5 + 0.5) * crop, np.ones((len(points), 1))], 1)
    source = (pixels @ np.linalg.inv(tform).T)[:, :2]
    if size_hw is not None:
        source = source / [size_hw[1], size_hw[0]] * 2 - 1
    return np.concatenate([source, points[:, 2:]], 1)


def vertex_normals(vertices: Array, faces: Index) -> Array:
    """Sums of the triangles' normals, which weigh as their areas, brought to length 1."""
    total = np.zeros_like(vertices)
    for a, b, c in faces:
        total[[a, b, c]] += np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-6))


class Drawn(NamedTuple):
    """Triangle of each pixel (-1: none) and the weights of its corners."""

    face: Index
    weights: Array

    def interpolate(self, values: Array, faces: Index) -> Array:
        """Values ``[v,c]`` at the pixels ``[h,w,c]``, 0 where there is no triangle."""
        found = (values[faces[self.face]] * self.weights[..., None]).sum(-2)
        return np.asarray(np.where(self.face[..., None] >= 0, found, 0.0))


def rasterize(ndc: Array, faces: Index, height: int, width: int) -> Drawn:
    """The nearest triangle at each pixel centre, (2i + 1) / size - 1; of equally near ones the last."""
    x, y = np.meshgrid((2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1)
    nearest = np.full((height, width), np.inf)
    found, weights = np.full((height, width), -1), np.zeros((height, width, 3))
    for number, corners in enumerate(ndc[faces]):
        a, b, c = corners
        (bx, by), (cx, cy) = b[:2] - a[:2], c[:2] - a[:2]
        twice = bx * cy - by * cx
        if twice == 0:
            continue
        second = ((x - a[0]) * cy - (y - a[1]) * cx) / twice
        third = ((y - a[1]) * bx - (x - a[0]) * by) / twice
        first = 1 - second - third
        depth = first * a[2] + second * b[2] + third * c[2]
        # depths that differ by rounding alone are equal: texels lie in one plane
        seen = (second >= 0) & (third >= 0) & (first > 0) & (depth <= nearest + 1e-12)
        found[seen], nearest[seen] = number, depth[seen]
        weights[seen] = np.stack([first, second, third], -1)[seen]
    return Drawn(found, weights)


def steady(ndc: Array, faces: Index, height: int, width: int, by: float = 2e-4) -> NDArray[np.bool_]:
    """Pixels that keep their triangle when the mesh is moved a little."""
    still = rasterize(ndc, faces, height, width).face
    kept = np.ones((height, width), bool)
    for shift in ((by, 0, 0), (-by, 0, 0), (0, by, 0), (0, -by, 0)):
        kept &= rasterize(ndc + shift, faces, height, width).face == still
    return kept


def uv_ndc(uv: Array) -> Array:
    """Texture coordinates ``[u,2]`` in the NDC of their map: row 0 is v = 1."""
    return np.stack([2 * uv[:, 0] - 1, -(2 * uv[:, 1] - 1), np.ones(len(uv))], 1)


def sample(image: Array, grid: Array) -> Array:
    """``image [c,h,w]`` at NDC ``grid [h,w,2]``, bilinear, 0 outside."""
    taken = F.grid_sample(torch.from_numpy(image)[None], torch.from_numpy(grid)[None], align_corners=False)
    return np.asarray(taken[0].numpy())


HARMONICS = (
    (1 / np.sqrt(4 * np.pi),)
    + (2 * np.pi / 3 * np.sqrt(3 / (4 * np.pi)),) * 3
    + (np.pi / 4 * 3 * np.sqrt(5 / (12 * np.pi)),) * 3
    + (np.pi / 4 * 3 / 2 * np.sqrt(5 / (12 * np.pi)), np.pi / 4 / 2 * np.sqrt(5 / (4 * np.pi)))
)


def shade(normals: Array, light: Array) -> Array:
    """Light ``[9,3]`` on normals ``[h,w,3]``: ``[h,w,3]``."""
    x, y, z = np.moveaxis(normals, -1, 0)
    terms = (np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1)
    total = np.zeros_like(normals)
    for constant, term, colour in zip(HARMONICS, terms, light, strict=True):
        total += constant * term[..., None] * colour
    return total


def overlay(normals: Array) -> Array:
    """Grey ``[h,w]`` of normals under five lights from the front, none of them from behind a surface."""
    grey = np.zeros(normals.shape[:2])
    for light in ((-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (0, 0, 1)):
        grey += 0.24 * np.clip(normals @ (np.array(light) / np.linalg.norm(light)), 0, 1)
    return grey


class Square(NamedTuple):
    """A face's size, and the centre and side of its crop."""

    face_size: float
    center: Array
    size: int

    def transform(self, crop: int) -> Array:
        """Source pixels to crop pixels: corner to corner, of which the far one goes to ``crop - 1``."""
        scale = (crop - 1) / self.size
        x, y = self.center - self.size / 2
        return np.array([[scale, 0, -scale * x], [0, scale, -scale * y], [0, 0, 1]])


def similarity(source: Array, target: Array) -> Array:
    """The similarity ``[3,3]`` that maps points ``[k,2]`` to others, by least squares."""
    rows = [row for x, y in source for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, tx, ty = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    return np.array([[a, -b, tx], [b, a, ty], [0, 0, 1]])


def square(box: Array, rule: str) -> Square:
    """The crop of a box (left, right, top, bottom): of landmarks (``kpt68``) or a detector's (``bbox``)."""
    left, right, top, bottom = box
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    size = (right - left + bottom - top) / 2
    if rule == "kpt68":
        size = size * 1.1
    else:
        center[1] += 0.12 * size
    return Square(size, center, int(size * 1.25))
