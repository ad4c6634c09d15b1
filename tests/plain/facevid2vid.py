"""Face-vid2vid's arithmetic (Wang, Mallya, Liu 2021) in numpy's double precision, for one picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

Array = NDArray[np.float64]


def place(index: int, count: int) -> float:
    """Of a voxel along an axis: -1 the first, 1 the last."""
    return 2 * index / (count - 1) - 1


def expected_places(scores: Array) -> Array:
    """Keypoints [K,3] (x, y, z) of scores [K,D,H,W], at temperature 0.1."""
    found = []
    for volume in scores:
        weights = np.exp((volume - volume.max()) / 0.1)
        total = np.zeros(3)
        for z, y, x in np.ndindex(*volume.shape):
            depth, height, width = volume.shape
            total += weights[z, y, x] * np.array([place(x, width), place(y, height), place(z, depth)])
        found.append(total / weights.sum())
    return np.array(found)


def degrees(scores: Array) -> float:
    """Of the scores of 3-degree bins."""
    weights = np.exp(scores - scores.max())
    return float(sum(w * i for i, w in enumerate(weights)) / weights.sum() * 3 - 99)


def rotation(yaw: float, pitch: float, roll: float) -> Array:
    """Rx(pitch) Ry(yaw) Rz(roll), with 3.14 for pi."""
    (sy, sx, sz), (cy, cx, cz) = (f(np.array([yaw, pitch, roll]) / 180 * 3.14) for f in (np.sin, np.cos))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def posed(canonical: Array, angles: Array, t: Array, exp: Array) -> Array:
    """Keypoints [K,3] of a picture; ``exp`` holds x, y, z of the first keypoint, then of the next."""
    turn = rotation(*angles)
    return np.array([turn @ point + t + exp[3 * k : 3 * k + 3] for k, point in enumerate(canonical)])


def hull_volume(points: Array) -> float:
    """Sum of the tetrahedra between points."""
    corners = points[Delaunay(points).simplices]
    return float(np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])).sum() / 6)


def relative(source: Array, driving: Array, initial: Array) -> Array:
    """Keypoints of relative mode."""
    return source + (driving - initial) * np.sqrt(hull_volume(source) / hull_volume(initial))


def heatmaps(keypoints: Array, shape: tuple[int, int, int]) -> Array:
    """[K,D,H,W]."""
    made = np.zeros((len(keypoints), *shape))
    for k, z, y, x in np.ndindex(*made.shape):
        here = [place(x, shape[2]), place(y, shape[1]), place(z, shape[0])]
        made[k, z, y, x] = np.exp(-((here - keypoints[k]) ** 2).sum() / (2 * 0.01))
    return made


def flows(source: Array, driving: Array, shape: tuple[int, int, int]) -> Array:
    """[K+1,D,H,W,3], the identity first."""
    made = np.zeros((len(source) + 1, *shape, 3))
    for n, z, y, x in np.ndindex(*made.shape[:-1]):
        made[n, z, y, x] = place(x, shape[2]), place(y, shape[1]), place(z, shape[0])
        if n:
            made[n, z, y, x] += source[n - 1] - driving[n - 1]
    return made


def sampled(volume: Array, at: Array) -> Array:
    """A volume [C,D,H,W] at (x, y, z), where -1 and 1 are the outer faces of voxels; 0 outside; trilinear."""
    sizes = np.array(volume.shape[:0:-1])
    pixel = ((at + 1) * sizes - 1) / 2
    low = np.floor(pixel).astype(int)
    total = np.zeros(len(volume))
    for corner in np.ndindex(2, 2, 2):
        index = low + corner
        if ((index >= 0) & (index < sizes)).all():
            total += np.prod(1 - np.abs(pixel - index)) * volume[:, index[2], index[1], index[0]]
    return total


def moved(volume: Array, flow: Array) -> Array:
    """A volume [C,D,H,W] after a flow [D,H,W,3]."""
    made = np.zeros((len(volume), *flow.shape[:-1]))
    for z, y, x in np.ndindex(*flow.shape[:-1]):
        made[:, z, y, x] = sampled(volume, flow[z, y, x])
    return made


def motion_input(compressed: Array, source: Array, driving: Array) -> Array:
    """What the hourglass reads [(K+1)(C+1),D,H,W]: each flow's difference of Gaussians, then its features."""
    depth, height, width = compressed.shape[1:]
    shape = (depth, height, width)
    heat = heatmaps(driving, shape) - heatmaps(source, shape)
    rows: list[Array] = []
    for n, flow in enumerate(flows(source, driving, shape)):
        rows += [heat[n - 1] if n else np.zeros(shape), *moved(compressed, flow)]
    return np.array(rows)


def deformation(scores: Array, source: Array, driving: Array) -> Array:
    """The flow [D,H,W,3] that scores [K+1,D,H,W] mix."""
    depth, height, width = scores.shape[1:]
    every = flows(source, driving, (depth, height, width))
    made = np.zeros(every.shape[1:])
    for voxel in np.ndindex(*made.shape[:-1]):
        weights = np.exp(scores[:, *voxel])
        made[voxel] = sum(w * flow[voxel] for w, flow in zip(weights, every, strict=True)) / weights.sum()
    return made
