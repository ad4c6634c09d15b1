"""The fraction of the driver's expression that arrives, region by region.

Everything is measured in the head's frame (:mod:`portrait_core.tracking.head_frame`), so that neither pose
nor perspective enters, and in units of the face: the distance of the outer eye corners, the width of an eye.
Where there is a picture, what shows between the lips is read from its colours as well
(:mod:`portrait_core.metrics.lip_colors`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Regions = Mapping[str, Array]
"""A measure per frame ``[T]`` of every region, by its name."""

MIN_SLOPE, MIN_CORRELATION = 0.85, 0.9
"""Limits that a region has to reach to pass for following."""
SHUT = 0.5
"""An eye that is open by less than this share of its median counts as shut."""
_NO_SLOPE = 0.01
"""Slopes below it count as it, so that they have a logarithm."""
_ROUNDING = 1e-5
"""Standard deviation of a result up to which it does not move: landmarks are of single precision."""
MOUTH_OPEN, TEETH_SHOWN = "mouth open", "teeth shown"
"""The regions that are read from the colours of a picture."""
CLOSED_HEIGHT, CLOSED_GAP = 0.01, 0.03
"""Lips are closed where ``mouth open`` and ``lip gap`` are below these. Closed lips of drivers have a gap of
up to 0.012 (nine of ten frames), parted ones of 0.038 and more."""
STILL = {
    "gaze across": 0.02,
    "gaze up": 0.02,
    "lid right": 0.03,
    "lid left": 0.03,
    MOUTH_OPEN: 0.01,
    TEETH_SHOWN: 0.01,
}
"""Standard deviation below which a region counts as still, where it is not :data:`STILL_ELSEWHERE`. By
colour closed lips are read as exactly 0, and these deviations are those of the smallest speck that is taken
for an opening or a tooth, seen in half of the frames."""
STILL_ELSEWHERE = 0.008
"""The same of lengths over the distance of the outer eye corners: about twice what a landmark network's noise
amounts to."""


def measure_regions(points: NDArray[np.floating]) -> dict[str, Array]:
    """Measure the regions of a face.

    Args:
        points: landmarks ``[T,478,2]`` or ``[T,478,3]``, y up, in the head's frame; NaN rows give NaN.

    Returns:
        Arrays ``[T]``. Over the distance of the outer eye corners: ``lip gap``, ``mouth width``, ``corners'
        lift`` (height of the corners above the middle of the lips), ``corners' difference`` (the subject's
        right less the left), ``inner brows``, ``outer brows`` (height above the eyes), ``brows' difference``
        (right less left). Over the eye's width: ``lid right``, ``lid left`` (opening), ``gaze across``
        (of both irises, to the image's right) and ``gaze up``.
    """
    p = np.asarray(points, np.float64)[..., :2]
    right_corner, left_corner = p[:, 33], p[:, 263]
    wide = np.linalg.norm(left_corner - right_corner, axis=1)
    across = (left_corner - right_corner) / wide[:, None]
    up = np.stack([-across[:, 1], across[:, 0]], axis=1)
    middle = (right_corner + left_corner) / 2

    def height(*index: int) -> Array:
        return np.mean([((p[:, i] - middle) * up).sum(1) / wide for i in index], axis=0)

    def apart(first: int, second: int) -> Array:
        return np.asarray(np.linalg.norm(p[:, first] - p[:, second], axis=1))

    def gaze(iris: int, first: int, second: int) -> tuple[Array, Array]:
        line = p[:, second] - p[:, first]
        square = (line * line).sum(1)
        offset = p[:, iris] - p[:, first]
        return (offset * line).sum(1) / square, (
            line[:, 0] * offset[:, 1] - line[:, 1] * offset[:, 0]
        ) / square

    looks = np.mean([gaze(468, 33, 133), gaze(473, 362, 263)], axis=0)
    return {
        "lip gap": apart(13, 14) / wide,
        "mouth width": apart(61, 291) / wide,
        "corners' lift": height(61, 291) - height(13, 14),
        "corners' difference": height(61) - height(291),
        "inner brows": height(107, 336),
        "outer brows": height(70, 300),
        "brows' difference": height(70, 105) - height(300, 334),
        "lid right": apart(159, 145) / apart(33, 133),
        "lid left": apart(386, 374) / apart(362, 263),
        "gaze across": looks[0],
        "gaze up": looks[1],
    }


@dataclass(frozen=True)
class Reader:
    """Slopes and noise of a reader on pictures whose truth is known, by region where they were measured.

    Attributes:
        slopes: the part of a change that it reports.
        noise: how far its readings lie off that, root mean square, in the region's unit.
    """

    slopes: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Follow:
    """Agreement of one region of a result with the driver's.

    Attributes:
        moves: the driver's standard deviation.
        correlation: Pearson's; 0 where either is still.
        slope: least-squares slope of the result's change on the driver's; 1 means that all of it arrives.
        error: mean absolute difference of the two after each's own mean is taken away.
        reader_slope: the part of a known change of a picture that the landmark networks report; None where
            it was not measured, or where the region was not read from a picture.
        reader_noise: how far their readings lie off that, root mean square, in the region's unit; None as
            above.
    """

    moves: float
    correlation: float
    slope: float
    error: float
    reader_slope: float | None = None
    reader_noise: float | None = None

    @property
    def corrected_slope(self) -> float | None:
        """The slope without what the reader loses; None where that is not known."""
        return None if self.reader_slope is None else self.slope / self.reader_slope

    @property
    def best_slope(self) -> float:
        """Return the slope nearest to 1, on a logarithmic scale, between the read and the corrected slope.

        It is the slope as it was read where no other is known, or where nothing moves the right way.

        The reader's own slope is that on pictures of which one part was moved alone. A reader that knows
        faces damps such a change more than one that the rest of the face goes along with: of a result it
        loses something between nothing and that. So a region is called lost only where neither explains it.
        """
        if self.corrected_slope is None or self.slope <= 0:
            return self.slope
        low, high = sorted((self.slope, self.corrected_slope))
        return min(max(1.0, low), high)

    @property
    def slope_shortfall(self) -> float:
        """Return the slope's distance from 1 on a logarithmic scale, over that of :data:`MIN_SLOPE`.

        Half counts as much as double. A region that moves the wrong way counts as one that does not move.
        """
        return abs(math.log(max(self.best_slope, _NO_SLOPE)) / math.log(MIN_SLOPE))

    @property
    def highest_correlation(self) -> float:
        """Return the correlation with which a result that follows exactly would be read.

        It is 1 where the reader's noise is not known. The driver's noise is not in it: the result follows
        that too.
        """
        return 1.0 if self.reader_noise is None else 1.0 / math.hypot(1.0, self.reader_noise / self.moves)

    @property
    def correlation_shortfall(self) -> float:
        """The correlation's distance from 1 over that of :data:`MIN_CORRELATION`.

        What the reader's noise takes from it (:attr:`highest_correlation`) does not count.
        """
        return (1 - min(self.correlation / self.highest_correlation, 1.0)) / (1 - MIN_CORRELATION)

    @property
    def shortfall(self) -> float:
        """Distance of the region from following exactly, the larger of both; 1 is the most that passes."""
        return max(self.slope_shortfall, self.correlation_shortfall)

    def row(self) -> dict[str, float | None]:
        """Return what ``summary.json`` holds of it, to 4 decimals."""
        of_reader = ("reader_slope", "corrected_slope", "reader_noise", "highest_correlation")
        names = ("moves", "correlation", "slope", "error", *of_reader)
        return {name: _rounded(getattr(self, name)) for name in names}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Follow:
        """Take what :meth:`row` gave."""
        return cls(**{one.name: row[one.name] for one in fields(cls)})


def follow(
    driver: Regions,
    result: Regions,
    ok: NDArray[np.bool_],
    reader: Reader | None = None,
) -> dict[str, Follow]:
    """Compare the regions that move in the driver.

    Args:
        driver: regions of T frames of the driver.
        result: regions of the same frames of the result.
        ok: frames that count ``[T]``.
        reader: what is known of the reader of the result.

    Returns:
        How they follow, by name, in the driver's order. Regions that are still in the driver, and those that
        the result does not have, are left out.
        Gaze is compared where both have their eyes open, as far as their lids were read: nothing shows where
        a shut eye looks.
    """
    found, looking = {}, ok & _eyes_open(driver, ok) & _eyes_open(result, ok)
    for name, wanted in driver.items():
        counts = looking if name.startswith("gaze") else ok
        if name not in result:
            continue
        x, y = wanted[counts], result[name][counts]
        if len(x) < 2 or x.std() < STILL.get(name, STILL_ELSEWHERE):
            continue
        x, y = x - x.mean(), y - y.mean()
        covariance = float(np.mean(x * y))
        found[name] = Follow(
            moves=float(x.std()),
            correlation=covariance / float(x.std() * y.std()) if y.std() > _ROUNDING else 0.0,
            slope=covariance / float(x.var()),
            error=float(np.abs(x - y).mean()),
            reader_slope=(reader or Reader()).slopes.get(name),
            reader_noise=(reader or Reader()).noise.get(name),
        )
    return found


def worst_region(found: Mapping[str, Follow]) -> str | None:
    """Return the name of the region that follows worst (:attr:`Follow.shortfall`).

    It is the first of equals; None where there are no regions.
    """
    return max(found, key=lambda name: found[name].shortfall, default=None)


@dataclass(frozen=True)
class Measured:
    """The regions of one stage of a clip.

    Attributes:
        regions: :func:`measure_regions` of n frames, and of pictures also :data:`MOUTH_OPEN` and
            :data:`TEETH_SHOWN`.
        frames: numbers of these frames in the clip ``[n]``.
        from_pictures: whether landmark networks read them from pictures that the program painted, so that the
            reader's own slopes apply.
    """

    regions: Regions
    frames: NDArray[np.intp]
    from_pictures: bool = False

    @classmethod
    def of(
        cls,
        points: NDArray[np.floating],
        frames: NDArray[np.intp] | None = None,
        from_pictures: bool = False,
    ) -> Measured:
        """Measure landmarks ``[n,478,3]`` in the head's frame, of ``frames`` or of all."""
        return cls(
            measure_regions(points), np.arange(len(points)) if frames is None else frames, from_pictures
        )

    def with_regions(self, more: Regions) -> Measured:
        """Return the same stage with ``more`` regions of its frames."""
        return replace(self, regions={**self.regions, **more})


def follow_stages(
    driver: Measured, stages: Mapping[str, Measured], reader: Reader | None = None
) -> dict[str, dict[str, Follow]]:
    """Compare every stage with the driver, over the frames in which both show a face.

    Args:
        driver: of all frames of the clip.
        stages: of some frames each, by name.
        reader: what is known of the landmark networks on painted pictures; it is used where a stage was read
            from pictures.
    """
    found = {}
    for name, stage in stages.items():
        wanted = {region: values[stage.frames] for region, values in driver.regions.items()}
        known = reader if stage.from_pictures else None
        found[name] = follow(wanted, stage.regions, _complete(wanted) & _complete(stage.regions), known)
    return found


def follow_rows(
    driver: Measured, stages: Mapping[str, Measured], reader: Reader | None = None
) -> dict[str, Any]:
    """Report how every stage follows its driver (:func:`follow_stages`).

    Returns:
        What JSON can hold: ``follow``, by stage and region; and ``regions``, the curves of ``driver`` and,
        where the result shows a face, ``result`` by region: a value per frame of the clip to 4 decimals, None
        where no face is seen.
    """
    shown = {"driver": driver} | {name: stages[name] for name in ("result",) if name in stages}
    return {
        "follow": {
            stage: {region: one.row() for region, one in found.items()}
            for stage, found in follow_stages(driver, stages, reader).items()
        },
        "regions": {
            who: {region: [_rounded(value) for value in values] for region, values in one.regions.items()}
            for who, one in shown.items()
        },
    }


def count_closed_lips(driver: Measured, result: Measured | None) -> dict[str, int]:
    """Count the frames in which the driver's lips are closed, and those of them in which the result's are.

    Args:
        driver: of all frames of the clip, with :data:`MOUTH_OPEN`.
        result: of some of them, with that too; None where the clip shows no face.

    Returns:
        ``driver_frames``: frames that show a face in both, in which the driver's lips are closed by their
        colours and by the landmarks; ``result_frames``: those of them in which the result's are by their
        colours, whatever the landmarks say of a painted mouth.
    """
    if result is None:
        return {"driver_frames": 0, "result_frames": 0}
    height, gap = (driver.regions[name][result.frames] for name in (MOUTH_OPEN, "lip gap"))
    shown = result.regions[MOUTH_OPEN]
    closed = (height < CLOSED_HEIGHT) & (gap < CLOSED_GAP) & np.isfinite(shown)
    return {
        "driver_frames": int(closed.sum()),
        "result_frames": int((closed & (shown < CLOSED_HEIGHT)).sum()),
    }


def _eyes_open(regions: Regions, ok: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell in which frames ``[T]`` both eyes are open.

    Their medians over the frames that are ``ok [T]`` are the measure. A lid that was not read counts as open.
    """
    opened = np.ones(len(ok), bool)
    for lid in (regions[name] for name in ("lid right", "lid left") if name in regions):
        opened &= lid > (SHUT * np.median(lid[ok]) if ok.any() else 0.0)
    return opened


def _complete(regions: Regions) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(list(regions.values())).all(axis=0), bool)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)
