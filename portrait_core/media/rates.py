"""Arithmetic of frame rates and time stamps."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

STANDARD_RATES = (
    *(Fraction(rate, 1) for rate in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120)),
    *(Fraction(rate, 1001) for rate in (24000, 30000, 60000, 120000)),
    Fraction(25, 2),
)
"""Frames per second to which a source of varying rate is converted."""
SNAP = 0.05
"""Largest relative difference between a varying source's typical rate and a standard rate that replaces
it."""
MAX_RATE = 240
"""Frames per second above which a typical interval counts as noise in the time stamps."""


def constant_rate(
    ticks: NDArray[np.int64], time_base: Fraction, declared: Sequence[Fraction]
) -> tuple[Fraction, bool]:
    """Choose the constant rate at which to present a video.

    A rate that explains every time stamp within the container's rounding is the video's own: first those that
    the container declares, then the standard ones. If there is none, the rate varies, and the standard rate
    nearest to its typical (median) interval is taken, else its average rate.

    Args:
        ticks: ``[n]`` int64 presentation times in units of ``time_base``, ascending, n >= 1.
        time_base: seconds per tick.
        declared: frames per second that the container names, most trusted first.

    Returns:
        The rate in frames per second, and whether the source's rate varies.
    """
    plausible = [rate for rate in declared if 0 < rate <= 1000]
    if len(ticks) == 1:
        return (plausible[0] if plausible else Fraction(25)), False
    for rate in [*plausible, *STANDARD_RATES]:
        if _explains(ticks, time_base, rate):
            return rate, False
    average = Fraction(len(ticks) - 1) / (int(ticks[-1] - ticks[0]) * time_base)
    interval = Fraction(float(np.median(np.diff(ticks)))) * time_base
    typical = 1 / interval
    if typical > MAX_RATE:
        typical = average
    nearest = min(STANDARD_RATES, key=lambda rate: abs(rate - typical))
    if abs(nearest - typical) <= SNAP * typical:
        return nearest, True
    return average.limit_denominator(1001), True


def _explains(ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction) -> bool:
    step = float(1 / (rate * time_base))  # ticks per frame
    expected = np.arange(len(ticks)) * step
    # One tick of rounding on either side, including the first stamp's own; always less than half a frame.
    return bool(np.abs(ticks - ticks[0] - expected).max() <= min(1.01, 0.4 * step))


def slots_of(
    ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction, is_vfr: bool, last_length: int
) -> NDArray[np.int64]:
    """Map output frames to pictures.

    Args:
        ticks: ``[n]`` int64 presentation times in units of ``time_base``, ascending.
        time_base: seconds per tick.
        rate: constant rate of the output, frames per second.
        is_vfr: whether pictures may be repeated or left out; otherwise each is shown once.
        last_length: ticks for which the last picture stays; 0 when unknown.

    Returns:
        ``[frames]`` int64 index of the picture that output frame i shows.
    """
    if not is_vfr:
        return np.arange(len(ticks), dtype=np.int64)
    position = (ticks - ticks[0]) * float(time_base * rate)  # in output frames
    stay = last_length or float(np.median(np.diff(ticks)))
    count = max(1, round(float(position[-1]) + stay * float(time_base * rate)))
    shown = np.searchsorted(position, np.arange(count) + 0.5, side="left") - 1
    return np.maximum(shown, 0).astype(np.int64)
