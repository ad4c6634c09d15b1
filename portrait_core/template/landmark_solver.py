"""Finding the expression with which a head's landmarks lie where they are wanted."""

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
_GAP_WEIGHT = 30.0
"""Of gaps between the lips: lips that meet are to meet, wherever they are."""
_LID_NEIGHBOURS = 0.02
"""Weight of the eyes' outlines, whose corners follow and whose lids :mod:`portrait_core.template.lids`
moves."""

_PLAIN_PRIOR = 10.0
"""How much stronger units are pulled toward 0 where they stand in for directions: few and natural ones."""


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

    def solve(self, wanted: Array, start: Array, centre: Array) -> Array:
        """Find the expression.

        Args:
            wanted: places of the landmarks ``[478,3]``, of which x and y count.
            start: the first guess ``[E]``, and what is not free.
            centre: what the free ones are where landmarks do not tell ``[E]``.

        Returns:
            ``[E]``.
        """
        found, free = start.copy(), self._free
        found[free] = found[free].clip(self._lowest, self._highest)
        for _ in range(_STEPS):
            rows, residual = self._linearised(found, wanted)
            rows = rows[:, free]
            step = solve_bounded(
                rows.T @ rows + self._prior + 1e-9 * np.eye(len(free)),
                rows.T @ residual + self._prior @ (found - centre)[free],
                self._lowest - found[free],
                self._highest - found[free],
            )
            found[free] = (found[free] + step).clip(self._lowest, self._highest)
        return found

    def _linearised(self, expression: Array, wanted: Array) -> tuple[Array, Array]:
        """Rows ``[n,E]`` and residuals ``[n]``: weighted differences across and up, then the irises' from the
        middles of their eyes, and those of the gaps between the lips.
        """
        points, unit = self._points, self._unit
        every = np.broadcast_to(np.eye(3)[:2], (len(wanted), 2, 3))
        rows = points.by_expression(every, expression) / unit  # k 2 E
        apart = (points.points(expression) / unit - wanted)[:, :2]
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
    """Tells a face's expression in units alone, without directions: what a generator knows whose latents hold
    the units.

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
        """Give the units ``[U]`` that look most like an expression ``[E]``; lids and gaze are its own."""
        shown: Array = np.asarray(expression, np.float64)
        wanted = self._points.points(shown) / self._unit
        start, centre = np.where(self._units, shown, 0.0), np.where(self._kept, shown, 0.0)
        return self._solver.solve(wanted, start, centre)[self._units]
