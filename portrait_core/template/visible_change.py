"""Moving a portrait as a driver visibly moves: landmarks change alike, whatever the coefficients are.

The same coefficients look different on two heads, and a coefficient that would have to be negative is lost.
So the portrait's expression is solved for: its landmarks leave their places as the driver's leave theirs, in
units of the face; its irises theirs in their eyes, in units of the eye.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.expression_names import region_of
from portrait_core.face_model.head_points import HeadPoints, ShapedPoints, outer_eye_distance
from portrait_core.face_model.landmark_regions import INNER_LIPS, OUTER_LIPS
from portrait_core.template.landmark_solver import LandmarkSolver
from portrait_core.tracking.terms import EYES

Array = NDArray[np.float64]

_RINGS_UPPER = (72, 73, 74, 302, 303, 304, 11, 12, 38, 41, 42, 268, 271, 272, 183, 184, 407, 408)
_RINGS_LOWER = (15, 16, 85, 86, 89, 90, 77, 96, 315, 316, 319, 320, 307, 325)
UPPER_LIP = np.array([*OUTER_LIPS.upper[1:-1], *INNER_LIPS.upper[1:-1], *_RINGS_UPPER])
LOWER_LIP = np.array([*OUTER_LIPS.lower[1:-1], *INNER_LIPS.lower[1:-1], *_RINGS_LOWER])
"""Landmarks of each lip between the corners."""


@dataclass(frozen=True)
class Person:
    """A head's landmarks and where they rest.

    Attributes:
        points: the landmarks as a function of the expression ``[E]``.
        rest: the expression that changes are counted from.
    """

    points: ShapedPoints
    rest: Array

    @cached_property
    def at_rest(self) -> Array:
        """The landmarks at rest ``[478,3]``, in box units, lips closed."""
        return with_closed_lips(self.points.points(self.rest))

    @cached_property
    def face_unit(self) -> float:
        """Distance of the outer eye corners at rest, in box units."""
        return outer_eye_distance(self.at_rest)

    @cached_property
    def eye_widths(self) -> Array:
        """Widths of the eyes at rest ``[2]`` (right, left), over the face's unit."""
        corners = [self.at_rest[eye.outer] - self.at_rest[eye.inner] for eye in EYES]
        return np.linalg.norm(corners, axis=1) / self.face_unit

    def changes(self, expression: Array, strengths: Mapping[str, float], names: Sequence[str]) -> Array:
        """Return the landmarks' displacement from their rest ``[478,3]``, over the face's unit.

        Args:
            expression: ``[E]``.
            strengths: factor of each region's change.
            names: of the E expressions.
        """
        places = np.array([region_of(name) for name in names])
        unmoved = self.points.points(self.rest)
        total = strengths["mouth"] * (unmoved - self.at_rest)
        for strength in sorted(set(strengths.values())):
            chosen = np.isin(places, [region for region, value in strengths.items() if value == strength])
            total = total + strength * (self.points.points(np.where(chosen, expression, self.rest)) - unmoved)
        return np.asarray(total / self.face_unit)


def with_closed_lips(points: Array) -> Array:
    """Bring the inner lips of landmarks ``[478,3]`` together, and all of each lip with its inner edge."""
    upper, lower = (np.asarray(edge[1:-1]) for edge in INNER_LIPS)
    gap = points[upper] - points[lower]
    order = np.argsort(points[upper, 0])
    along = points[upper, 0][order]
    closed = points.copy()
    for lip, share in ((UPPER_LIP, -0.5), (LOWER_LIP, 0.5)):
        for axis in (1, 2):
            closed[lip, axis] += share * np.interp(points[lip, 0], along, gap[order, axis])
    return closed


class VisibleChange:
    """Solves for the expressions of one portrait.

    Args:
        head: both people's landmarks before they are anybody's.
        driver, portrait: the people.
        strengths: by region of :func:`~portrait_core.face_model.expression_names.region_of`; 1 copies the
        driver.
    """

    def __init__(
        self, head: HeadPoints, driver: Person, portrait: Person, strengths: Mapping[str, float]
    ) -> None:
        self._names, self._driver, self._portrait, self._strengths = head.names, driver, portrait, strengths
        free = np.array([region_of(name) != "eyes" for name in head.names])
        self._solver = LandmarkSolver(head, portrait.points, portrait.face_unit, free)

    def expression(self, driver: Array, start: Array) -> Array:
        """Solve one frame.

        Args:
            driver: its expression ``[E]``.
            start: ``[E]``, what coefficients alone would make of it; lids stay as they are there, and where
                landmarks do not tell, the rest does.

        Returns:
            ``[E]``.
        """
        change = self._driver.changes(driver, self._strengths, self._names)
        for eye, larger in zip(EYES, self._portrait.eye_widths / self._driver.eye_widths, strict=True):
            socket = (change[eye.outer] + change[eye.inner]) / 2
            change[eye.iris] = socket + larger * (change[eye.iris] - socket)
        return self._solver.solve(self._portrait.at_rest / self._portrait.face_unit + change, start, start)
