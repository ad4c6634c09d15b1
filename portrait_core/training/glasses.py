"""Glasses on synthetic people: two dark rims, a bridge, arms to the ears, and lightly tinted lenses.

They are designed on the average head in metres (origin between the eyes, x to the image's right, y up, z
forward). On a head of another shape they are as wide as its eyes are apart, lie in front of its brows and
nose, and their arms end at its ears.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from portrait_core.face_model.easing import smoothstep
from portrait_core.generators.scene_latents import Scene
from portrait_core.training.surfaces import Array, Follower, Skin, grid_faces

AROUND, SIDES = 36, 8
"""Segments of a rim's outline, and of the cross-section of rims, bridge and arms."""
LENS_CENTRE_M, LENS_HALF_M = np.array([0.0335, -0.0035]), np.array([0.0258, 0.0195])
"""Middle (x, y) of the lens at the image's right, and half of its width and height."""
ROUNDNESS = 2.8
"""Exponent of the outline, a superellipse: 2 is an ellipse, more has squarer corners."""
FRONT_M, WRAP_PER_M, LEAN = 0.031, 0.9, 0.10
"""Depth of the front at the nose, how it curves back to the sides, and how it leans back to the cheeks."""
RIM_HALF_M = np.array([0.0027, 0.0019])
"""Half thickness of rims, bridge and arms, across what they are seen on and along the line of sight."""
BRIDGE_M = np.array([[-0.0080, 0.0030], [-0.0040, 0.0050], [0.0, 0.0056], [0.0040, 0.0050], [0.0080, 0.0030]])
ARM_M = np.array([[0.0600, 0.0080, 0.0275], [0.0785, 0.0080, -0.0200], [0.0830, 0.0030, -0.0850]])
"""Points along the arm at the image's right: hinge, temple, top of the ear."""
CLEARANCE_M = 0.001
"""Least distance between the front and the skin behind it."""
FRAME_COLOUR, LENS_COLOUR, LENS_OPACITY = np.array([0.035, 0.030, 0.028]), np.array([0.10, 0.10, 0.11]), 0.18
WORN_FROM, WORN_WHOLLY = 0.4, 1.1
"""Values of ``glasses`` up to which there are none, and from which they are opaque."""


def glasses_presence(scene: Scene) -> float:
    """Return the opacity of a person's glasses: 0 (none) to 1."""
    return float(smoothstep(WORN_FROM, WORN_WHOLLY, scene.value("glasses")))


