"""Squares in which recognition networks see a face, cut out of pictures so that gradients pass.

A square is fitted to five points of the face, as each network's own tools do it (dlib's ``get_face_chip``,
insightface's alignment); the points here are this project's landmarks, unrounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.errors import InputError

_MOST_SAMPLES = 8
"""Samples at most along each side of a pixel; a face so large has more detail than any network sees."""
_AT_ONCE = 64
"""Faces that are sampled at a time, over the samples of a pixel."""


@dataclass(frozen=True)
class Layout:
    """Five points in a square of ``size`` pixels, and how the square is fitted to those of a face.

    Attributes:
        size: side in pixels.
        places: the five ``(x, y)`` in continuous pixels (centres at +0.5).
        from_face: True where the face's points are moved onto the places by least squares; False where the
            places are moved onto the face's points. The two differ in scale where a face has other
            proportions.
        whole_pixels: True where the middles of the outermost pixels, and not the square's edges, lie on the
            fitted square's, as in dlib: its pixels are a little farther apart.
    """

    size: int
    places: tuple[tuple[float, float], ...]
    from_face: bool
    whole_pixels: bool = False

    @cached_property
    def numbers(self) -> NDArray[np.complex128]:
        """The places as complex numbers x + iy ``[5]``."""
        return _complex(np.array(self.places, np.float64))


@dataclass(frozen=True)
class FaceSquares:
    """Squares about n faces: position p of a square, as x + iy, is ``step * p + origin`` of its picture.

    Attributes:
        size: side of each in its own pixels.
        step: ``[n]`` complex: pixels of the picture per pixel of the square, and the turn.
        origin: ``[n]`` complex: upper left corner in continuous pixels of the picture.
    """

    size: int
    step: NDArray[np.complex128]
    origin: NDArray[np.complex128]

    @property
    def samples(self) -> NDArray[np.int64]:
        """Samples along each side of a pixel ``[n]``: 1 up to twice the square's resolution, as in dlib."""
        return np.clip(np.floor(np.abs(self.step)), 1, _MOST_SAMPLES).astype(np.int64)


def face_squares(points: NDArray[np.floating], layout: Layout) -> FaceSquares:
    """Fit a layout to faces by similarity transforms.

    Args:
        points: five points of each face ``[n,5,2]`` in continuous pixels, in the layout's order.
        layout: where they belong.

    Raises:
        ValueError: for another shape.
        InputError: if points are not finite or all in one place, so that they are no face.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise ValueError(f"points are {list(points.shape)}, expected [n,5,2]")
    face, place = _complex(points), layout.numbers
    middle = face.mean(1)
    arms, wanted = face - middle[:, None], place - place.mean()
    spread = (np.abs(arms) ** 2).sum(1)
    product = (arms * wanted.conj()).sum(1)
    if not np.isfinite(spread).all() or not (np.abs(product) > 1e-6).all():
        raise InputError("the five points of a face are not finite or lie in one place; was a face found?")
    step = spread / product.conj() if layout.from_face else product / (np.abs(wanted) ** 2).sum()
    centre = complex(layout.size / 2, layout.size / 2)
    target = middle + step * (centre - place.mean())
    if layout.whole_pixels:
        length = np.abs(step)
        step = step / length * np.maximum(layout.size * length - 1, 0) / (layout.size - 1)
    return FaceSquares(layout.size, step, target - step * centre)


def cut_faces(pictures: Float[Tensor, "n 3 h w"], squares: FaceSquares) -> Float[Tensor, "n 3 s s"]:
    """Sample each picture's square.

    Interpolation is linear; where a picture has twice the square's resolution or more, each pixel is the mean
    of several samples. It is black outside of the picture. Gradients pass to the pictures, not to the
    squares.

    Args:
        pictures: in [-1,1], one for each square, on any device.
        squares: of :func:`face_squares`.

    Raises:
        ValueError: if there are more or fewer pictures than squares.
    """
    if len(pictures) != len(squares.step):
        raise ValueError(
            f"there are {len(pictures)} pictures for {len(squares.step)} squares; give one for each"
        )
    samples, pieces, order = squares.samples, list[Tensor](), list[int]()
    for count in np.unique(samples).tolist():
        which = np.flatnonzero(samples == count)
        for part in np.array_split(which, math.ceil(len(which) * count**2 / _AT_ONCE)):
            if len(part):
                pieces.append(_sampled(pictures, squares, part, count))
                order += part.tolist()
    if not pieces:
        return pictures.new_zeros((0, 3, squares.size, squares.size))
    return torch.cat(pieces)[_there(np.argsort(order), pictures.device)]


def _sampled(pictures: Tensor, squares: FaceSquares, which: NDArray[np.int64], count: int) -> Tensor:
    """Sample the squares ``which`` at ``count`` by ``count`` places in each pixel, and average."""
    height, width = pictures.shape[-2:]
    device, kind = pictures.device, pictures.dtype
    # picture coordinates of grid_sample: -1 and 1 are its edges
    step, origin = squares.step[which], squares.origin[which]
    across = np.stack([step.real, -step.imag, origin.real - width / 2], 1) * (2 / width)
    down = np.stack([step.imag, step.real, origin.imag - height / 2], 1) * (2 / height)
    side = (torch.arange(squares.size * count, device=device, dtype=kind) + 0.5) / count
    lines = _there(np.stack([across, down]), device).to(kind)[..., None, None]  # 2 n 3 1 1
    # products one by one: as matrices a card would round them to TF32
    grid = (lines[:, :, 0] * side + lines[:, :, 1] * side[:, None] + lines[:, :, 2]).permute(1, 2, 3, 0)
    chosen = pictures if len(which) == len(pictures) else pictures[_there(which, device)]
    # black is -1, and grid_sample gives 0 outside
    found = F.grid_sample(chosen + 1, grid, align_corners=False) - 1
    return F.avg_pool2d(found, count) if count > 1 else found


def _there(values: NDArray[np.float64] | NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)


def _complex(points: NDArray[np.floating]) -> NDArray[np.complex128]:
    return np.asarray(points[..., 0] + 1j * points[..., 1], np.complex128)
