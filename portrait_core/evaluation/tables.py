"""From what was read of clips to the numbers of tables (paper section 4.1), each with its variant's name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portrait_core.metrics import coefficient_distances as coefficients
from portrait_core.metrics.coefficient_distances import Measure, Part, Variant, clip_distance
from portrait_core.metrics.distributions import frechet_realisations
from portrait_core.metrics.identity import cosine_similarity
from portrait_core.metrics.intervals import bootstrap_interval
from portrait_core.settings import EvaluationSettings

FRECHET, ID, ID_SOURCE, CSIM = "Fréchet", "ID", "ID of the source", "CSIM"
FOLLOW_CORRELATION, FOLLOW_SLOPE, FACES = "follow r", "follow slope", "faces"
POSES: Mapping[str, Part] = {
    "embedded": coefficients.EMBEDDED_ANGLES,
    "deep3d": coefficients.DEEP3D_ANGLES,
    "deca": coefficients.DECA_ROTATION,
}
EXPRESSIONS: Mapping[str, Part] = {
    "embedded": coefficients.EMBEDDED_EXPRESSION,
    "deep3d": coefficients.DEEP3D_EXPRESSION,
    "deca": coefficients.DECA_EXPRESSION,
}
"""Coefficients that are compared, by estimator."""
FRAMES_PER_SOURCE = 2
"""Frames of each clip that are compared with the source picture (paper: table 2)."""
COLUMNS = ("method", "column", "variant", "value", "low", "high", "clips", "missing")
CLIP_COLUMNS = ("method", "pair", "clip", "column", "variant", "value")


def apd(estimator: str) -> str:
    """Return the name of the column of pose distances by an estimator."""
    return f"APD {estimator}"


def aed(estimator: str) -> str:
    """Return the name of the column of expression distances by an estimator."""
    return f"AED {estimator}"


@dataclass(frozen=True)
class ClipReadings:
    """Readings of one clip.

    Attributes:
        pair: number of its pair.
        clip: name of the clip.
        arrays: arrays of the stage ``assess``.
        follow: rows per region of the face (:meth:`portrait_core.metrics.follow.Follow.row`).
        names: names of what the numbers are: ``identity``, ``features`` and the columns of ``pictures``.
    """

    pair: int
    clip: str
    arrays: Mapping[str, NDArray[Any]]
    follow: Mapping[str, Mapping[str, float | None]]
    names: Mapping[str, Any]


@dataclass(frozen=True)
class ClipValue:
    """A number of one clip, with its column and the name of its variant; NaN where it has none."""

    column: str
    variant: str
    value: float


def clip_values(clip: ClipReadings, seed: int) -> list[ClipValue]:
    """Return every number that one clip has by itself.

    Args:
        clip: its readings.
        seed: seed of the frames that are compared with the source.
    """
    arrays = clip.arrays
    found = [*_identity_values(clip, seed), *_follow_values(clip.follow)]
    for estimator in POSES:
        if f"{estimator}_pose" not in arrays:
            continue
        for column, parts, what in (
            (apd(estimator), POSES, "pose"),
            (aed(estimator), EXPRESSIONS, "expression"),
        ):
            rows = arrays[f"{estimator}_{what}"], arrays[f"{estimator}_driver_{what}"]
            variants = [Variant(parts[estimator], measure) for measure in Measure]
            found += [ClipValue(column, one.name, clip_distance(*rows, one).value) for one in variants]
    pictures = arrays.get("pictures", np.zeros((1, 0)))
    # the first frame of a self-reenactment is the portrait itself
    for name, values in zip(clip.names["pictures"], pictures[1:].T, strict=True):
        found.append(ClipValue(name.partition(",")[0].partition(" of ")[0], name, _mean(values)))
    seen = np.isfinite(arrays["identity"]).all(1)
    return [*found, ClipValue(FACES, "share of frames in which a face is found", float(seen.mean()))]


def _identity_values(clip: ClipReadings, seed: int) -> list[ClipValue]:
    arrays = clip.arrays
    rng = np.random.default_rng([seed, 3, clip.pair])
    seen = np.flatnonzero(np.isfinite(arrays["identity"]).all(1))
    taken = rng.permutation(seen)[:FRAMES_PER_SOURCE]
    source = _cosine(arrays["identity"][taken], arrays["identity_source"])
    variant = f"cosine, {clip.names['identity']}"
    found = [ClipValue(ID_SOURCE, f"{variant}, two frames and the source", source)]
    if "identity_views" in arrays:
        first, second = arrays["identity_views"]
        found.append(ClipValue(ID, f"{variant}, two frames from other sides", _cosine(first, second)))
    if "identity_driver" in arrays:
        both = _cosine(arrays["identity"][1:], arrays["identity_driver"][1:])
        found.append(ClipValue(CSIM, f"{variant}, each frame after the first and its true one", both))
    return found


def _follow_values(follow: Mapping[str, Mapping[str, float | None]]) -> list[ClipValue]:
    """Return the mean over the regions that move in the driver, and every region by itself."""
    rows = {name: row for name, row in follow.items() if row["correlation"] is not None}
    found = []
    for column, field in ((FOLLOW_CORRELATION, "correlation"), (FOLLOW_SLOPE, "slope")):
        values = np.array([row[field] for row in rows.values()], np.float64)
        found.append(ClipValue(column, f"{field}, mean over the regions that move", _mean(values)))
        found += [
            ClipValue(column, f"{field} of {name}", float(value))
            for name, value in zip(rows, values, strict=True)
        ]
    return found


def _cosine(first: NDArray[Any], second: NDArray[Any]) -> float:
    if not len(first):
        return float("nan")
    return _mean(np.atleast_1d(cosine_similarity(first, second)))


def _mean(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def method_rows(
    method: str,
    clips: Sequence[ClipReadings],
    pairs: Collection[int],
    chosen: EvaluationSettings,
    seed: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a method's rows of the summary and of the table of clips.

    The summary is of some pairs, the table of all clips. Means over clips come with bootstrap intervals of
    95 %; the Fréchet distance with the percentiles of its realisations.

    Args:
        method: its name.
        clips: readings of its clips.
        pairs: numbers of the pairs that the summary is of: those that every method has.
        chosen: the evaluation's settings.
        seed: of all draws.
    """
    per_clip = [
        dict(
            zip(CLIP_COLUMNS, (method, clip.pair, clip.clip, one.column, one.variant, one.value), strict=True)
        )
        for clip in clips
        for one in clip_values(clip, seed)
    ]
    compared = [clip for clip in clips if clip.pair in pairs]
    if not compared:
        return [], per_clip
    summary = [_frechet_row(method, compared, chosen, seed)]
    table = pd.DataFrame(per_clip, columns=list(CLIP_COLUMNS))
    table = table[table["pair"].isin(list(pairs))]
    for (column, variant), rows in table.groupby(["column", "variant"], sort=False):
        found = bootstrap_interval(rows["value"].to_numpy(), seed, resamples=chosen.resamples)
        missing = len(compared) - found.clips
        values = (method, column, variant, found.mean, found.low, found.high, found.clips, missing)
        summary.append(dict(zip(COLUMNS, values, strict=True)))
    return summary, per_clip


