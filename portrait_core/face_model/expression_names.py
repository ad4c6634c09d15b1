"""Regions and limits of a head's expressions, by their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PREFIX = "shift"
"""Beginning of a direction's name, such as ``shiftLipCornerRightAcross``."""
_OPENING = ("jaw", "mouth", "tongue", f"{PREFIX}LipCorner", f"{PREFIX}Upper", f"{PREFIX}Lower")
_LIMITS = {"eyeLook": 2.0, "jawOpen": 1.2, "mouthSmile": 1.3, "mouthPucker": 1.3, "brow": 1.3, "eyeWide": 1.3}
"""Greatest coefficients of units that people take beyond 1, by the beginnings of their names."""
_DIRECTION_LIMIT = 2.0


def is_direction(name: str) -> bool:
    """Tell whether an expression's name is a direction's and not a blendshape's.

    See :mod:`portrait_core.face_model.directions`.
    """
    return name.startswith(PREFIX)


def region_of(name: str) -> str:
    """Return the region of an expression such as ``"eyeBlinkLeft"``.

    It is ``mouth``, ``eyes`` (the lids), ``brows`` (and cheeks and nose) or ``gaze``.
    """
    if name.startswith("eyeLook"):
        return "gaze"
    if name.startswith(_OPENING):
        return "mouth"
    return "eyes" if name.startswith("eye") else "brows"


def expression_limits(names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the smallest and the largest coefficient of each expression, ``[E]`` and ``[E]``."""
    limits = [
        next((most for start, most in _LIMITS.items() if name.startswith(start)), 1.0) for name in names
    ]
    free = np.array([is_direction(name) for name in names])
    return np.where(free, -_DIRECTION_LIMIT, 0.0), np.where(free, _DIRECTION_LIMIT, limits)
