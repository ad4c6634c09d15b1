"""The landmarks of a morphable head as functions of shape, expression and jaw, with their derivatives.

Everything is in the box frame (the generator's world) and float64. Linear blend skinning acts on the
landmarks through the jaw alone: with rest points ``P``, skinning weight ``w`` and jaw joint ``J``,
``X = P + (R - I) sum_c b_c w_c (v_c - J)``, exact for points that blend several vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.directions import handle_points
from portrait_core.face_model.expression_names import is_direction
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.topology import (
    BROWS,
    EYE_LEFT,
    EYE_OUTER,
    EYE_RIGHT,
    FACE_OVAL,
    LIPS,
    MIRROR,
    N_MESH,
    N_POINTS,
)

Array = NDArray[np.float64]

_JAW = 2  # joint number in FLAME's order
_SPREAD_M = 0.004
_LARGEST_SHIFT_M = 0.006
_HANDLE_WEIGHT = 100.0


@dataclass(frozen=True)
class HeadPoints:
    """Landmarks of a head in box units: ``rest [478,3]``, ``shapes [478,3,S]``, ``expressions [478,3,E]``.

    ``hinged [H]`` lists the landmarks that the jaw moves; the arrays named ``hinge_`` are their
    skinning-weighted offsets from the jaw joint. ``weight [478]`` is how far each landmark is to be trusted.
    """

    rest: Array
    shapes: Array
    expressions: Array
    hinged: NDArray[np.intp]
    hinge_rest: Array
    hinge_shapes: Array
    hinge_expressions: Array
    weight: Array
    names: tuple[str, ...]
    jaw_open_angle_rad: float

    @classmethod
    def from_head(cls, head: MorphableHead) -> HeadPoints:
        """Take the arrays from a head that has 478 landmarks and a ``jawOpen`` unit.

        Raises:
            ValueError: if the head has no such landmarks (FLAME as published has none).
        """
        arrays = {name: value.double().cpu().numpy() for name, value in head.named_buffers()}
        if len(arrays.get("lmk_faces_idx", ())) != N_POINTS or "jawOpen" not in head.expression_names:
            raise ValueError(
                "this head has no 478 face-mesh landmarks or no jawOpen unit; fit with the embedded head"
            )
        corners = arrays["f"].astype(int)[arrays["lmk_faces_idx"].astype(int)]  # k 3
        share = arrays["lmk_bary_coords"]
        hinge = share * arrays["weights"][corners, _JAW]
        joint = arrays["J_regressor"][_JAW]
        template = arrays["v_template"] - arrays["_box_center"]

        def blend(values: Array) -> tuple[Array, Array]:
            plain = np.einsum("kc,kc...->k...", share, values[corners])
            hinged = np.einsum("kc,kc...->k...", hinge, values[corners])
            pivot = np.tensordot(joint, values, 1)
            return plain, hinged - hinge.sum(1).reshape(-1, *[1] * pivot.ndim) * pivot

        unit = head.box_unit_m
        rest, hinge_rest = blend(template / unit)
        basis, hinge_basis = blend(arrays["shapedirs"] / unit)
        rest, trust = _symmetric(rest, unit)
        spread = np.concatenate([arrays["lmk_spread_m"], np.zeros(N_POINTS - N_MESH)])
        weight = trust / (1.0 + (np.maximum(spread, spread[MIRROR]) / _SPREAD_M) ** 2)
        hinged = np.flatnonzero(hinge.any(1))
        n = head.n_shape
        return cls(
            rest=rest,
            shapes=np.ascontiguousarray(basis[..., :n]),
            expressions=np.ascontiguousarray(basis[..., n:]),
            hinged=hinged,
            hinge_rest=hinge_rest[hinged],
            hinge_shapes=np.ascontiguousarray(hinge_basis[hinged, :, :n]),
            hinge_expressions=np.ascontiguousarray(hinge_basis[hinged, :, n:]),
            weight=_with_handles(weight * _importance(), head),
            names=tuple(head.expression_names),
            jaw_open_angle_rad=head.jaw_open_angle_rad,
        )

    def brow_points(self) -> NDArray[np.intp]:
        """Return landmarks above the eyes: brows and forehead."""
        return np.flatnonzero(self.rest[:N_MESH, 1] > self.rest[list(BROWS), 1].min())

    def with_shape(self, shape: Array, offsets: Array | float = 0.0) -> ShapedPoints:
        """Return one person's landmarks: ``shape [S]``, and ``offsets [478,3]`` in box units."""
        return ShapedPoints(
            rest=self.rest + offsets + self.shapes @ shape,
            expressions=self.expressions,
            hinged=self.hinged,
            hinge_rest=self.hinge_rest + self.hinge_shapes @ shape,
            hinge_expressions=self.hinge_expressions,
            jaw_index=self.names.index("jawOpen"),
            jaw_open_angle_rad=self.jaw_open_angle_rad,
        )

    def size_gradient(self) -> Array:
        """Return the derivative ``[S]`` of the log of the landmarks' extent by the shape, at the mean."""
        share = self.weight / self.weight.sum()
        centred = self.rest - share @ self.rest
        moment = np.einsum("k,kc,kcs->s", share, centred, self.shapes)
        return np.asarray(moment / np.einsum("k,kc,kc->", share, centred, centred))

    def by_shape(self, by_point: Array, jaw_open: float) -> Array:
        """Chain ``by_point [478,r,3]`` with the landmarks' derivative by the shape.

        Args:
            by_point: derivative of r values by the landmarks ``[478,r,3]``.
            jaw_open: opening of the jaw, 0..1.

        Returns:
            ``[478,r,S]``.
        """
        turn = _hinge(self.jaw_open_angle_rad * jaw_open) - np.eye(3)
        result = by_point @ self.shapes
        result[self.hinged] += (by_point[self.hinged] @ turn) @ self.hinge_shapes
        return np.asarray(result)


