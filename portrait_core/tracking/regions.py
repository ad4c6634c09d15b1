"""Rotated squares around faces and eyes, and running a network on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.tracking.crop import sample_square

MESH_INPUT = 192
"""Side of the face meshes' input in pixels."""
FACE_MARGIN = 1.5
"""Side of the region over the longer side of the face's box, as the mesh models were trained."""
_BATCH = 16


@dataclass(frozen=True)
class Regions:
    """Rotated squares of frames.

    ``center [k,2]`` and ``side [k]`` in pixels, ``angle [k]`` in radians, ``frame [k]``.
    """

    center: NDArray[np.float64]
    side: NDArray[np.float64]
    angle: NDArray[np.float64]
    frame: NDArray[np.int64]

    def take(self, index: NDArray[np.integer]) -> Regions:
        """Return the regions with numbers ``index``."""
        return Regions(self.center[index], self.side[index], self.angle[index], self.frame[index])

    def axes(self) -> NDArray[np.float64]:
        """Return the squares' axes ``[k,2,2]``: the columns are right and down in the image."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)

    def to_image(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map points ``[k,m,2]`` in 0..1 of their squares to pixels of the frames."""
        local = (points - 0.5) * self.side[:, None, None]
        return np.asarray(local @ self.axes().transpose(0, 2, 1) + self.center[:, None])


def run_regions(
    session: onnxruntime.InferenceSession,
    frames: NDArray[np.uint8],
    regions: Regions,
    size: int,
    mirrored: bool = False,
) -> list[NDArray[np.float64]]:
    """Run a model on regions of the frames, in batches.

    Args:
        session: a model with one input ``image [k,size,size,3]``, RGB in 0..1.
        frames: ``[n,H,W,3]`` uint8 RGB.
        regions: k squares of the frames.
        size: side of the model's input in pixels.
        mirrored: whether the model sees the squares mirrored left to right.

    Returns:
        The model's outputs in its order, each with k rows.
    """
    results = []  # an empty batch still runs, so that the outputs have their shapes
    for start in range(0, max(len(regions.frame), 1), _BATCH):
        part = range(start, min(start + _BATCH, len(regions.frame)))
        image = np.zeros((len(part), size, size, 3), dtype=np.float32)
        for row, k in enumerate(part):
            patch = sample_square(
                frames[regions.frame[k]], regions.center[k], regions.side[k], regions.angle[k], size
            )
            image[row] = patch[:, ::-1] if mirrored else patch
        results.append(session.run(None, {"image": image / 255.0}))
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*results, strict=True)]


def mesh_regions(mesh: NDArray[np.float64], frame: NDArray[np.int64]) -> Regions:
    """Return the regions of landmarks ``[k,468,2]`` in pixels of the frames ``[k]``.

    They are squares around the landmarks' bounding box in axes turned with the eye line, as the mesh model
    was trained.
    """
    eyes = mesh[:, 263] - mesh[:, 33]
    flat = Regions(np.zeros((len(mesh), 2)), np.ones(len(mesh)), np.arctan2(eyes[:, 1], eyes[:, 0]), frame)
    turned = mesh @ flat.axes()
    low, high = turned.min(axis=1), turned.max(axis=1)
    center = (flat.axes() @ ((low + high) / 2)[..., None])[..., 0]
    return Regions(center, FACE_MARGIN * (high - low).max(axis=1), flat.angle, frame)
