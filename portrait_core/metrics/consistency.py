"""The paper's multi-view consistency of identity (section 4.2, table 3).

Every subject is shown from two random sides, and the identity vectors of both views are compared. A method
whose heads do not turn when asked would score best, so how far they turn can be measured beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.metrics.identity import cosine_similarity, identity_distance
from portrait_core.metrics.intervals import bootstrap_interval
from portrait_core.metrics.motion import correlation_and_slope
from portrait_core.tracking.people import SAME_PERSON

SUBJECTS = 128
YAW_DEG, PITCH_DEG = 30.0, 20.0
"""Largest yaw and pitch of a view to either side."""


@dataclass(frozen=True)
class Consistency:
    """Results of :func:`compare_views` for N subjects.

    Attributes:
        cosine: of the two views' identity vectors ``[N]``, NaN where a view has no face.
        centred: cosine after the mean vector of all pictures is taken off ``[N]``: how far the two views
            agree in what makes this person another than the rest, 0 for two random ones. Blurred faces are
            all alike, and their plain cosines are high.
        distance: Euclidean, the same.
        others: cosine of a subject's first view and the next one's second ``[N]``: what two people have.
        asked_rad: yaw and pitch of both views ``[N,2,2]``.
        read_rad: the tracker's, NaN without a face; None where no tracker looked.
        agreement: of the pictures by reprojection (:mod:`portrait_core.metrics.view_reprojection`): mean
            absolute difference and share of compared pixels ``[N,2]``; None without depth.
    """

    cosine: NDArray[np.float64]
    centred: NDArray[np.float64]
    distance: NDArray[np.float64]
    others: NDArray[np.float64]
    asked_rad: NDArray[np.float64]
    read_rad: NDArray[np.float64] | None = None
    agreement: NDArray[np.float64] | None = None

    @property
    def found(self) -> int:
        """Pairs with a face in both views."""
        return int(np.isfinite(self.cosine).sum())

    @property
    def mean(self) -> float:
        """Mean cosine over those pairs; NaN where there is none."""
        return float(np.nanmean(self.cosine)) if self.found else float("nan")

    @property
    def deviation(self) -> float:
        """Standard deviation of the same."""
        return float(np.nanstd(self.cosine)) if self.found else float("nan")

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """Return the 95 % interval of the mean cosine over pairs; NaN for less than two."""
        found = bootstrap_interval(self.cosine, seed)
        return found.low, found.high

    @property
    def reprojection(self) -> tuple[float, float]:
        """Mean difference of the views by reprojection, and mean share of compared pixels; NaN for none."""
        if self.agreement is None or not np.isfinite(self.agreement).all(1).any():
            return float("nan"), float("nan")
        difference, share = np.nanmean(self.agreement, axis=0)
        return float(difference), float(share)

    @property
    def mean_of_others(self) -> float:
        """Mean cosine of two different people; NaN where there is none."""
        return float(np.nanmean(self.others)) if np.isfinite(self.others).any() else float("nan")

    @property
    def mean_centred(self) -> float:
        """Mean of the centred cosines; NaN where there is none."""
        return float(np.nanmean(self.centred)) if self.found else float("nan")

    @property
    def same_person(self) -> float:
        """Share of those pairs that dlib's network calls one person; for its vectors alone."""
        near = self.distance[np.isfinite(self.distance)] < SAME_PERSON
        return float(near.mean()) if self.found else float("nan")

    def pose_error_deg(self) -> tuple[float, float]:
        """Return the mean absolute error of yaw and pitch, of views with a face.

        Raises:
            ValueError: if no tracker was given.
        """
        asked, read = self._poses()
        error = np.degrees(np.abs(read - asked)).mean(0) if len(read) else np.full(2, np.nan)
        return float(error[0]), float(error[1])

    def turning(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return correlation and slope of read on asked poses, of yaw and of pitch.

        All are 1 for heads that turn as asked.

        Raises:
            ValueError: if no tracker was given.
        """
        asked, read = self._poses()
        yaw, pitch = (correlation_and_slope(asked[:, i], read[:, i]) for i in range(2))
        return yaw, pitch

    def _poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.read_rad is None:
            raise ValueError("no pose was measured; give compare_views what a tracker reads")
        asked, read = self.asked_rad.reshape(-1, 2), self.read_rad.reshape(-1, 2)
        seen = np.isfinite(read).all(1)
        return asked[seen], read[seen]


def draw_views(
    subjects: int = SUBJECTS, seed: int = 0, yaw_deg: float = YAW_DEG, pitch_deg: float = PITCH_DEG
) -> NDArray[np.float64]:
    """Two random sides of every subject: yaw and pitch in radians ``[N,2,2]``, uniform within the limits.

    The same seed gives the same draws, and more subjects add to fewer.

    Raises:
        ValueError: for less than one subject.
    """
    if subjects < 1:
        raise ValueError(f"cannot draw views of {subjects} subjects; ask for at least 1")
    limits = np.radians([yaw_deg, pitch_deg])
    return np.random.default_rng(seed).uniform(-limits, limits, size=(subjects, 2, 2))


def compare_views(
    identity: NDArray[np.floating],
    asked_rad: NDArray[np.floating],
    read_rad: NDArray[np.floating] | None = None,
    agreement: NDArray[np.float64] | None = None,
) -> Consistency:
    """Compare the two views of every subject.

    Args:
        identity: identity vectors ``[N,2,K]``, NaN where there is no face.
        asked_rad: yaw and pitch of both views ``[N,2,2]`` in radians.
        read_rad: the same as a tracker reads them, NaN where there is no face; None where none looked.
        agreement: of both views by reprojection ``[N,2]``; None without depth.

    Raises:
        ValueError: for arrays of other shapes.
    """
    vectors, asked = np.asarray(identity, np.float64), np.asarray(asked_rad, np.float64)
    if vectors.ndim != 3 or vectors.shape[1] != 2 or not len(vectors):
        raise ValueError(f"identity vectors have shape {list(vectors.shape)}, expected [N,2,K]")
    if asked.shape != (len(vectors), 2, 2):
        raise ValueError(f"views have shape {list(asked.shape)}, expected [{len(vectors)},2,2] of draw_views")
    first, second = vectors[:, 0], vectors[:, 1]
    seen = vectors[np.isfinite(vectors).all(-1)]
    middle = seen.mean(0) if len(seen) else np.zeros(vectors.shape[-1])
    return Consistency(
        cosine=cosine_similarity(first, second),
        centred=_centred(first, second, middle),
        distance=identity_distance(first, second),
        others=cosine_similarity(first, np.roll(second, -1, axis=0)),
        asked_rad=asked,
        read_rad=None if read_rad is None else np.asarray(read_rad, np.float64).reshape(asked.shape),
        agreement=agreement,
    )


def _centred(
    first: NDArray[np.float64], second: NDArray[np.float64], middle: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return cosines without the mean vector; NaN where a vector is the mean, as with a single face."""
    a, b = first - middle, second - middle
    flat = (np.linalg.norm(a, axis=-1) == 0) | (np.linalg.norm(b, axis=-1) == 0)
    a[flat], b[flat] = np.nan, np.nan
    return cosine_similarity(a, b)