@dataclass(frozen=True)
class ShapedPoints:
    """The landmarks of one person as a function of expression: :meth:`HeadPoints.with_shape`."""

    rest: Array
    expressions: Array
    hinged: NDArray[np.intp]
    hinge_rest: Array
    hinge_expressions: Array
    jaw_index: int
    jaw_open_angle_rad: float

    def points(self, expression: Array) -> Array:
        """Return landmarks ``[478,3]`` in box units for ``expression [E]``."""
        turn = _hinge(self.jaw_open_angle_rad * expression[self.jaw_index]) - np.eye(3)
        result = self.rest + self.expressions @ expression
        result[self.hinged] += (self.hinge_rest + self.hinge_expressions @ expression) @ turn.T
        return np.asarray(result)

    def by_expression(self, by_point: Array, expression: Array) -> Array:
        """Chain ``by_point [478,r,3]`` with the derivative of :meth:`points` by the expression.

        Returns:
            ``[478,r,E]``.
        """
        angle = self.jaw_open_angle_rad * expression[self.jaw_index]
        turn = _hinge(angle) - np.eye(3)
        by_hinged = by_point[self.hinged]
        hinged = (by_hinged @ turn) @ self.hinge_expressions
        offsets = self.hinge_rest + self.hinge_expressions @ expression
        by_angle = (offsets @ _hinge_derivative(angle).T)[..., None]
        hinged[..., self.jaw_index] += self.jaw_open_angle_rad * (by_hinged @ by_angle)[..., 0]
        result = by_point @ self.expressions
        result[self.hinged] += hinged
        return np.asarray(result)


def outer_eye_distance(points: NDArray[np.floating]) -> float:
    """Measure the distance of the outer eye corners of landmarks ``[k,d]``, the unit of a face."""
    return float(np.linalg.norm(points[EYE_OUTER[0]] - points[EYE_OUTER[1]]))


def _hinge(angle: float) -> Array:
    """Return rotations about x."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])


def _hinge_derivative(angle: float) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[0.0, 0.0, 0.0], [0.0, -sin, -cos], [0.0, cos, -sin]])


def _symmetric(rest: Array, unit_m: float) -> tuple[Array, Array]:
    """Average each landmark with its mirror image, and trust those little whose two halves disagree.

    Each landmark was placed on the mesh by votes of its own; half the difference is placement error.
    """
    mirrored = rest[MIRROR] * np.array([-1.0, 1.0, 1.0])
    apart_m = np.linalg.norm(rest - mirrored, axis=1) * unit_m
    small = apart_m < _LARGEST_SHIFT_M
    balanced = np.where(small[:, None], (rest + mirrored) / 2, rest)
    return balanced, np.where(small, 1.0, 1.0 / (1.0 + (apart_m / _SPREAD_M) ** 2))


def _with_handles(weight: Array, head: MorphableHead) -> Array:
    """Raise the weight of landmarks that a head with directions can move by themselves.

    Their measured places are the motion that is carried over.
    """
    if any(is_direction(name) for name in head.expression_names):
        weight[handle_points()] = _HANDLE_WEIGHT
    return weight


def _importance() -> Array:
    """Return each landmark's weight: eyes and lips carry the expression, the oval slides along the head."""
    weight = np.ones(N_POINTS)
    weight[FACE_OVAL] = 0.3
    weight[BROWS] = 1.5
    weight[LIPS] = 1.5
    weight[EYE_RIGHT] = weight[EYE_LEFT] = 2.0
    weight[N_MESH:] = 0.0  # the irises enter relative to the eye's corners, see terms.py
    return weight
