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
_MET = -0.03
"""Opening of lids that have met all along: a little less than nothing in their middle."""
_SHUT_FROM, _SHUT_AT = 0.65, 0.90
"""Shares of closing at which an eye is on its way to shut, and at which it is shut: fits do not close an eye
to the last bit."""
_START = 0.4, 1.6
"""Smallest and largest rate at which lids set out, over that of lids that keep one rate all the way: beyond
these a parabola would go back on its way."""
_MIN_RANGE = 0.05
"""Smallest difference of a driver's open and shut lids, in eye widths."""
_BISECTIONS = 20
"""Steps of the search for a blink."""
_WIDEST = 1.3
"""Largest ``eyeWide``, as in :func:`portrait_core.face_model.expression_names.expression_limits`."""
_SIDES = "Right", "Left"


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
        """Return the openings ``[2]`` with both lids shut: of a full blink, or of lids that have met.

        In a full blink the lids of most heads pass each other, by up to half of the way that they went.
        """
        rest = np.zeros((1, len(self.names)))
        return np.maximum(self.opening(shape, self.with_blink(rest, np.ones((1, 2))))[0], _MET)

    def with_blink(
        self, expression: NDArray[np.floating], blink: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return expressions ``[T,E]`` with other blinks ``[T,2]`` or ``[1,2]`` (right, left)."""
        return self._with(expression, "eyeBlink", blink)

    def open_to(
        self, shape: NDArray[np.floating], expression: NDArray[np.floating], target: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return expressions whose lids are ``target [T,2]`` open, as far as units reach.

        Blinks close them. Where lids without a blink are less open than that, ``eyeWide`` opens them.
        """
        open_, shut = np.zeros_like(target, dtype=float), np.ones_like(target, dtype=float)
        found = self._search(shape, expression, target, "eyeBlink", open_, shut)
        wide = np.array(expression, float)[:, [self.names.index(f"eyeWide{side}") for side in _SIDES]]
        return self._search(shape, found, target, "eyeWide", np.maximum(wide, _WIDEST), wide)

    def _with(
        self, expression: NDArray[np.floating], unit: str, values: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        out = np.array(expression, float)
        for column, side in enumerate(_SIDES):
            out[:, self.names.index(unit + side)] = values[:, column]
        return out

    def _search(
        self,
        shape: NDArray[np.floating],
        expression: NDArray[np.floating],
        target: NDArray[np.floating],
        unit: str,
        open_: NDArray[np.float64],
        closed: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Find a unit's value for the openings ``target [T,2]``, by bisection.

        It lies between those with which lids are most open and most ``closed [T,2]``, which it is where the
        openings are out of reach.
        """
        for _ in range(_BISECTIONS):
            middle = (open_ + closed) / 2
            wide = self.opening(shape, self._with(expression, unit, middle)) > target
            open_, closed = np.where(wide, middle, open_), np.where(wide, closed, middle)
        return self._with(expression, unit, closed)


def match_lids(
    lids: LidModel,
    driver_shape: NDArray[np.floating],
    driver: NDArray[np.floating],
    portrait_shape: NDArray[np.floating],
    portrait: NDArray[np.floating],
    retargeted: NDArray[np.floating],
    gain: float = 1.0,
    ok: NDArray[np.bool_] | None = None,
    as_portrait: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Set the portrait's blinks so that its lids move as the driver's do.

    Coefficients of two people do not compare: narrow eyes need less of ``eyeBlink`` to shut, and a fit may
    put part of a blink into squint or gaze. Lid distances do: lids set out as the driver's, in eye widths, up
    or down, and an eye is shut where the driver's is, and not before: half-closed lids stay half closed on
    eyes of another size.

    Args:
        lids: the head's lid model.
        driver_shape: ``[S]``.
        driver: the driver's expressions ``[T,E]``.
        portrait_shape: ``[S]``.
        portrait: the portrait's own expression ``[E]``.
        retargeted: the portrait's expressions ``[T,E]``.
        gain: strength; 1 copies the driver.
        ok: ``[T]``, frames that count for the driver's open eye, which is no less than half open.
        as_portrait: the driver's expression ``[E]`` in a frame that shows the portrait itself: its lids then
            stand for the portrait's own, in place of the driver's open eye.

    Returns:
        ``retargeted`` with other blinks, ``[T,E]``.
    """
    driver = np.asarray(driver, float)
    used = driver[np.asarray(ok, bool)] if ok is not None and np.any(ok) else driver
    shut = lids.shut(driver_shape)
    at_rest = lids.opening(driver_shape, np.zeros((1, driver.shape[1])))[0]
    if as_portrait is None:
        opened = np.percentile(lids.opening(driver_shape, used), _OPEN_PERCENTILE, axis=0)
    else:
        opened = lids.opening(driver_shape, np.asarray(as_portrait, float)[None])[0]
    opened = np.maximum(opened, shut + _MIN_OPEN * (at_rest - shut))
    reach = np.maximum(opened - shut, _MIN_RANGE)
    share = gain * (opened - lids.opening(driver_shape, driver)) / reach
    own = lids.opening(portrait_shape, np.asarray(portrait)[None])
    room = np.maximum(own - lids.shut(portrait_shape), 0.0)
    still = np.array(retargeted, float)
    shutting = np.clip((share - _SHUT_FROM) / (_SHUT_AT - _SHUT_FROM), 0.0, 1.0)
    for column, side in enumerate(("Right", "Left")):
        still[:, lids.names.index(f"eyeWide{side}")] *= 1.0 - shutting[:, column]
    target = own - np.where(share > 0, _closing(share, reach, room), reach * share)
    return lids.open_to(portrait_shape, still, target).astype(np.float32)


def _closing(
    share: NDArray[np.float64], reach: NDArray[np.float64], room: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return by how much lids close ``[T,2]`` in eye widths, for the share of the driver's way ``[T,2]``.

    They set out as the driver's do, in eye widths, and arrive when the driver's do, whatever the eyes' sizes:
    between, a parabola leads from the one to the other. ``reach [2]`` is the driver's way and ``room [2]`` or
    ``[1,2]`` the portrait's.
    """
    share = np.clip(share * (1.0 + (1.0 / _SHUT_AT - 1.0) * (share / _SHUT_AT) ** 2), 0.0, 1.0)
    start = np.clip(reach / np.maximum(room, _MIN_RANGE), *_START)
    return np.asarray(room * (start * share + (1.0 - start) * share**2))
