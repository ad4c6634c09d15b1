"""Motion of the result against the driver's: lips, lids, head pose and background, measured on pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from portrait_core.cameras import angles_from_labels, degrees
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.measure import measure, seen

BLINK_FRACTION = 0.75
"""A blink is a local minimum of the eye opening below this fraction of the clip's median."""


@dataclass(frozen=True)
class MotionTrack:
    """Readings of the tracker on ``T`` frames.

    Attributes:
        lip_gap: inner-lip distance over outer-eye distance ``[T]``.
        eye_opening: lid distance over eye width, mean of both eyes ``[T]``.
        angles_deg: camera yaw, pitch, roll ``[T,3]`` in degrees.
        ok: frames with a face ``[T]``.
    """

    lip_gap: NDArray[np.floating]
    eye_opening: NDArray[np.floating]
    angles_deg: NDArray[np.floating]
    ok: NDArray[np.bool_]

    @classmethod
    def of(cls, landmarks: NDArray[np.floating], track: FaceTrack) -> MotionTrack:
        """Measure T frames with landmarks ``[T,478,2]`` (NaN where there is no face) and their track."""
        values = measure(landmarks)
        angles = degrees(angles_from_labels(track.cameras))
        return cls(values["lip_gap"], values["eye_opening"], angles, seen(landmarks))

    @classmethod
    def unseen(cls, count: int) -> MotionTrack:
        """Return ``count`` frames of which none shows a face."""
        nothing = np.full(count, np.nan)
        return cls(nothing, nothing, np.full((count, 3), np.nan), np.zeros(count, bool))

    def repeated(self, count: int) -> MotionTrack:
        """Return the first frame, ``count`` times: the portrait as it is, unanimated."""
        return MotionTrack(
            np.repeat(self.lip_gap[:1], count),
            np.repeat(self.eye_opening[:1], count),
            np.repeat(self.angles_deg[:1], count, axis=0),
            np.repeat(self.ok[:1], count),
        )


class Blink(BaseModel):
    """Eye opening at one blink of the driver."""

    frame: int
    driver: float
    result: float


class MotionReport(BaseModel):
    """Agreement of a track with the driver's. Correlations are NaN-free: 0 where nothing moves."""

    frames_measured: int
    lip_correlation: float
    lip_slope: float
    eye_correlation: float
    eye_slope: float
    driver_eye_median: float
    result_eye_median: float
    blinks: list[Blink]
    pose_error_deg: tuple[float, float, float]
    """Mean absolute difference of yaw, pitch and roll."""

    @property
    def mean_pose_error_deg(self) -> float:
        """Mean of the three angles' errors."""
        return float(np.mean(self.pose_error_deg))


def correlation_and_slope(x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[float, float]:
    """Return Pearson's correlation of ``y`` with ``x`` and the least-squares slope of ``y`` on ``x``.

    Both are 0 where either does not move or there are fewer than 2 samples.
    """
    if len(x) < 2 or np.std(x) < 1e-9 or np.std(y) < 1e-9:
        return 0.0, 0.0
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(covariance / (x.std() * y.std())), float(covariance / x.var())


def find_blinks(eye_opening: NDArray[np.floating], fraction: float = BLINK_FRACTION) -> list[int]:
    """Return frames at which the eye is most closed within each run below ``fraction`` of the median."""
    if len(eye_opening) == 0:
        return []
    closed = eye_opening < fraction * np.nanmedian(eye_opening)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], closed.astype(int), [0]])))
    runs = zip(edges[::2], edges[1::2], strict=True)
    return [int(a + np.nanargmin(eye_opening[a:b])) for a, b in runs]


def _wrap(angle_deg: NDArray[np.floating]) -> NDArray[np.floating]:
    return (angle_deg + 180.0) % 360.0 - 180.0


def compare_motion(driver: MotionTrack, result: MotionTrack) -> MotionReport:
    """Compare two tracks of equal length, over the frames in which both have a face.

    Raises:
        ValueError: if the lengths differ, or no frame has a face in both.
    """
    if len(driver.ok) != len(result.ok):
        raise ValueError(f"driver has {len(driver.ok)} frames, result {len(result.ok)}; compare equal clips")
    ok = driver.ok & result.ok
    if not ok.any():
        raise ValueError("no frame has a face in both driver and result; nothing to compare")
    lip = correlation_and_slope(driver.lip_gap[ok], result.lip_gap[ok])
    eye = correlation_and_slope(driver.eye_opening[ok], result.eye_opening[ok])
    blinks = [i for i in find_blinks(np.where(driver.ok, driver.eye_opening, np.inf)) if ok[i]]
    error = np.abs(_wrap(result.angles_deg[ok] - driver.angles_deg[ok])).mean(axis=0)
    return MotionReport(
        frames_measured=int(ok.sum()),
        lip_correlation=lip[0],
        lip_slope=lip[1],
        eye_correlation=eye[0],
        eye_slope=eye[1],
        driver_eye_median=float(np.median(driver.eye_opening[ok])),
        result_eye_median=float(np.median(result.eye_opening[ok])),
        blinks=[
            Blink(frame=i, driver=float(driver.eye_opening[i]), result=float(result.eye_opening[i]))
            for i in blinks
        ],
        pose_error_deg=(float(error[0]), float(error[1]), float(error[2])),
    )


def motion_rows(
    driver: MotionTrack, result: MotionTrack, still: MotionTrack, flicker: Callable[[], float | None]
) -> dict[str, Any]:
    """Compare the result with its driver, and beside it the portrait that does nothing.

    Args:
        driver: motion of T frames of the driver.
        result: motion of the result's T frames.
        still: motion of the portrait, repeated T times.
        flicker: tells how the result's background moves by itself, in grey levels of 255 (None is not
            known); it is asked where the result shows a face.

    Returns:
        What JSON can hold: ``faces_found``, and ``result`` and ``still_portrait`` where any frame shows both
        its face and the driver's.
    """
    rows: dict[str, Any] = {"faces_found": int(result.ok.sum())}
    for name, track, moved in (("result", result, flicker), ("still_portrait", still, lambda: 0.0)):
        if (driver.ok & track.ok).any():
            rows[name] = compare_motion(driver, track).model_dump(mode="json")
            rows[name]["background_flicker"] = moved()
    return rows
