"""FLAME (Li et al. 2017) with DECA's landmarks, one head at a time, in numpy and double precision.

Arrays are those of the published files, under their names (``v_template``, ``shapedirs``, ...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Arrays = Mapping[str, NDArray[np.generic]]
PARENTS = (-1, 0, 1, 1, 1)
"""Of root, neck, jaw and the two eyes."""
IDENTITY = 300
"""Directions of identity in ``shapedirs``; those of expression follow."""


def rodrigues(vector: Array) -> Array:
    """The rotation about ``vector [3]`` by its length, with the published epsilon in the length."""
    angle = np.linalg.norm(vector + 1e-8)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k)


class Posed(NamedTuple):
    """One head: vertices ``[V,3]``, moved joints ``[5,3]``."""

    vertices: Array
    joints: Array


def decode(arrays: Arrays, shape: Array, expression: Array, pose: Array, eyes: Array | None = None) -> Posed:
    """A head from ``shape``, ``expression``, ``pose [6]`` (root, jaw) and ``eyes [6]``, neck at rest."""
    basis = np.asarray(arrays["shapedirs"], np.float64)
    moved = np.asarray(arrays["v_template"], np.float64) + basis[..., : len(shape)] @ shape
    moved = moved + basis[..., IDENTITY : IDENTITY + len(expression)] @ expression
    joints = np.asarray(arrays["J_regressor"], np.float64) @ moved
    turns = np.concatenate([pose[:3], np.zeros(3), pose[3:], np.zeros(6) if eyes is None else eyes])
    rotations = [rodrigues(turn) for turn in turns.reshape(5, 3)]
    feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
    moved = moved + np.asarray(arrays["posedirs"], np.float64) @ feature

    world: list[Array] = []
    for joint, (rotation, parent) in enumerate(zip(rotations, PARENTS, strict=True)):
        own = np.eye(4)
        own[:3, :3] = rotation
        own[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(world[parent] @ own if parent >= 0 else own)
    places = np.stack([transform[:3, 3] for transform in world])
    vertices = np.zeros_like(moved)
    for transform, joint, weight in zip(world, joints, np.asarray(arrays["weights"]).T, strict=True):
        at_joint = (moved - joint) @ transform[:3, :3].T + transform[:3, 3]
        vertices += weight[:, None] * at_joint
    return Posed(vertices, places)


def contour_row(root: Array) -> int:
    """The row of the contour's table for a head turned by ``root [3]``: its yaw in whole degrees."""
    rotation = rodrigues(root)
    yaw = np.degrees(np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0])))
    degrees = int(np.round(min(yaw, 39.0)))
    if degrees >= 0:
        return degrees
    return 39 - degrees if degrees >= -39 else 78


def on_surface(vertices: Array, faces: NDArray[np.generic], index: Array, weights: Array) -> Array:
    """Points ``[n,3]`` at barycentric ``weights [n,3]`` of the triangles ``index [n]``."""
    corners = vertices[np.asarray(faces, np.int64)[np.asarray(index, np.int64)]]  # n 3 3
    return np.asarray((corners * np.asarray(weights, np.float64)[..., None]).sum(1))


def landmarks2d(vertices: Array, faces: NDArray[np.generic], embedding: Arrays, root: Array) -> Array:
    """The 17 points of the contour that is seen, then the 51 others."""
    row = contour_row(root)
    contour = (embedding["dynamic_lmk_faces_idx"][row], embedding["dynamic_lmk_bary_coords"][row])
    others = (embedding["static_lmk_faces_idx"], embedding["static_lmk_bary_coords"])
    return np.concatenate([on_surface(vertices, faces, *part) for part in (contour, others)])


def landmarks3d(vertices: Array, faces: NDArray[np.generic], embedding: Arrays) -> Array:
    """The 68 points at fixed places."""
    full = embedding["full_lmk_faces_idx"][0], embedding["full_lmk_bary_coords"][0]
    return on_surface(vertices, faces, *full)
