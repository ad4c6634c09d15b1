"""Lids in lengths rather than coefficients: opening of a head's eyes, and closing another's alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.face_model.head import MorphableHead

# per eye: the two corners, then pairs of an upper and a lower lid point
_LID_POINTS = (33, 133, 159, 145, 158, 153, 160, 144, 362, 263, 386, 374, 385, 380, 387, 373)
_OPEN_PERCENTILE = 60
"""Percentile of a driver's openings that counts as an open eye."""
_MIN_OPEN = 0.5
"""Smallest opening that counts as a driver's open eye, from the shut lids of its head (0) to open ones (1): a
driver may keep an eye shut throughout."""
_SHUT_FROM, _SHUT_AT = 0.65, 0.90
"""Shares of closing at which an eye is on its way to shut, and at which it is shut: fits do not close an eye
to the last bit."""
_MIN_RANGE = 0.05
"""Smallest difference of a driver's open and shut lids, in eye widths."""
_BISECTIONS = 20
"""Steps of the search for a blink."""


@dataclass(frozen=True)
class LidModel:
    """Openings of a head's eyes over their widths, as a function of its codes."""

    mean: NDArray[np.float64]
    """The lids' landmarks of the mean head ``[16,3]``, in metres."""
    basis: NDArray[np.float64]
    """Their derivative by shape and expression ``[16,3,S+E]``."""
    names: tuple[str, ...]
    """Names of the E expressions."""

    @classmethod
    def of(cls, head: MorphableHead) -> LidModel:
        """Build the model from a head with 478 landmarks."""
        mean, basis = head.landmark_basis(_LID_POINTS)
        return cls(mean, basis, tuple(head.expression_names))

    def opening(self, shape: NDArray[np.floating], expression: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the openings ``[T,2]`` (right, left eye) of one shape ``[S]`` with expressions ``[T,E]``."""
        n_shape = self.basis.shape[-1] - len(self.names)
        rest = self.mean + self.basis[..., :n_shape] @ np.asarray(shape, float)
        points = rest + np.einsum("nck,tk->tnc", self.basis[..., n_shape:], np.asarray(expression, float))
        eye = points.reshape(len(points), 2, -1, 3)  # right, left
        width = np.linalg.norm(eye[:, :, 0] - eye[:, :, 1], axis=-1)
        upper, lower = eye[:, :, 2::2], eye[:, :, 3::2]
        # signed, so that lids which squint and blink at once count as more than shut, not as open again
        return np.asarray((upper - lower)[..., 1].mean(-1) / width)

    def shut(self, shape: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the openings ``[2]`` with both lids shut; not 0, as lids have some thickness."""
        rest = np.zeros((1, len(self.names)))
        return np.asarray(self.opening(shape, self.with_blink(rest, np.ones((1, 2))))[0])

    def with_blink(
        self, expression: NDArray[np.floating], blink: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return expressions ``[T,E]`` with other blinks ``[T,2]`` or ``[1,2]`` (right, left)."""
        out = np.array(expression, float)
        for column, side in enumerate(("Right", "Left")):
            out[:, self.names.index(f"eyeBlink{side}")] = blink[:, column]
        return out

    def close_to(
        self, shape: NDArray[np.floating], expression: NDArray[np.floating], target: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return expressions with blinks that make the openings ``target [T,2]``, by bisection."""
        low, high = np.zeros_like(target, dtype=float), np.ones_like(target, dtype=float)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            wide = self.opening(shape, self.with_blink(expression, middle)) > target
            low, high = np.where(wide, middle, low), np.where(wide, high, middle)
        return self.with_blink(expression, high)


def match_lids(
    lids: LidModel,
    driver_shape: NDArray[np.floating],
    driver: NDArray[np.floating],
    portrait_shape: NDArray[np.floating],
    portrait: NDArray[np.floating],
    retargeted: NDArray[np.floating],
    gain: float = 1.0,
    ok: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Set the portrait's blinks so that its lids move as the driver's do.

    Coefficients of two people do not compare: narrow eyes need less of ``eyeBlink`` to shut, and a fit may
    put part of a blink into squint or gaze. Lid distances do: lids come as much closer as the driver's, in
    eye widths, and an eye is shut where the driver's is.

    Args:
        lids: the head's lid model.
        driver_shape: ``[S]``.
        driver: the driver's expressions ``[T,E]``.
        portrait_shape: ``[S]``.
        portrait: the portrait's own expression ``[E]``.
        retargeted: the portrait's expressions ``[T,E]``.
        gain: strength; 1 copies the driver.
        ok: ``[T]``, frames that count for the driver's open eye, which is no less than half open.

    Returns:
        ``retargeted`` with other blinks, ``[T,E]``.
    """
    driver = np.asarray(driver, float)
    used = driver[np.asarray(ok, bool)] if ok is not None and np.any(ok) else driver
    shut = lids.shut(driver_shape)
    at_rest = lids.opening(driver_shape, np.zeros((1, driver.shape[1])))[0]
    opened = np.percentile(lids.opening(driver_shape, used), _OPEN_PERCENTILE, axis=0)
    opened = np.maximum(opened, shut + _MIN_OPEN * (at_rest - shut))
    closed = gain * (opened - lids.opening(driver_shape, driver))
    share = closed / np.maximum(opened - shut, _MIN_RANGE)
    shutting = np.clip((share - _SHUT_FROM) / (_SHUT_AT - _SHUT_FROM), 0.0, 1.0)
    own = lids.opening(portrait_shape, np.asarray(portrait)[None])
    room = np.maximum(own - lids.shut(portrait_shape), 0.0)
    still = np.array(retargeted, float)
    for column, side in enumerate(("Right", "Left")):
        still[:, lids.names.index(f"eyeWide{side}")] *= 1.0 - shutting[:, column]
    target = own - np.minimum(np.maximum(closed, shutting * room), room)
    wide = np.maximum(lids.opening(portrait_shape, lids.with_blink(still, np.zeros((1, 2)))), own)
    return lids.close_to(portrait_shape, still, np.minimum(target, wide)).astype(np.float32)
