"""How sure a mean over clips is: the bootstrap's percentile interval (Efron 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1 << 22
"""Number of draws that are held at a time."""


@dataclass(frozen=True)
class Interval:
    """A mean over clips and where it would lie for other clips of the same kind.

    Attributes:
        mean: over the clips that have a value; NaN where none has.
        low: lower end of the interval; NaN for fewer than 2 clips, of which nothing can be said.
        high: upper end.
        level: share of resampled means that the interval holds.
        clips: number of clips with a value.
        missing: number of clips without one (NaN), which are left out.
    """

    mean: float
    low: float
    high: float
    level: float
    clips: int
    missing: int


def bootstrap_interval(
    values: NDArray[np.floating], seed: int = 0, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean over clips with its percentile interval, by drawing clips with replacement.

    The interval of a difference of two methods over the same clips is that of the clips' differences, which
    is narrower than the two methods' own intervals suggest.

    Args:
        values: one per clip ``[N]``; NaN where a clip has none.
        seed: seed of the draws.
        level: share of resampled means between the ends, above 0 and below 1.
        resamples: number of resampled means.

    Raises:
        ValueError: for another shape, infinite values, or a level or number of resamples out of range.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError(f"values have shape {list(values.shape)} or are infinite; give one number per clip")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} must lie between 0 and 1, and resamples {resamples} be at least 1")
    known = values[~np.isnan(values)]
    count, missing = len(known), len(values) - len(known)
    if count < 2:
        mean = float(known[0]) if count else float("nan")
        return Interval(mean, float("nan"), float("nan"), level, count, missing)
    rng = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // count)
    sizes = [min(rows, resamples - first) for first in range(0, resamples, rows)]
    means = np.concatenate([known[rng.integers(count, size=(size, count))].mean(1) for size in sizes])
    tail = 50 * (1 - level)
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(known.mean()), float(low), float(high), level, count, missing)
