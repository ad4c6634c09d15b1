"""Retargeting of a driver's DECA codes to a portrait (paper section 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.template.retarget import Transfer


def retarget_codes(
    driver_expression: NDArray[np.floating],
    driver_jaw: NDArray[np.floating],
    portrait_expression: NDArray[np.floating],
    ok: NDArray[np.bool_],
    transfer: Transfer = "absolute",
    mouth_gain: float = 1.0,
    rest: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Retarget DECA's codes to a portrait.

    ``absolute`` is the paper's: the driver's codes as they are. ``relative`` adds the driver's departure from
    its rest to the portrait's own expression; the jaw stays the driver's, so that a closed mouth closes.

    Args:
        driver_expression: ``[T,E]``.
        driver_jaw: ``[T,3]``, axis-angle in radians.
        portrait_expression: ``[E]``.
        ok: ``[T]``, frames that count for the median.
        transfer: see above.
        mouth_gain: strength of the jaw's rotation.
        rest: of the driver ``[E]``; None takes the median over the clip.

    Returns:
        Expressions ``[T,E]`` and jaws ``[T,3]``.

    Raises:
        ValueError: on sizes that do not match.
    """
    if driver_expression.shape[1:] != portrait_expression.shape:
        raise ValueError(
            f"driver's expressions are {driver_expression.shape}, the portrait's "
            f"{portrait_expression.shape}; use the codes of one encoder"
        )
    expression = np.asarray(driver_expression, np.float64)
    if transfer == "relative":
        used = expression[ok] if np.any(ok) else expression
        expression = portrait_expression + expression - (np.median(used, axis=0) if rest is None else rest)
    return expression.astype(np.float32), np.asarray(driver_jaw * mouth_gain, np.float32)