class GlassesMesh:
    """Constant topology of glasses, whose positions follow a head.

    Attributes:
        faces: ``[F,3]``.
        colour: albedo ``[N,3]``.
        opacity: ``[N]``, of glasses that are fully there; lenses are nearly clear.
    """

    faces: NDArray[np.int64]
    colour: Array
    opacity: Array

    def __init__(
        self, skin: Skin, eyes: tuple[NDArray[np.int64], NDArray[np.int64]], template: Array
    ) -> None:
        """Take the average head's outer skin, the vertices of both eyeballs, and all vertices ``[V,3]``."""
        self._skin, self._eyes, self._template = skin, eyes, template
        turn = np.linspace(0, 2 * np.pi, AROUND + 1)
        circle = np.stack([np.cos(turn), np.sin(turn)], 1)
        self._outline = np.sign(circle) * np.abs(circle) ** (2 / ROUNDNESS)
        self._arms = np.concatenate([ARM_M * (-1, 1, 1), ARM_M])
        self._arm_follower = Follower(skin, self._arms.astype(np.float32))
        self._distance_m = self._eye_distance(template)
        points = (AROUND + 1, AROUND + 1, len(BRIDGE_M), len(ARM_M), len(ARM_M))
        tubes = [grid_faces(rows, SIDES, closed=True) for rows in points]
        parts = [*tubes, *(2 * [grid_faces(2, AROUND + 1, closed=False)])]
        starts = np.cumsum([0, *(faces.max() + 1 for faces in parts)])
        self.faces = np.concatenate([faces + start for faces, start in zip(parts, starts, strict=False)])
        lens = (np.arange(starts[-1]) >= starts[5])[:, None]
        self.colour = np.where(lens, LENS_COLOUR, FRAME_COLOUR).astype(np.float32)
        self.opacity = np.where(lens[:, 0], LENS_OPACITY, 1.0).astype(np.float32)

    def build(self, displacement: Array) -> tuple[Array, Array]:
        """Return positions (m) and unit normals ``[N,3]`` on a head displaced ``[V,3]`` from the average."""
        moved = self._template + displacement
        middle = np.mean([moved[eye].mean(0) for eye in self._eyes], 0)
        scale = self._eye_distance(moved) / self._distance_m
        rims = [self._outline * LENS_HALF_M + LENS_CENTRE_M * (side, 1) for side in (-1, 1)]
        flat = [scale * part for part in (*rims, BRIDGE_M)]
        fronts = [self._on_front(part) + middle for part in flat]
        forward = np.array([0, 0, self._clear(np.concatenate(fronts), moved)])
        fronts = [part + forward for part in fronts]
        arms = (self._arms + self._arm_follower(displacement)).reshape(2, len(ARM_M), 3)
        for arm, rim in zip(arms, fronts[:2], strict=True):
            outer = np.abs(rim[:, 0] - middle[0]) + 0.5 * (rim[:, 1] - middle[1])
            arm[0] = rim[outer.argmax()]  # the hinge, high at the outer side
        radius = scale * RIM_HALF_M
        pieces = [_tube(line, radius) for line in (*fronts, *arms)]
        for rim in fronts[:2]:
            lens = np.concatenate([np.broadcast_to(rim.mean(0), rim.shape), rim])
            pieces.append((lens, np.broadcast_to([0.0, 0.0, 1.0], lens.shape)))
        points, normals = (np.concatenate(arrays).astype(np.float32) for arrays in zip(*pieces, strict=True))
        return points, normals

    def _eye_distance(self, vertices: Array) -> float:
        right, left = (vertices[eye].mean(0) for eye in self._eyes)
        return float(np.linalg.norm(left - right))

    @staticmethod
    def _on_front(plane: Array) -> Array:
        """Return points ``[n,3]`` of the curved front for its (x, y) ``[n,2]``."""
        depth = FRONT_M - WRAP_PER_M * plane[:, 0] ** 2 + LEAN * plane[:, 1]
        return np.concatenate([plane, depth[:, None]], 1)

    def _clear(self, front: Array, vertices: Array) -> float:
        """Return how far the front has to move for none of it to lie in the skin, in metres."""
        skin = vertices[self._skin.index]
        skin = skin[skin[:, 2] > 0]
        _, near = cKDTree(skin[:, :2]).query(front[:, :2], k=4)
        lacking = skin[near, 2].max(1) + RIM_HALF_M[1] + CLEARANCE_M - front[:, 2]
        return float(np.clip(lacking.max(), -0.002, None))


def _tube(line: Array, half: Array) -> tuple[Array, Array]:
    """Return points and normals ``[n*SIDES,3]`` of a tube along a line ``[n,3]``.

    ``half [2]`` is its half thickness across the line as seen from the front (from the side, where the line
    goes back), and along that view.
    """
    along = np.gradient(line, axis=0)
    if np.allclose(line[0], line[-1]):
        along[0] = along[-1] = line[1] - line[-2]
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-12
    goes_back = np.abs(along[:, 2:]) > 0.7
    view = np.where(goes_back, [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    across = np.cross(view, along)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    view = np.cross(along, across)
    turn = np.linspace(0, 2 * np.pi, SIDES, endpoint=False)
    sideways = np.cos(turn)[:, None] * across[:, None]
    outward = np.sin(turn)[:, None] * view[:, None]
    points = line[:, None] + half[0] * sideways + half[1] * outward
    normals = sideways / half[0] + outward / half[1]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return points.reshape(-1, 3), normals.reshape(-1, 3)
