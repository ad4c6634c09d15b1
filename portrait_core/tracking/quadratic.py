"""Small quadratic programs with bounds, for the steps of the landmark fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def solve_bounded(matrix: Array, gradient: Array, lower: Array, upper: Array, rounds: int = 20) -> Array:
    """Minimise ``x^T A x / 2 + g^T x`` with ``lower <= x <= upper`` by an active set.

    Args:
        matrix: A ``[n,n]``, symmetric positive definite.
        gradient: g ``[n]``.
        lower: ``[n]``, may be -inf, at most 0 where finite.
        upper: ``[n]``, may be inf, at least 0 where finite.
        rounds: changes of the active set at most; the result then is feasible, if not yet optimal.

    Returns:
        x ``[n]``.
    """
    x = np.zeros(len(gradient))
    bound = np.zeros(len(gradient), dtype=int)  # -1 held at lower, +1 at upper, 0 free
    bound[(lower >= 0) & (gradient > 0)] = -1  # a good guess: variables at a bound that are pushed out
    bound[(upper <= 0) & (gradient < 0)] = 1
    for _ in range(rounds):
        free = bound == 0
        x = np.where(bound < 0, lower, np.where(bound > 0, upper, 0.0))
        held = ~free
        x[free] = np.linalg.solve(
            matrix[np.ix_(free, free)], -gradient[free] - matrix[np.ix_(free, held)] @ x[held]
        )
        slope = matrix @ x + gradient
        below, above = free & (x < lower), free & (x > upper)
        release = ((bound < 0) & (slope < -1e-12)) | ((bound > 0) & (slope > 1e-12))
        if not (below.any() or above.any() or release.any()):
            return x
        bound[below], bound[above] = -1, 1
        # only when all free ones are inside may held ones leave: else the set can cycle
        if not (below.any() or above.any()):
            bound[release] = 0
    return np.clip(x, lower, upper)
