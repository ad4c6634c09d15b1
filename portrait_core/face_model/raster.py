"""A batched z-buffer rasteriser in plain PyTorch, perspective-correct or orthographic and exact per pixel.

Triangles are turned into the horizontal spans of pixels they cover, and the nearest triangle of every pixel
is found with one integer reduction, so there is no loop over triangles and the answer does not depend on
their order. A CPU lists covered pixels only; other devices, which would be waited for, keep to shapes that
do not depend on it (:mod:`portrait_core.face_model.raster_static`), with the same bits. Not differentiable
with respect to vertex positions; ``interpolate`` is differentiable in the attributes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from portrait_core.face_model.raster_static import all_spans, crossings, nearest_of_all

MIN_DEPTH = 1e-3
"""Triangles with a vertex nearer than this (or behind the camera) are dropped, not clipped."""
_KEY_SHIFT = 32


class Fragments(NamedTuple):
    """The nearest triangle of each pixel."""

    face_id: Int[Tensor, "b h w"]
    """Index of the nearest triangle, -1 where there is none."""
    bary: Float[Tensor, "b h w 3"]
    """Barycentric coordinates in that triangle (perspective-correct where asked for), 0 where there is
    none."""
    depth: Float[Tensor, "b h w"]
    """Depth along the optical axis in the unit of the vertices, ``inf`` where there is none."""


class _Setup(NamedTuple):
    """Per-triangle constants."""

    planes: Float[Tensor, "t 3 3"]
    """``(d/dx, d/dy, offset)`` of each corner's barycentric weight (in perspective: over its depth), which
    is affine in the image."""
    nearness: Float[Tensor, "t 3"]
    """``(d/dx, d/dy, offset)`` of a positive quantity that grows towards the camera: 1/depth in perspective,
    1 to 2 from the farthest to the nearest vertex of the batch otherwise."""
    xy: Float[Tensor, "t 3 2"]
    keep: Tensor


def rasterize(
    vertices_px: Float[Tensor, "b v 3"],
    faces: Int[Tensor, "f 3"],
    height: int,
    width: int,
    cull_backfaces: bool = False,
    perspective: bool = True,
) -> Fragments:
    """Find the nearest triangle behind every pixel centre.

    Args:
        vertices_px: ``(x px, y px, depth)``; pixel ``(i, j)`` has its centre at ``(j + 0.5, i + 0.5)``,
            depth is positive in front of the camera (any number, larger is farther, without perspective).
        faces: vertex indices; counter-clockwise in a y-up view is front-facing.
        height: the image's, in pixels.
        width: the image's, in pixels.
        cull_backfaces: drop triangles that face away, which halves the work on closed meshes.
        perspective: interpolate in perspective; else depth and attributes are affine in the image.

    Returns:
        Fragments with ``face_id`` int64, ``bary`` and ``depth`` in the dtype of ``vertices_px``. On other
        devices than the CPU every depth is NaN where more triangles lie one behind the other, on average over
        the images, than ``raster_static.FRAGMENTS_PER_PIXEL``.

    Raises:
        ValueError: if a shape is not as above.
    """
    if vertices_px.ndim != 3 or vertices_px.shape[-1] != 3:
        raise ValueError(f"vertices_px must be [B,V,3], got {tuple(vertices_px.shape)}; add a batch axis")
    if faces.ndim != 2 or faces.shape[-1] != 3:
        raise ValueError(f"faces must be [F,3], got {tuple(faces.shape)}; pass triangles")
    with torch.no_grad():
        batch, n_faces = vertices_px.shape[0], faces.shape[0]
        setup = _triangle_setup(vertices_px, faces.long(), cull_backfaces, perspective)
        sizes = batch, n_faces, height, width
        if vertices_px.device.type == "cpu":
            best = _nearest(setup.nearness, *_row_spans(setup, height, width), sizes)
            return _resolve(best, setup, vertices_px, faces.long(), (height, width), perspective)
        spans = all_spans(setup.xy, setup.keep, height, width)
        best, short = nearest_of_all(setup.nearness, *spans, sizes, _KEY_SHIFT)
        seen = _resolve(best, setup, vertices_px, faces.long(), (height, width), perspective)
        return seen._replace(depth=torch.where(short, torch.nan, seen.depth))


def _triangle_setup(vertices: Tensor, faces: Tensor, cull: bool, perspective: bool) -> _Setup:
    corners = vertices[:, faces].double().reshape(-1, 3, 3)  # (b f) corner xyz
    xy, depth = corners[..., :2], corners[..., 2]
    edge1, edge2 = xy[:, 1] - xy[:, 0], xy[:, 2] - xy[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    keep = (area.abs() > 1e-12) & torch.isfinite(area) & torch.isfinite(depth).all(1)
    if perspective:
        keep &= depth.amin(1) > MIN_DEPTH
    if cull:
        keep &= area < 0  # image y points down, so front faces wind clockwise there
    safe = torch.where(keep, area, torch.ones_like(area))
    scaled = depth.clamp(min=MIN_DEPTH) if perspective else torch.ones_like(depth)
    over = 1.0 / (scaled * safe[:, None])  # t 3
    following, last = xy.roll(-1, 1), xy.roll(1, 1)
    side = last - following
    gx = -side[..., 1] * over
    gy = side[..., 0] * over
    offset = -(gx * following[..., 0] + gy * following[..., 1])
    planes = torch.stack([gx, gy, offset], -1)
    nearness = planes.sum(1) if perspective else _flat_nearness(planes, depth, keep)
    return _Setup(planes, nearness, xy, keep)


def _flat_nearness(planes: Tensor, depth: Tensor, keep: Tensor) -> Tensor:
    """Return nearness ``[t,3]``: 1 at the farthest vertex that is kept, 2 at the nearest, affine in depth."""
    some, kept = keep.any(), keep[:, None]
    far = torch.where(some, torch.where(kept, depth, -torch.inf).amax(), 0.0)
    near = torch.where(some, torch.where(kept, depth, torch.inf).amin(), 0.0)
    span = (far - near).clamp(min=torch.finfo(depth.dtype).tiny)
    nearness = (planes * ((far - depth) / span)[..., None]).sum(1)
    return torch.cat([nearness[:, :2], nearness[:, 2:] + 1.0], 1)


def _row_spans(setup: _Setup, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """List every (triangle, image row) with the first pixel and the number of pixels that it covers."""
    kept = setup.keep.nonzero()[:, 0]
    xy = setup.xy[kept]
    y = xy[..., 1]
    first = torch.ceil(y.amin(1) - 0.5).clamp(0, height).long()
    last = torch.floor(y.amax(1) - 0.5).clamp(-1, height - 1).long()
    rows = (last - first + 1).clamp(min=0)
    local = torch.repeat_interleave(torch.arange(len(kept), device=xy.device), rows)
    row = _ramp(rows) + first[local]
    corners = tuple((xy[local, k, 0], xy[local, k, 1]) for k in range(3))
    left, count = crossings(corners, row.to(xy.dtype) + 0.5, width)
    some = count > 0
    return kept[local[some]], row[some], left[some], count[some]


def _ramp(counts: Tensor) -> Tensor:
    """Return ``[0..counts[0]-1, 0..counts[1]-1, ...]``."""
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total, device=counts.device) - torch.repeat_interleave(ends - counts, counts)


def _nearest(
    plane: Tensor,
    triangle: Tensor,
    row: Tensor,
    left: Tensor,
    count: Tensor,
    sizes: tuple[int, int, int, int],
) -> Tensor:
    """Find every pixel's largest key (1/depth, then lowest face index), int64 ``[b*h*w]``; -1 where empty."""
    batch, n_faces, height, width = sizes
    gx, gy, offset = plane[triangle].unbind(1)
    start = offset + gy * (row.to(plane.dtype) + 0.5) + gx * (left.to(plane.dtype) + 0.5)
    base = (triangle // n_faces * height + row) * width + left
    step = _ramp(count)
    inverse = torch.repeat_interleave(start, count) + step * torch.repeat_interleave(gx, count)
    # The bit pattern of a positive float grows with its value, so depth and face pack into one integer and
    # one reduction gives the nearest face, ties going to the lowest index on any device.
    bits = inverse.clamp(min=1e-12).float().view(torch.int32).long()
    face = torch.repeat_interleave(triangle % n_faces, count)
    key = (bits << _KEY_SHIFT) | (n_faces - 1 - face)
    pixel = torch.repeat_interleave(base, count) + step
    best = torch.full((batch * height * width,), -1, dtype=torch.int64, device=plane.device)
    return best.scatter_reduce_(0, pixel, key, reduce="amax")


def _resolve(
    best: Tensor,
    setup: _Setup,
    vertices: Tensor,
    faces: Tensor,
    size: tuple[int, int],
    perspective: bool,
) -> Fragments:
    """Turn winning keys into face ids, barycentrics and depth."""
    (batch, n_vertices), n_faces, (height, width) = vertices.shape[:2], len(faces), size
    hit = _places(best >= 0)
    face = n_faces - 1 - (best[hit].clamp(min=0) & ((1 << _KEY_SHIFT) - 1))
    image = hit // (height * width)
    planes = setup.planes[image * n_faces + face]  # n corner xyo
    px, py = (hit % width).double() + 0.5, (hit // width % height).double() + 0.5
    weight = (planes[..., 0] * px[:, None] + planes[..., 1] * py[:, None] + planes[..., 2]).clamp(min=0.0)
    inverse = 1.0 / weight.sum(1)  # in perspective, the depth
    bary_hit = weight * inverse[:, None]
    if perspective:
        depth_hit = inverse
    else:
        corner = faces[face] + (image * n_vertices)[:, None]
        depth_hit = (vertices.reshape(-1, 3)[corner, 2].double() * bary_hit).sum(1)
    shape, dtype, some = (batch, height, width), vertices.dtype, best >= 0
    return Fragments(
        _laid_out(face, hit, some, -1).view(shape),
        _laid_out(bary_hit.to(dtype), hit, some, 0.0).view(*shape, 3),
        _laid_out(depth_hit.to(dtype), hit, some, torch.inf).view(shape),
    )


def _places(some: Bool[Tensor, " n"]) -> Int[Tensor, " k"]:
    """Return the places where a mask is true.

    On another device than the CPU, which would be waited for, return every place.
    """
    if some.device.type == "cpu":
        return some.nonzero()[:, 0]
    return torch.arange(len(some), device=some.device)


def _laid_out(values: Tensor, places: Tensor, some: Tensor, empty: float) -> Tensor:
    """Return values at the places of :func:`_places`, ``empty`` where the mask ``some`` is false."""
    if len(places) == len(some):
        return torch.where(some.view(-1, *[1] * (values.ndim - 1)), values, empty)
    out = values.new_full((len(some), *values.shape[1:]), empty)
    return out.index_copy(0, places, values)


def interpolate(
    attributes: Float[Tensor, "b v c"], faces: Int[Tensor, "f 3"], fragments: Fragments
) -> Float[Tensor, "b h w c"]:
    """Interpolate per-vertex attributes at every pixel; 0 where there is no triangle.

    Args:
        attributes: ``[B,V,C]``, or ``[1,V,C]`` to share them over the batch.
        faces: the triangles that were rasterised.
        fragments: from :func:`rasterize`.
    """
    batch, height, width = fragments.face_id.shape
    some = fragments.face_id.reshape(-1) >= 0
    hit = _places(some)
    corner = faces.long()[fragments.face_id.reshape(-1)[hit].clamp(min=0)]
    if attributes.shape[0] == 1:
        table = attributes[0]
    else:
        table = attributes.reshape(-1, attributes.shape[-1])
        corner = corner + (hit // (height * width) * attributes.shape[1])[:, None]
    weight = fragments.bary.reshape(-1, 3)[hit].to(table.dtype)
    value = (
        table[corner[:, 0]] * weight[:, 0:1]
        + table[corner[:, 1]] * weight[:, 1:2]
        + table[corner[:, 2]] * weight[:, 2:3]
    )
    return _laid_out(value, hit, some, 0.0).view(batch, height, width, -1)


def vertex_normals(vertices: Float[Tensor, "b v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "b v 3"]:
    """Return area-weighted unit normals, outward for counter-clockwise triangles; 0 for unused vertices."""
    index = faces.long()
    a, b, c = (vertices[:, index[:, k]] for k in range(3))
    normal = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total.index_add_(1, index[:, k], normal)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-12)
