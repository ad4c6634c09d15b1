"""Smooth ramps between 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def eased(share: NDArray[Any]) -> NDArray[Any]:
    """Return 0 below 0, 1 above 1 and ``3 s^2 - 2 s^3`` between, which has no slope at either end."""
    t = np.clip(share, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def smoothstep(
    low: float, high: NDArray[np.floating] | float, x: NDArray[np.floating] | float
) -> NDArray[np.floating]:
    """Return 0 below ``low``, 1 above ``high`` and :func:`eased` between; reversed where ``low > high``."""
    return eased((np.asarray(x) - low) / (high - low))
