"""Distances between two sets of pictures' features: Fréchet and kernel distance, and the paper's protocol.

The Fréchet distance (Heusel et al. 2017) is that of two Gaussians with the sets' means and covariances. It is
called FID for the pooled features of one Inception network alone
(:data:`portrait_core.metrics.inception.VARIANT`); of other features it is another number. Of few pictures it
is biased upwards, so that only numbers of equally many pictures compare. The kernel distance (Bińkowski et
al. 2018) has no such bias.

Everything is computed in float64. The trace of the root of a product of covariances S1 S2, with S1 = A'A and
S2 = B'B, is the sum of the singular values of AB': this needs no root of a singular matrix, stays real, and
takes a matrix no larger than pictures times pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, qr, svdvals

Array = NDArray[np.float64]
Features = NDArray[np.floating]

INTERVAL = 0.95
"""Share of the realisations that the percentile interval holds."""


@dataclass(frozen=True)
class _Spread:
    """A set of features as a Gaussian.

    Attributes:
        mean: ``[D]``.
        factor: A of the unbiased covariance A'A ``[min(N,D),D]``.
    """

    mean: Array
    factor: Array

    @classmethod
    def of(cls, features: Features) -> _Spread:
        """Take features ``[N,D]``, N > 1."""
        rows = np.asarray(features, np.float64)
        mean = rows.mean(0)
        factor = (rows - mean) / np.sqrt(len(rows) - 1)
        if len(factor) > factor.shape[1]:
            (factor,) = qr(factor, mode="r", overwrite_a=True, check_finite=False)
            factor = factor[: factor.shape[1]]
        return cls(mean, factor)

    def distance(self, other: _Spread) -> float:
        """Return the squared Fréchet distance to another set."""
        shift = self.mean - other.mean
        root = svdvals(self.factor @ other.factor.T, overwrite_a=True, check_finite=False).sum()
        return float(
            shift @ shift + np.vdot(self.factor, self.factor) + np.vdot(other.factor, other.factor) - 2 * root
        )


def frechet_distance(a: Features, b: Features) -> float:
    """Return the squared Fréchet distance of the Gaussians of two sets of features.

    Covariances are unbiased (N-1), and may be singular.

    Args:
        a: features of N pictures ``[N,D]``.
        b: features of M pictures ``[M,D]``.

    Raises:
        ValueError: for sets of different D, of fewer than 2 pictures, or with numbers that are not finite.
    """
    _check_pair(a, b)
    return _Spread.of(a).distance(_Spread.of(b))


def frechet_distance_of_moments(
    mean_a: Features, covariance_a: Features, mean_b: Features, covariance_b: Features
) -> float:
    """Return the squared Fréchet distance of two Gaussians, for statistics whose features are not at hand.

    The trace of the root is that of the eigenvalues of S1^1/2 S2 S1^1/2. Singular covariances cost it half of
    the digits; :func:`frechet_distance` keeps them.

    Args:
        mean_a: ``[D]``.
        covariance_a: ``[D,D]``, symmetric and positive semidefinite up to rounding.
        mean_b: ``[D]``.
        covariance_b: ``[D,D]``.

    Raises:
        ValueError: for other shapes, or numbers that are not finite.
    """
    means = [np.asarray(value, np.float64) for value in (mean_a, mean_b)]
    first, second = (np.asarray(value, np.float64) for value in (covariance_a, covariance_b))
    size = means[0].shape
    if len(size) != 1 or means[1].shape != size or first.shape != size * 2 or second.shape != size * 2:
        raise ValueError(
            f"means are {list(size)} and {list(means[1].shape)}, covariances {list(first.shape)} and "
            f"{list(second.shape)}; give [D], [D], [D,D] and [D,D]"
        )
    if not all(np.isfinite(value).all() for value in (*means, first, second)):
        raise ValueError("moments have values that are not finite; compute them from finite features")
    values, vectors = eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = eigh(root @ second @ root, eigvals_only=True).clip(min=0)
    shift = means[0] - means[1]
    return float(shift @ shift + np.trace(first) + np.trace(second) - 2 * np.sqrt(product).sum())


@dataclass(frozen=True)
class FrechetRealisations:
    """Fréchet distances of the paper's protocol (section 4.1), one per realisation.

    Attributes:
        variant: name of the number, which says whose features they are.
        values: squared distance of each realisation ``[R]``.
        pictures: number of clips, and thus of pictures per realisation.
        repeated: number of frames, over all clips and realisations, that were taken again because their clip
            had no unused frame left; 0 is the paper's sampling without replacement.
    """

    variant: str
    values: Array
    pictures: int
    repeated: int

    @property
    def mean(self) -> float:
        """Mean over the realisations: the paper's number."""
        return float(self.values.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Percentiles between which 95 % of the realisations lie.

        They tell how much the choice of frames matters, and nothing of how much the choice of clips does.
        """
        tail = 50 * (1 - INTERVAL)
        low, high = np.percentile(self.values, [tail, 100 - tail])
        return float(low), float(high)


def frechet_realisations(
    source_features: Features,
    frame_features: Sequence[Features],
    realisations: int = 100,
    seed: int = 0,
    *,
    variant: str = "Fréchet distance of features that were not named",
) -> FrechetRealisations:
    """Measure the distance of the source pictures from one frame per clip, many times (section 4.1).

    A clip's frames are taken without replacement over the realisations. Where a clip has fewer frames than
    there are realisations, all of its frames are shuffled again each time that they are used up. The same
    seed takes the same frames; more realisations add to fewer, and no clip's draws depend on another clip.

    Args:
        source_features: features of the source pictures ``[N,D]``.
        frame_features: for each of K clips, features of its frames ``[T_i,D]``; float32 stays as it is until
            a frame is used.
        realisations: number of realisations R, 100 in the paper.
        seed: seed of the draws.
        variant: name of the number, such as ``portrait_core.metrics.inception.VARIANT``.

    Raises:
        ValueError: for fewer than 2 sources or clips, a clip without frames, features of different D or with
            numbers that are not finite, or fewer than 1 realisation.
    """
    if realisations < 1:
        raise ValueError(f"cannot average over {realisations} realisations; ask for at least 1")
    _check(source_features, "the sources' features")
    if len(frame_features) < 2:
        raise ValueError(f"there are {len(frame_features)} clips; a covariance needs at least 2")
    for number, frames in enumerate(frame_features):
        _check(frames, f"features of clip {number}", least=1, size=source_features.shape[1])
    taken = np.stack(
        [_draw(len(frames), realisations, seed, clip) for clip, frames in enumerate(frame_features)]
    )
    source = _Spread.of(source_features)
    values = [
        source.distance(
            _Spread.of(np.stack([frames[i] for frames, i in zip(frame_features, row, strict=True)]))
        )
        for row in taken.T
    ]
    repeated = sum(max(0, realisations - len(frames)) for frames in frame_features)
    return FrechetRealisations(variant, np.array(values), len(frame_features), repeated)


def _draw(frames: int, realisations: int, seed: int, clip: int) -> NDArray[np.int64]:
    """Return a clip's frame in each realisation ``[R]``."""
    rng = np.random.default_rng([seed, clip])
    rounds = -(-realisations // frames)
    return np.concatenate([rng.permutation(frames) for _ in range(rounds)])[:realisations]


@dataclass(frozen=True)
class KernelDistance:
    """Result of :func:`kernel_distance`.

    Attributes:
        variant: name of the number, which says whose features they are.
        values: squared distance of each subset ``[S]``, not multiplied by 1000; below 0 by chance alone.
        subset_size: number of pictures of each set in a subset.
    """

    variant: str
    values: Array
    subset_size: int

    @property
    def mean(self) -> float:
        """Mean over the subsets."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation over the subsets."""
        return float(self.values.std())


def squared_kernel_distance(a: Features, b: Features) -> float:
    """Return the unbiased squared maximum mean discrepancy with the cubic kernel (x.y/D + 1)^3.

    Args:
        a: features of N pictures ``[N,D]``.
        b: features of M pictures ``[M,D]``.

    Raises:
        ValueError: for sets of different D, of fewer than 2 pictures, or with numbers that are not finite.
    """
    _check_pair(a, b)
    return _squared_kernel_distance(np.asarray(a, np.float64), np.asarray(b, np.float64))


def _squared_kernel_distance(x: Array, y: Array) -> float:
    def kernel(one: Array, other: Array) -> Array:
        return np.asarray((one @ other.T / one.shape[1] + 1) ** 3)

    def within(one: Array) -> float:
        values = kernel(one, one)
        return float((values.sum() - np.trace(values)) / (len(one) * (len(one) - 1)))

    return within(x) + within(y) - 2 * float(kernel(x, y).mean())


def kernel_distance(
    a: Features,
    b: Features,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
    *,
    variant: str = "kernel distance of features that were not named",
) -> KernelDistance:
    """Average :func:`squared_kernel_distance` over random subsets, each drawn without replacement.

    Args:
        a: features of N pictures ``[N,D]``.
        b: features of M pictures ``[M,D]``.
        subsets: number of subsets S.
        subset_size: pictures of each set in a subset; no more than N and M are taken.
        seed: seed of the draws.
        variant: name of the number.

    Raises:
        ValueError: as :func:`squared_kernel_distance`, and for fewer than 1 subset or 2 pictures in it.
    """
    _check_pair(a, b)
    size = min(subset_size, len(a), len(b))
    if subsets < 1 or size < 2:
        raise ValueError(f"cannot take {subsets} subsets of {size} pictures; ask for at least 1 of 2")
    rng = np.random.default_rng(seed)
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    values = [
        _squared_kernel_distance(
            x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)]
        )
        for _ in range(subsets)
    ]
    return KernelDistance(variant, np.array(values), size)


def _check(features: Features, what: str, least: int = 2, size: int | None = None) -> None:
    if features.ndim != 2 or len(features) < least or size not in (None, features.shape[1]):
        expected = f"[at least {least},{size or 'D'}]"
        raise ValueError(f"{what} have shape {list(features.shape)}, expected {expected}")
    if not np.isfinite(features).all():
        raise ValueError(f"{what} have values that are not finite; leave out pictures without features")


def _check_pair(a: Features, b: Features) -> None:
    _check(a, "the first set's features")
    _check(b, "the second set's features", size=a.shape[1])
