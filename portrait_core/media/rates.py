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
FINEST, MOST_FINER = 60, 4
"""Highest rate that is taken so that no picture of a varying source is lost, and how many times the typical
one it may be."""
MAX_RATE = 240
"""Frames per second above which a typical interval counts as noise in the time stamps."""
MIN_RATE = Fraction(1, 1001)
"""Frames per second of a source of varying rate below which it is not presented."""
JUMP_S = 10.0
"""Seconds by which time leaps ahead where two recordings were joined rather than nothing was recorded, in
containers that can be joined end to end."""
UNTIMED = -(1 << 63)
"""Stands for the time of a picture that has none."""
_RESTART_S = 0.5
# Pictures by which a time may be off in an MPEG program stream.
_MISTAKEN = 4
_RIGHT = 0.6  # share of its times that are right
_MAX_DECLARED = 1000
_DEFAULT = Fraction(25)


def plausible_rates(declared: Sequence[Fraction]) -> list[Fraction]:
    """Return the rates that a container may mean, and at the end the one to assume where it names none.

    Args:
        declared: frames per second that the container names, most trusted first.
    """
    return [*(rate for rate in declared if 0 < rate <= _MAX_DECLARED), _DEFAULT]


def constant_rate(
    ticks: NDArray[np.int64], time_base: Fraction, declared: Sequence[Fraction]
) -> tuple[Fraction, bool]:
    """Choose the constant rate at which to present a video.

    A rate that explains every time stamp within the container's rounding is the video's own: first those that
    the container declares, then the standard ones. If there is none, the rate varies: the one that explains
    them but for missing pictures is taken, near the typical (median) interval or else, where that would lose
    pictures, the lowest of the finer ones; else the standard rate nearest to the typical interval, else the
    average rate.

    Args:
        ticks: ``[n]`` int64 presentation times in units of ``time_base``, ascending, n >= 1.
        time_base: seconds per tick.
        declared: frames per second that the container names, most trusted first.

    Returns:
        The rate in frames per second, and whether the source's rate varies.
    """
    plausible = plausible_rates(declared)
    if len(ticks) == 1:
        return plausible[0], False
    for rate in [*plausible[:-1], *STANDARD_RATES]:
        if _explains(ticks, time_base, rate):
            return rate, False
    average = Fraction(len(ticks) - 1) / ((int(ticks[-1]) - int(ticks[0])) * time_base)
    interval = Fraction(float(np.median(np.diff(ticks)))) * time_base
    typical = 1 / interval
    if typical > MAX_RATE:
        typical = average
    by_distance = sorted(STANDARD_RATES, key=lambda rate: abs(rate - typical))
    for rate in [*plausible[:-1], *by_distance]:
        if abs(rate - typical) <= SNAP * typical and _holds(ticks, time_base, rate):
            return rate, True
    usual = by_distance[0] if abs(by_distance[0] - typical) <= SNAP * typical else average
    if _loses(ticks, time_base, usual):
        for rate in sorted(STANDARD_RATES):
            is_finer = typical < rate <= FINEST and rate <= MOST_FINER * typical
            if is_finer and _holds(ticks, time_base, rate):
                return rate, True
    if usual is not average:
        return usual, True
    return max(average.limit_denominator(1001), MIN_RATE), True


def continued(stamps: NDArray[np.int64], time_base: Fraction, by_decoding: bool) -> NDArray[np.int64]:
    """Return times that never descend, of pictures in the order in which a decoder delivers them.

    A picture without a time follows the one before it. Where time starts anew, it goes on. A picture that is
    slightly late has the time of the one before it, which it replaces.

    Args:
        stamps: ``[n]`` int64 times in ticks; :data:`UNTIMED` where there is none; one of them has one.
        time_base: seconds per tick.
        by_decoding: whether a leap ahead is a pause, because time is a number of packets.
    """
    timed = stamps != UNTIMED
    known = stamps[timed]
    steps = np.diff(stamps)[timed[1:] & timed[:-1]]
    interval = max(1, int(np.median(steps[steps > 0]))) if (steps > 0).any() else 1
    back, ahead = _RESTART_S / time_base, JUMP_S / time_base
    times = np.empty_like(stamps)
    leading = int(np.argmax(timed))
    shift, last = 0, int(known[0]) - interval * (leading + 1)
    for i, stamp in enumerate(stamps.tolist()):
        time = last + interval if stamp == UNTIMED else stamp + shift
        if i and (time < last - back or (time > last + ahead and not by_decoding)):
            shift += last + interval - time
            time = last + interval
        last = times[i] = max(time, last) if i else time
    return times


