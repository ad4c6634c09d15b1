"""Finding the expression with which a head's landmarks lie at given places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.expression_names import expression_limits, is_direction, region_of
from portrait_core.face_model.head_points import HeadPoints, ShapedPoints, outer_eye_distance
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.face_model.topology import EYE_LEFT, EYE_OUTER, EYE_RIGHT, N_MESH
from portrait_core.tracking.normal import expression_prior
from portrait_core.tracking.quadratic import solve_bounded
from portrait_core.tracking.terms import EYES

Array = NDArray[np.float64]

_STEPS = 2
"""Gauss-Newton steps per frame; only the jaw's turn is not linear."""
_GAZE_WEIGHT = 100.0
"""Weight of the irises' places in their eyes."""
_GAP_WEIGHT = 30.0
"""Weight of gaps between the lips: lips that meet must meet, wherever they are."""
_RIDGE = 1e-9
"""Added to the diagonal of the equations, so that they can be solved."""
_LID_NEIGHBOURS = 0.02
"""Weight of the eyes' outlines, whose corners follow and whose lids :mod:`portrait_core.template.lids`
moves."""

_PLAIN_PRIOR = 10.0
"""Factor of the pull of blendshapes toward 0 where they stand in for directions: few and natural ones."""


class LandmarkSolver:
    """Solves for some expressions of one head; lengths are over ``unit``, in box units.

    Args:
        head: the landmarks before they are anybody's.
        points: the head's.
        unit: the distance of its outer eye corners.
        free: which expressions may change ``[E]``.
        stiffness: factor of the pull toward the centre.
    """

    def __init__(
        self,
        head: HeadPoints,
        points: ShapedPoints,
        unit: float,
        free: NDArray[np.bool_],
        stiffness: float = 1.0,
    ) -> None:
        self._points, self._unit, self._free = points, unit, np.flatnonzero(free)
        weight = head.weight.copy()
        weight[np.setdiff1d(np.concatenate([EYE_RIGHT, EYE_LEFT]), EYE_OUTER)] *= _LID_NEIGHBOURS
        self._root = np.sqrt(weight[:N_MESH])
        self._prior = stiffness * expression_prior(head.names)[np.ix_(self._free, self._free)]
        lowest, highest = expression_limits(head.names)
        self._lowest, self._highest = lowest[self._free], highest[self._free]

    def solve(self, target: Array, start: Array, centre: Array) -> Array:
        """Find the expression.

        Args:
            target: places of the landmarks ``[478,3]``, of which x and y count.
            start: the first guess ``[E]``; expressions that are not free keep it.
            centre: values of the free expressions where landmarks do not tell ``[E]``.

        Returns:
            ``[E]``.
        """
        expression, free = start.copy(), self._free
        expression[free] = expression[free].clip(self._lowest, self._highest)
        for _ in range(_STEPS):
            rows, residual = self._linearised(expression, target)
            rows = rows[:, free]
            step = solve_bounded(
                rows.T @ rows + self._prior + _RIDGE * np.eye(len(free)),
                rows.T @ residual + self._prior @ (expression - centre)[free],
                self._lowest - expression[free],
                self._highest - expression[free],
            )
            expression[free] = (expression[free] + step).clip(self._lowest, self._highest)
        return expression

    def _linearised(self, expression: Array, target: Array) -> tuple[Array, Array]:
        """Return rows ``[n,E]`` and residuals ``[n]`` of the linearised problem.

        They are weighted differences of landmarks across and up, then those of the irises from the middles of
        their eyes, and those of the gaps between the lips.
        """
        points, unit = self._points, self._unit
        every = np.broadcast_to(np.eye(3)[:2], (len(target), 2, 3))
        rows = points.by_expression(every, expression) / unit  # k 2 E
        apart = (points.points(expression) / unit - target)[:, :2]
        gaze_rows, gaze_apart = [], []
        for eye in EYES:
            middle = (rows[eye.outer] + rows[eye.inner]) / 2
            gaze_rows.append(rows[eye.iris] - middle)
            gaze_apart.append(apart[eye.iris] - (apart[eye.outer] + apart[eye.inner]) / 2)
        upper, lower = (np.asarray(edge[1:-1]) for edge in INNER_LIPS)
        gap_rows, gap_apart = rows[upper] - rows[lower], apart[upper] - apart[lower]
        weighted = self._root[:, None, None] * rows[:N_MESH]
        gaze, gap = np.sqrt(_GAZE_WEIGHT), np.sqrt(_GAP_WEIGHT)
        stacked = [weighted, gaze * np.stack(gaze_rows), gap * gap_rows]
        residuals = [self._root[:, None] * apart[:N_MESH], gaze * np.stack(gaze_apart), gap * gap_apart]
        return (
            np.concatenate(stacked).reshape(-1, rows.shape[2]),
            np.concatenate(residuals).ravel(),
        )


class UnitTeller:
    """Expresses a face's expression in blendshapes alone, without directions.

    A generator whose latents hold blendshapes knows no others.

    Args:
        head: the landmarks before they are anybody's.
        shape: the person's ``[S]``.
    """

    def __init__(self, head: HeadPoints, shape: NDArray[np.floating]) -> None:
        self._points = head.with_shape(np.asarray(shape, np.float64))
        self._unit = outer_eye_distance(self._points.points(np.zeros(len(head.names))))
        self._units = np.array([not is_direction(name) for name in head.names])
        told = np.array([region_of(name) in ("mouth", "brows") for name in head.names]) & self._units
        self._kept = self._units & ~told
        self._solver = LandmarkSolver(head, self._points, self._unit, told, _PLAIN_PRIOR)

    def tell(self, expression: NDArray[np.floating]) -> Array:
        """Return the blendshapes ``[U]`` nearest to an expression ``[E]``; lids and gaze are its own."""
        shown: Array = np.asarray(expression, np.float64)
        target = self._points.points(shown) / self._unit
        start, centre = np.where(self._units, shown, 0.0), np.where(self._kept, shown, 0.0)
        return self._solver.solve(target, start, centre)[self._units]