def _frechet_row(
    method: str, clips: Sequence[ClipReadings], chosen: EvaluationSettings, seed: int
) -> dict[str, Any]:
    variant = clips[0].names["features"]
    if len(clips) < 2:
        nothing = float("nan")
        return dict(
            zip(COLUMNS, (method, FRECHET, variant, nothing, nothing, nothing, len(clips), 0), strict=True)
        )
    sources = np.concatenate([clip.arrays["features_source"] for clip in clips])
    frames = [clip.arrays["features"] for clip in clips]
    found = frechet_realisations(sources, frames, chosen.realisations, seed, variant=variant)
    values = (method, FRECHET, variant, found.mean, *found.interval, len(clips), 0)
    return dict(zip(COLUMNS, values, strict=True))


Rows = Callable[[str], Sequence[ClipReadings]]
"""Function that reads the clips of a method."""


def summarise(
    methods: Sequence[str], read: Rows, pairs: Collection[int], chosen: EvaluationSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the summary (:data:`COLUMNS`) and the table of clips (:data:`CLIP_COLUMNS`) of all methods.

    The clips of one method are held at a time. The summary compares the ``pairs`` alone.
    """
    summaries: list[dict[str, Any]] = []
    clips: list[dict[str, Any]] = []
    for method in methods:
        more, per_clip = method_rows(method, read(method), pairs, chosen, seed)
        summaries += more
        clips += per_clip
    return pd.DataFrame(summaries, columns=list(COLUMNS)), pd.DataFrame(clips, columns=list(CLIP_COLUMNS))
