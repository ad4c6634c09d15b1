"""Moving a portrait by what is seen of a driver: landmarks change alike, whatever the coefficients are.

The same coefficients look different on two heads, and a coefficient that would have to be negative is lost.
So the portrait's expression is solved for: its landmarks leave their places as the driver's leave theirs, in
units of the face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.faces.expression_names import expression_limits, region_of
from portrait_core.tracking.head_points import HeadPoints, ShapedPoints
from portrait_core.tracking.normal import expression_prior
from portrait_core.tracking.quadratic import solve_bounded
from portrait_core.tracking.terms import EYES
from portrait_core.tracking.topology import EYE_LEFT, EYE_OUTER, EYE_RIGHT, N_MESH

Array = NDArray[np.float64]

_STEPS = 2
"""Gauss-Newton steps per frame; only the jaw's turn is not linear."""
_GAZE_WEIGHT = 100.0
_LID_NEIGHBOURS = 0.02
"""Weight of the eyes' outlines, whose corners follow and whose lids :mod:`portrait_core.faces.lids` moves."""


@dataclass(frozen=True)
class Person:
    """A head's landmarks and two of its expressions ``[E]``.

    Attributes:
        points: the landmarks as a function of the expression.
        rest: the expression that changes are counted from.
    """

    points: ShapedPoints
    rest: Array

    @property
    def face_unit(self) -> float:
        """Distance of the outer eye corners at rest, in box units."""
        at_rest = self.points.points(self.rest)
        return float(np.linalg.norm(at_rest[EYE_OUTER[0]] - at_rest[EYE_OUTER[1]]))

    def changes(self, expression: Array, strengths: Mapping[str, float], names: Sequence[str]) -> Array:
        """How far the landmarks are from their rest ``[478,3]``, over the face's unit, each region's change
        taken ``strengths`` times."""
        places = np.array([region_of(name) for name in names])
        at_rest = self.points.points(self.rest)
        total = np.zeros_like(at_rest)
        for strength in sorted(set(strengths.values())):
            chosen = np.isin(places, [region for region, value in strengths.items() if value == strength])
            total += strength * (self.points.points(np.where(chosen, expression, self.rest)) - at_rest)
        return np.asarray(total / self.face_unit)


class VisibleChange:
    """Solves for the expressions of one portrait.

    Args:
        head: both people's landmarks before they are anybody's.
        driver, portrait: the people.
        strengths: by region of :func:`~portrait_core.faces.expression_names.region_of`; 1 copies the driver.
    """

    def __init__(
        self, head: HeadPoints, driver: Person, portrait: Person, strengths: Mapping[str, float]
    ) -> None:
        self._names, self._driver, self._portrait, self._strengths = head.names, driver, portrait, strengths
        weight = head.weight.copy()
        weight[np.setdiff1d(np.concatenate([EYE_RIGHT, EYE_LEFT]), EYE_OUTER)] *= _LID_NEIGHBOURS
        self._root = np.sqrt(weight[:N_MESH])
        self._prior = expression_prior(head.names)
        self._lowest, self._highest = expression_limits(head.names)
        self._free = np.flatnonzero([region_of(name) != "eyes" for name in head.names])

    def expression(self, driver: Array, start: Array) -> Array:
        """Solve one frame.

        Args:
            driver: its expression ``[E]``.
            start: ``[E]``, what coefficients alone would make of it; lids stay as they are there, and where
                landmarks do not tell, the rest does.

        Returns:
            ``[E]``.
        """
        portrait, unit = self._portrait.points, self._portrait.face_unit
        change = self._driver.changes(driver, self._strengths, self._names)
        wanted = portrait.points(self._portrait.rest) / unit + change
        found = start.copy()
        for _ in range(_STEPS):
            rows, residual = self._linearised(found, wanted)
            rows = rows[:, self._free]
            off = (found - start)[self._free]
            prior = self._prior[np.ix_(self._free, self._free)]
            matrix = rows.T @ rows + prior + 1e-9 * np.eye(len(off))
            step = solve_bounded(
                matrix,
                rows.T @ residual + prior @ off,
                (self._lowest - found)[self._free],
                (self._highest - found)[self._free],
            )
            found[self._free] += step
            found = found.clip(self._lowest, self._highest)
        return found

    def _linearised(self, expression: Array, wanted: Array) -> tuple[Array, Array]:
        """Rows ``[n,E]`` and residuals ``[n]``: weighted differences across and up, then the irises' from the
        middles of their eyes."""
        points, unit = self._portrait.points, self._portrait.face_unit
        every = np.broadcast_to(np.eye(3)[:2], (len(wanted), 2, 3))
        rows = points.by_expression(every, expression) / unit  # k 2 E
        apart = (points.points(expression) / unit - wanted)[:, :2]
        gaze_rows, gaze_apart = [], []
        for eye in EYES:
            middle = (rows[eye.outer] + rows[eye.inner]) / 2
            gaze_rows.append(rows[eye.iris] - middle)
            gaze_apart.append(apart[eye.iris] - (apart[eye.outer] + apart[eye.inner]) / 2)
        gaze = np.sqrt(_GAZE_WEIGHT)
        weighted = self._root[:, None, None] * rows[:N_MESH]
        stacked = [weighted.reshape(-1, rows.shape[2]), gaze * np.concatenate(gaze_rows)]
        residuals = [(self._root[:, None] * apart[:N_MESH]).ravel(), gaze * np.concatenate(gaze_apart)]
        return np.concatenate(stacked), np.concatenate(residuals)
