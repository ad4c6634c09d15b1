"""Rasterising with shapes that do not depend on the picture, which would make the host wait for its device.

The same spans and keys as :mod:`portrait_core.face_model.raster` lists on the CPU, and so the same bits;
but every triangle has a span in every image row, most of them empty, and the list of covered pixels has a
fixed length.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FRAGMENTS_PER_PIXEL = 32
"""Length of the list of covered pixels, per pixel of the images: triangles one behind the other, on average.
A head shows 2 to 4."""


def crossings(
    xy: tuple[tuple[Tensor, Tensor], ...], centre: Float[Tensor, "*n"], width: int
) -> tuple[Int[Tensor, "*n"], Int[Tensor, "*n"]]:
    """Find the pixels of image rows that triangles cover.

    Args:
        xy: the three corners' x and y in pixels, which broadcast with ``centre``; float64.
        centre: y of each row's pixel centres.
        width: of the image in pixels.

    Returns:
        The first pixel, and how many there are (0: none).
    """
    low = torch.full_like(centre, float("inf"))
    high = -low
    for a, b in ((0, 1), (1, 2), (2, 0)):
        (xa, ya), (xb, yb) = xy[a], xy[b]
        dy = yb - ya
        crosses = ((ya <= centre) != (yb <= centre)) & (dy != 0)
        x = xa + (centre - ya) * (xb - xa) / torch.where(crosses, dy, torch.ones_like(dy))
        low = torch.where(crosses, torch.minimum(low, x), low)
        high = torch.where(crosses, torch.maximum(high, x), high)
    # the tolerance keeps a pixel centre that lies exactly on a shared edge
    left = torch.ceil(low - 0.5 - 1e-7).clamp(0, width)
    right = torch.floor(high - 0.5 + 1e-7).clamp(-1, width - 1)
    return left.long(), (right - left + 1).clamp(min=0).long()


def all_spans(
    xy: Float[Tensor, "t 3 2"], keep: Bool[Tensor, " t"], height: int, width: int
) -> tuple[Int[Tensor, "t h"], Int[Tensor, "t h"]]:
    """Return first pixel and number of pixels of every triangle in every row.

    Triangles that are not kept have 0 pixels.
    """
    safe = torch.where(keep[:, None, None], xy, torch.zeros_like(xy))
    corners = tuple((safe[:, k, 0, None], safe[:, k, 1, None]) for k in range(3))
    row = torch.arange(height, device=xy.device)
    centre = (row.to(xy.dtype) + 0.5).expand(len(xy), -1)
    left, count = crossings(corners, centre, width)
    y = safe[..., 1]
    first = torch.ceil(y.amin(1, keepdim=True) - 0.5)
    last = torch.floor(y.amax(1, keepdim=True) - 0.5)
    return left, torch.where(keep[:, None] & (first <= row) & (row <= last), count, 0)


def nearest_of_all(
    plane: Float[Tensor, "t 3"],
    left: Int[Tensor, "t h"],
    count: Int[Tensor, "t h"],
    sizes: tuple[int, int, int, int],
    key_shift: int,
) -> tuple[Int[Tensor, " n"], Bool[Tensor, ""]]:
    """Find the largest key (see ``raster``) of every pixel.

    Args:
        plane: ``(d/dx, d/dy, offset)`` of each triangle's nearness.
        left: first pixels from :func:`all_spans`.
        count: numbers of pixels from :func:`all_spans`.
        sizes: images, triangles per image, height and width.
        key_shift: place of the nearness in a key.

    Returns:
        The keys, -1 where nothing is, and whether the list was too short, so that some are missing.
    """
    batch, n_faces, height, width = sizes
    pixels = batch * height * width
    ends = count.reshape(-1).cumsum(0)
    place = torch.arange(FRAGMENTS_PER_PIXEL * pixels, device=plane.device)
    span = torch.searchsorted(ends, place, right=True).clamp(max=ends.shape[0] - 1)
    filled = place < ends[-1]
    triangle, row = span // height, span % height
    first = left.reshape(-1)[span]
    step = place - (ends - count.reshape(-1))[span]
    gx, gy, offset = plane[triangle].unbind(1)
    start = offset + gy * (row.to(plane.dtype) + 0.5) + gx * (first.to(plane.dtype) + 0.5)
    bits = (start + step * gx).clamp(min=1e-12).float().view(torch.int32).long()
    key = (bits << key_shift) | (n_faces - 1 - triangle % n_faces)
    pixel = (triangle // n_faces * height + row) * width + first + step
    best = torch.full((pixels,), -1, dtype=torch.int64, device=plane.device)
    best = best.scatter_reduce_(0, torch.where(filled, pixel, 0), torch.where(filled, key, -1), reduce="amax")
    return best, ends[-1] > place.shape[0]