def straightened(stamps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return times of a constant rate, where some of them were given to the wrong pictures.

    Packets of an MPEG program stream do not begin where pictures do, so that a time may be read as that of
    the picture after. Time then stands still or goes back by a picture or two, and soon leaps as far ahead.

    Args:
        stamps: ``[n]`` int64 times in ticks of pictures in the order in which a decoder delivers them;
            :data:`UNTIMED` where there is none.

    Returns:
        The times of a constant rate where the given ones are such but for such mistakes, else the given ones.
    """
    if len(stamps) < 3 or (stamps == UNTIMED).any() or (np.diff(stamps) > 0).all():
        return stamps
    half, order = len(stamps) // 2, np.arange(len(stamps))
    step = float(np.median((stamps[half:] - stamps[: len(stamps) - half]) / half))
    line = step * order + float(np.median(stamps - step * order))
    off = np.abs(stamps - line)
    mistaken = off.max() <= _MISTAKEN * step and float((off <= max(2.0, 0.02 * step)).mean()) >= _RIGHT
    return np.round(line).astype(np.int64) if mistaken else stamps


def frame_at(moment: str, rate: Fraction) -> int:
    """Return the frame nearest to a place in a video.

    Args:
        moment: seconds, ``minutes:seconds``, ``hours:minutes:seconds``, or a frame with an ``f``.
        rate: frames per second.
    """
    if moment.endswith("f"):
        return int(moment[:-1])
    seconds = Fraction(0)
    for part in moment.split(":"):
        seconds = 60 * seconds + Fraction(part)
    return round(seconds * rate)


def clip_range(begin: str, end: str | None, most: int | None, rate: Fraction, count: int) -> tuple[int, int]:
    """Return the first frame of a part of a video, and the number of its frames, 0 where nothing is left.

    Args:
        begin: place at which it begins (:func:`frame_at`).
        end: place before which it ends; None for the video's end.
        most: largest number of frames; None for any.
        rate: frames per second of the video.
        count: frames of the video.
    """
    first = frame_at(begin, rate)
    stop = count if end is None else min(count, frame_at(end, rate))
    return first, max(0, min(stop - first, most or count))


def _explains(ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction) -> bool:
    step = float(1 / (rate * time_base))  # ticks per frame
    expected = np.arange(len(ticks)) * step
    # One tick of rounding on either side, including the first stamp's own; always less than half a frame.
    return bool(np.abs(ticks - ticks[0] - expected).max() <= min(1.01, 0.4 * step))


def _holds(ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction) -> bool:
    """Tell whether a rate explains time stamps of which some are missing."""
    step = float(1 / (rate * time_base))
    places = (ticks - ticks[0]) / step
    numbers = np.round(places)
    close = np.abs(places - numbers).max() * step <= min(1.01, 0.4 * step)
    return bool(close and np.diff(numbers).min() >= 1)


def _loses(ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction) -> bool:
    """Tell whether pictures are left out where a video of varying rate is presented at a constant one."""
    position = (ticks - ticks[0]) * float(time_base * rate)  # in output frames, as in slots_of
    return bool((np.diff(np.floor(position - 0.5)) < 1).any())


def frame_count(
    ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction, is_vfr: bool, last_length: int
) -> int:
    """Return the number of output frames, without making anything of that size.

    Args:
        ticks: ``[n]`` int64 presentation times in units of ``time_base``, ascending, n >= 1.
        time_base: seconds per tick.
        rate: constant rate of the output, frames per second.
        is_vfr: whether pictures may be repeated or left out; otherwise each is shown once.
        last_length: ticks for which the last picture stays; 0 when unknown.
    """
    if not is_vfr:
        return len(ticks)
    stay = last_length or float(np.median(np.diff(ticks)))
    step = float(time_base * rate)  # output frames per tick
    return max(1, round((int(ticks[-1]) - int(ticks[0])) * step + stay * step))


def slots_of(
    ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction, is_vfr: bool, count: int
) -> NDArray[np.int32]:
    """Map output frames to pictures.

    Args:
        ticks: ``[n]`` int64 presentation times in units of ``time_base``, ascending.
        time_base: seconds per tick.
        rate: constant rate of the output, frames per second.
        is_vfr: whether pictures may be repeated or left out; otherwise each is shown once.
        count: number of output frames (:func:`frame_count`).

    Returns:
        ``[count]`` int32 index of the picture that output frame i shows.
    """
    if not is_vfr:
        return np.arange(count, dtype=np.int32)
    position = (ticks - ticks[0]) * float(time_base * rate)  # in output frames
    shown = np.searchsorted(position, np.arange(count) + 0.5, side="left") - 1
    return np.maximum(shown, 0).astype(np.int32)
