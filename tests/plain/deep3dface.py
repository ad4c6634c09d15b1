"""Deep3DFaceRecon's rotation, Basel face and alignment (Deng et al. 2019) and EG3D's cameras and crops made
from them (Chan et al. 2022), one face at a time, in numpy and double precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
FOCAL, CENTER, DISTANCE = 1015.0, 112.0, 10.0
"""The camera of the 224-pixel crop, in pixels and in the model's unit."""


def rotation(angle: Array) -> Array:
    """The transpose of Rz Ry Rx, for row vectors."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray((about_z @ about_y @ about_x).T)


class Face(NamedTuple):
    """One decoded face; see the folder's README for units and axes."""

    shape: Array
    normals: Array
    camera_vertices: Array
    texture: Array
    color: Array
    landmarks: Array


def face(model: Mapping[str, NDArray[np.generic]], code: Array) -> Face:
    """The Basel face of a code ``[257]`` from the arrays of ``BFM_model_front.mat``, indices from 1."""
    identity, expression, texture, angle, gamma, trans = np.split(code, [80, 144, 224, 227, 254])
    arrays = {name: np.asarray(value, np.float64) for name, value in model.items()}
    mean = arrays["meanshape"].reshape(-1, 3)
    moved = arrays["idBase"] @ identity + arrays["exBase"] @ expression
    shape = mean - mean.mean(0) + moved.reshape(-1, 3)
    faces, around = (arrays[name].astype(int) - 1 for name in ("tri", "point_buf"))
    flat = []
    for a, b, c in shape[faces]:
        normal = np.cross(a - b, b - c)
        flat.append(normal / np.linalg.norm(normal))
    flat.append(np.zeros(3))  # of no triangle
    normals = np.array(flat)[around].sum(1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    turn = rotation(angle)
    camera = shape @ turn + trans
    camera[:, 2] = DISTANCE - camera[:, 2]
    albedo = (arrays["meantex"].ravel() + arrays["texBase"] @ texture).reshape(-1, 3) / 255
    points = camera[arrays["keypoints"].ravel().astype(int) - 1]
    return Face(
        shape=shape,
        normals=normals,
        camera_vertices=camera,
        texture=albedo,
        color=albedo * shade(normals @ turn, gamma.reshape(3, 9)),
        landmarks=FOCAL * points[:, :2] / points[:, 2:] + CENTER,
    )


def shade(normals: Array, gamma: Array) -> Array:
    """Light of nine harmonics ``gamma [3,9]``, 0.8 added to each first, on ``normals [n,3]``."""
    a0, a1, a2 = np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)
    c0, c1 = 1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi)
    c2 = 3 * np.sqrt(5) / np.sqrt(12 * np.pi)
    light = gamma.copy()
    light[:, 0] += 0.8
    out = np.zeros_like(normals)
    for i, (x, y, z) in enumerate(normals):
        first = [a0 * c0, -a1 * c1 * y, a1 * c1 * z, -a1 * c1 * x]
        second = [x * y, -y * z, 0.5 / np.sqrt(3) * (3 * z * z - 1), -x * z, 0.5 * (x * x - y * y)]
        out[i] = light @ np.array(first + [a2 * c2 * term for term in second])
    return out


class Aligned(NamedTuple):
    """Where one image is resized and cut; ``translation`` has y up, as ``points`` have."""

    translation: Array
    size: float
    scale: float
    resized: tuple[int, int]
    corner: tuple[int, int]
    points: Array


def align(points: Array, size_wh: Array, standard: Array, target: int, rescale: float) -> Aligned:
    """The square of ``target`` pixels around five ``points [5,2]`` (y down) of an image."""
    width, height = (int(n) for n in size_wh)
    up = np.stack([points[:, 0], height - 1 - points[:, 1]], 1)
    rows, wanted = [], []
    for (x, y, z), (u, v) in zip(standard, up, strict=True):
        rows += [[x, y, z, 1, 0, 0, 0, 0], [0, 0, 0, 0, x, y, z, 1]]
        wanted += [u, v]
    k = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    size = float(np.linalg.norm(k[:3]) + np.linalg.norm(k[4:7])) / 2
    tx, ty = k[3], k[7]
    s = rescale / size
    w, h = int(width * s), int(height * s)
    left = int(w / 2 - target / 2 + (tx - width / 2) * s)
    top = int(h / 2 - target / 2 + (height / 2 - ty) * s)
    moved = (up - [tx, ty] + [width / 2, height / 2]) * s - [w / 2 - target / 2, h / 2 - target / 2]
    return Aligned(np.array([tx, ty]), size, s, (w, h), (left, top), moved)


def cut(image: NDArray[np.uint8], aligned: Aligned, target: int) -> Image.Image:
    """The aligned square of an image, black outside."""
    whole = Image.fromarray(image).resize(aligned.resized, Image.Resampling.BICUBIC)
    left, top = aligned.corner
    return whole.crop((left, top, left + target, top + target))


def generator_crop(image: NDArray[np.uint8], aligned: Aligned, size: int) -> NDArray[np.uint8]:
    """EG3D's crop: the middle 700 of 1024 aligned pixels, resized to ``size``."""
    middle = cut(image, aligned, 1024).crop((162, 162, 862, 862))
    return np.asarray(middle.resize((size, size), Image.Resampling.LANCZOS))


def pose(angle: Array, trans: Array) -> Array:
    """cam2world ``[4,4]`` (OpenCV axes) of a face's angles and translation, in box units."""
    turn = rotation(angle)
    out = np.eye(4)
    out[:3, :3] = turn @ np.diag([1.0, -1.0, -1.0])
    out[:3, 3] = -turn @ (trans - [0, 0, DISTANCE]) * 0.27 + [0, 0.006, 0.161]
    return out


def look_at(place: Array, pivot: Array) -> Array:
    """cam2world of a camera at ``place`` that looks at ``pivot`` without roll."""
    forward = (pivot - place) / np.linalg.norm(pivot - place)
    left = np.cross([0, 1, 0], forward)
    left /= np.linalg.norm(left)
    out = np.eye(4)
    out[:3, :3] = np.stack([-left, np.cross(forward, -left), forward], 1)
    out[:3, 3] = place
    return out


def label(angle: Array, trans: Array, mode: str) -> Array:
    """The 25 numbers of EG3D's camera: ``orig``, ``cor`` or ``simplify``."""
    found = pose(angle, trans)
    pivot = np.zeros(3) if mode == "orig" else np.array([0, 0, 0.175])
    away = found[:3, 3] - pivot
    found[:3, 3] = pivot + away * 2.7 / np.linalg.norm(away)
    if mode == "simplify":
        found = look_at(found[:3, 3], pivot)
    focal = 2985.29 / 700
    return np.concatenate([found.ravel(), [focal, 0, 0.5, 0, focal, 0.5, 0, 0, 1]])


def mirrored(label: Array) -> Array:
    """The label of the image flipped left to right."""
    out = label.copy()
    out[[1, 2, 3, 4, 8]] *= -1
    return out


def orbit(horizontal: float, vertical: float, pivot: Array, radius: float) -> Array:
    """cam2world of EG3D's look-at sampler."""
    polar = np.arccos(1 - 2 * np.clip(vertical, 1e-5, np.pi - 1e-5) / np.pi)
    theta = horizontal
    place = [np.sin(polar) * np.cos(np.pi - theta), np.cos(polar), np.sin(polar) * np.sin(np.pi - theta)]
    return look_at(radius * np.array(place), pivot)
