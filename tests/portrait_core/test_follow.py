"""Follow by region: known changes of made landmarks, and of the embedded head under many poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from portrait_core.cameras import labels_from_rotations
from portrait_core.face_model.head import MorphableHead
from portrait_core.metrics.follow import (
    MOUTH_OPEN,
    TEETH_SHOWN,
    Follow,
    Measured,
    Reader,
    count_closed_lips,
    follow,
    follow_rows,
    follow_stages,
    measure_regions,
    worst_region,
)
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.head_frame import head_landmarks, lift_clip
from portrait_core.tracking.measure import spread_evenly
from portrait_core.tracking.projection import Pose

FRAMES = 24
WAVE = np.sin(np.linspace(0, 4 * np.pi, FRAMES))


@pytest.fixture(scope="module")
def face(head: MorphableHead) -> np.ndarray:
    """Landmarks of the head with parted lips, ``FRAMES`` times ``[T,478,3]``; its outer eye corners are 1
    apart."""
    rest = np.zeros((1, head.n_expression)), np.zeros((1, 3))
    points = head_landmarks(head, np.zeros(head.n_shape), *rest)
    points /= np.linalg.norm(points[0, 33] - points[0, 263])
    points[0, [13, 14], 1] += (0.04, -0.04)
    return np.repeat(points, FRAMES, axis=0)


def _moved(face: np.ndarray, change: dict[int, tuple[float, float]], amount: float = 1.0) -> np.ndarray:
    """The face, some landmarks of which move by ``amount`` times (across, up) with a wave."""
    points = face.copy()
    for index, step in change.items():
        points[:, index, :2] += amount * WAVE[:, None] * np.array(step)
    return points


CHANGES: dict[str, dict[int, tuple[float, float]]] = {
    "mouth width": {61: (-0.03, 0), 291: (0.03, 0)},
    "lip gap": {13: (0, 0.02), 14: (0, -0.02)},
    "corners' lift": {61: (0, 0.05), 291: (0, 0.05)},
    "corners' difference": {61: (0, 0.03), 291: (0, -0.03)},
    "inner brows": {107: (0, 0.05), 336: (0, 0.05)},
    "outer brows": {70: (0, 0.05), 300: (0, 0.05)},
    "brows' difference": {70: (0, 0.02), 105: (0, 0.02), 300: (0, -0.02), 334: (0, -0.02)},
    "lid right": {159: (0, 0.01), 145: (0, -0.01)},
    "lid left": {386: (0, 0.01), 374: (0, -0.01)},
    "gaze across": {468: (0.02, 0), 473: (0.02, 0)},
    "gaze up": {468: (0, 0.02), 473: (0, 0.02)},
}


@pytest.mark.parametrize("region", CHANGES)
def test_a_known_change_is_found_in_its_region_and_in_no_other(face: np.ndarray, region: str) -> None:
    driver, result = (measure_regions(_moved(face, CHANGES[region], amount)) for amount in (1.0, 0.6))
    found = follow(driver, result, np.ones(FRAMES, bool))
    assert list(found) == [region]
    assert found[region].slope == pytest.approx(0.6, abs=0.01)
    assert found[region].correlation == pytest.approx(1.0, abs=1e-3)
    assert found[region].moves == pytest.approx(driver[region].std())
    wanted = 0.4 * np.abs(driver[region] - driver[region].mean()).mean()
    assert found[region].error == pytest.approx(wanted, rel=0.02)


def test_ups_and_rights_are_positive(face: np.ndarray) -> None:
    for region, change in CHANGES.items():
        assert np.corrcoef(measure_regions(_moved(face, change))[region], WAVE)[0, 1] > 0.99, region


def test_a_region_that_is_still_in_the_driver_is_left_out(face: np.ndarray) -> None:
    still = measure_regions(_moved(face, CHANGES["mouth width"], 0.05))
    assert follow(still, measure_regions(_moved(face, CHANGES["mouth width"])), np.ones(FRAMES, bool)) == {}


def test_a_region_that_does_nothing_or_the_contrary(face: np.ndarray) -> None:
    driver = measure_regions(_moved(face, CHANGES["gaze up"]))
    ok = np.ones(FRAMES, bool)
    rounded = face + 1e-7 * np.random.default_rng(0).standard_normal(face.shape)
    nothing = follow(driver, measure_regions(rounded), ok)["gaze up"]
    assert nothing.slope == pytest.approx(0.0, abs=1e-5)
    assert nothing.correlation == 0.0
    contrary = follow(driver, measure_regions(_moved(face, CHANGES["gaze up"], -1.0)), ok)["gaze up"]
    assert (contrary.slope, contrary.correlation) == pytest.approx((-1.0, -1.0), abs=1e-3)


def test_frames_without_a_face_do_not_count_and_are_gaps_in_the_curves(face: np.ndarray) -> None:
    driver, result = (_moved(face, CHANGES["mouth width"], amount) for amount in (1.0, 0.5))
    driver[3] = np.nan
    result[7] = np.nan
    rows = follow_rows(Measured.of(driver), {"result": Measured.of(result)})
    assert rows["follow"]["result"]["mouth width"]["slope"] == pytest.approx(0.5, abs=0.01)
    curves = {who: rows["regions"][who]["mouth width"] for who in ("driver", "result")}
    assert [curve.index(None) for curve in curves.values()] == [3, 7]
    assert all(curve.count(None) == 1 and len(curve) == FRAMES for curve in curves.values())
    known = [value for value in curves["driver"] if value is not None]
    assert known == [round(value, 4) for value in known]


@pytest.mark.parametrize("side", ["driver", "result"])
def test_a_blink_says_nothing_of_gaze(face: np.ndarray, side: str) -> None:
    """A shut eye's iris is read anywhere."""
    points = {who: _moved(face, CHANGES["gaze up"]) for who in ("driver", "result")}
    blinking = points[side]
    middle = (blinking[:, [159, 386]] + blinking[:, [145, 374]]) / 2
    for frame in (6, 17):
        blinking[frame, [159, 386]] = blinking[frame, [145, 374]] = middle[frame]
        blinking[frame, [468, 473], 1] += 0.5
    driver, result = (measure_regions(points[who]) for who in ("driver", "result"))
    found = follow(driver, result, np.ones(FRAMES, bool))
    assert found["gaze up"].slope == pytest.approx(1.0, abs=1e-6)
    gaze = {"gaze up": result["gaze up"]}  # of a reader that reads no lids: the driver's decide
    assert (follow(driver, gaze, np.ones(FRAMES, bool)) == {"gaze up": found["gaze up"]}) == (
        side == "driver"
    )
    assert ("lid right" in found) == (side == "driver")  # lids are compared in a blink too
    if side == "driver":
        assert found["lid right"].correlation == 0.0


def test_a_stage_of_some_frames_is_compared_on_those(face: np.ndarray) -> None:
    frames = np.array([0, 3, 4, 9, 15, 20])
    driver, template = (Measured.of(_moved(face, CHANGES["lip gap"], amount)) for amount in (1.0, 0.8))
    some = Measured({name: values[frames] for name, values in template.regions.items()}, frames)
    assert follow_stages(driver, {"template": some})["template"]["lip gap"].slope == pytest.approx(0.8)


def test_what_the_reader_loses_is_taken_out_where_pictures_were_read(face: np.ndarray) -> None:
    driver, half = (_moved(face, CHANGES["mouth width"], amount) for amount in (1.0, 0.5))
    stages = {"retargeted": Measured.of(half), "result": Measured.of(half, from_pictures=True)}
    known = Reader({"mouth width": 0.5}, {"mouth width": 0.02})
    found = follow_rows(Measured.of(driver), stages, known)["follow"]
    result, mesh = (found[stage]["mouth width"] for stage in ("result", "retargeted"))
    assert (result["reader_slope"], mesh["reader_slope"]) == (0.5, None)
    assert result["slope"] == pytest.approx(0.5, abs=0.01)
    assert result["corrected_slope"] == pytest.approx(1.0, abs=0.02)
    assert mesh["corrected_slope"] is None
    assert Follow.of_row(result).corrected_slope == pytest.approx(1.0, abs=0.02)
    assert (result["reader_noise"], mesh["reader_noise"]) == (0.02, None)
    assert mesh["highest_correlation"] == 1.0


def test_the_highest_correlation_is_that_of_a_copy_read_with_the_readers_noise() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.02, 4000)
    driver, ok = {"brows' difference": x} | _OPEN_EYES, np.ones(len(x), bool)
    read = {"brows' difference": x + rng.normal(0, 0.015, len(x))} | _OPEN_EYES
    one = follow(driver, read, ok, Reader(noise={"brows' difference": 0.015}))["brows' difference"]
    assert one.correlation == pytest.approx(one.highest_correlation, abs=0.01)
    assert one.correlation_shortfall < 0.15
    assert replace(one, reader_noise=None).correlation_shortfall > 1.5


_OPEN_EYES = {lid: np.full(4000, 0.3) for lid in ("lid right", "lid left")}


def _region(
    slope: float,
    correlation: float = 1.0,
    reader_slope: float | None = None,
    reader_noise: float | None = None,
) -> Follow:
    return Follow(0.1, correlation, slope, 0.01, reader_slope, reader_noise)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (_region(0.9), _region(0.8)),
        (_region(1.8), _region(0.5)),  # the scale is logarithmic
        (_region(0.6), _region(2.0)),
        (_region(0.5), _region(-0.9, -1.0)),
        (_region(0.3), _region(0.0, 0.0)),
        (_region(0.87), _region(1.0, 0.85)),  # a correlation below .9
        (_region(1.0, 0.85), _region(0.5)),
        (_region(0.5, reader_slope=0.5), _region(0.7)),  # what the reader lost is no fault
        (_region(0.9, reader_slope=0.3), _region(0.8)),  # nor is what it may not have lost
        (_region(1.3, reader_slope=0.3), _region(1.4)),
        (_region(0.8, reader_slope=0.9), _region(0.3, reader_slope=0.5)),
        (_region(1.0, 0.7, reader_noise=0.1), _region(1.0, 0.95)),  # what is noise is no fault
    ],
)
def test_the_region_that_follows_worst(better: Follow, worse: Follow) -> None:
    assert worst_region({"one": better, "other": worse}) == "other"
    assert worst_region({"other": worse, "one": better}) == "other"


@pytest.mark.parametrize(
    ("slope", "reader_slope", "best"),
    [
        (0.3, 0.5, 0.6),  # what the reader loses at most does not explain it
        (0.63, 0.5, 1.0),  # it does: the truth lies between 0.63 and 1.26
        (1.4, 0.5, 1.4),  # a reader that loses does not exaggerate
        (1.4, 1.25, 1.12),  # one that adds does
        (1.2, 1.5, 1.0),
        (0.8, 1.25, 0.8),
        (0.6, None, 0.6),
        (-0.2, 0.5, -0.2),
        (0.0, 0.5, 0.0),
    ],
)
def test_the_best_slope_is_the_nearest_to_1_that_the_reader_allows(
    slope: float, reader_slope: float | None, best: float
) -> None:
    assert _region(slope, reader_slope=reader_slope).best_slope == pytest.approx(best)


def _lips(face: np.ndarray, height: list[float], teeth: list[float]) -> Measured:
    """The first frames of a face, with what colours say of its lips."""
    points = face[: len(height)].copy()
    points[:, 13] = points[:, 14]  # the landmarks say that the lips meet
    return Measured.of(points, from_pictures=True).with_regions(
        {MOUTH_OPEN: np.array(height), TEETH_SHOWN: np.array(teeth)}
    )


def test_what_colours_say_is_compared_where_there_are_pictures(face: np.ndarray) -> None:
    driver, result = (
        _lips(face, [0, 0, 0.1 * part, 0.2 * part], [0, 0.01 * part, 0, 0.03]) for part in (1, 0.5)
    )
    found = follow_stages(driver, {"fit": Measured.of(face[:4]), "result": result}, Reader({MOUTH_OPEN: 0.8}))
    assert found["fit"] == {}
    assert set(found["result"]) == {MOUTH_OPEN, TEETH_SHOWN}
    assert found["result"][MOUTH_OPEN].slope == pytest.approx(0.5)
    assert found["result"][MOUTH_OPEN].corrected_slope == pytest.approx(0.625)
    assert set(driver.regions) - set(Measured.of(face).regions) == {MOUTH_OPEN, TEETH_SHOWN}


def test_specks_between_closed_lips_are_no_movement(face: np.ndarray) -> None:
    still = _lips(face, [0, 0, 0.02, 0, 0, 0], [0, 0.004, 0, 0, 0, 0])
    assert follow(still.regions, still.regions, np.ones(6, bool)) == {}


def test_lips_are_closed_where_colours_and_the_drivers_landmarks_say_so(face: np.ndarray) -> None:
    unseen = float("nan")
    driver = _lips(face, [0.0, 0.005, 0.0, 0.0, 0.3, unseen, 0.0], [0] * 7)
    driver.regions["lip gap"][3] = 0.1  # a tongue of the lips' colour: landmarks know better
    result = _lips(face, [0.0, 0.2, unseen, 0.0, 0.0, 0.0, 0.02], [0] * 7)
    result.regions["lip gap"][0] = 0.1  # of a painted mouth they do not
    assert count_closed_lips(driver, result) == {"driver_frames": 3, "result_frames": 1}
    some = np.array([1, 6])
    part = Measured({name: values[some] for name, values in result.regions.items()}, some)
    assert count_closed_lips(driver, part) == {"driver_frames": 2, "result_frames": 0}
    assert count_closed_lips(driver, None) == {"driver_frames": 0, "result_frames": 0}


def test_without_regions_none_is_worst() -> None:
    assert worst_region({}) is None


@pytest.mark.parametrize("follows", [_region(0.85), _region(1 / 0.85), _region(1.0, 0.9)])
def test_a_shortfall_of_one_is_the_most_that_passes(follows: Follow) -> None:
    assert follows.shortfall == pytest.approx(1.0)


@pytest.mark.parametrize(("count", "most"), [(5, 120), (120, 120), (1000, 120), (121, 120)])
def test_frames_are_spread_evenly(count: int, most: int) -> None:
    frames = 3 * np.arange(count)
    chosen = spread_evenly(frames, most)
    assert len(chosen) == min(count, most)
    assert (chosen[0], chosen[-1]) == (frames[0], frames[-1])
    assert np.isin(chosen, frames).all()
    assert np.diff(chosen).min() > 0
    assert np.ptp(np.diff(chosen)) <= 3  # by one frame at most


def _track(head: MorphableHead, expression: np.ndarray, rotations: np.ndarray) -> FaceTrack:
    count = len(expression)
    return FaceTrack(
        shape=np.linspace(-1, 1, head.n_shape).astype(np.float32),
        expression=expression.astype(np.float32),
        jaw=np.repeat(np.array([[0.1, 0, 0]], np.float32), count, axis=0),
        rotation=rotations.astype(np.float32),
        crop_center_px=np.linspace((200, 150), (500, 300), count).astype(np.float32),
        crop_side_px=np.linspace(180, 420, count).astype(np.float32),
        cameras=labels_from_rotations(rotations),
        fit_error=np.zeros(count, np.float32),
        ok=np.ones(count, bool),
    )


def test_pose_place_and_size_do_not_matter(head: MorphableHead) -> None:
    """One head in ten poses, seen in perspective and lifted, has the measures of the head itself."""
    angles = np.linspace((-35, -20, -40), (35, 20, 40), 10)[:, [1, 0, 2]]
    rotations = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    expression = np.zeros((10, head.n_expression))
    for name in ("mouthSmileLeft", "browInnerUp", "eyeLookOutLeft"):
        expression[:, head.index(name)] = 0.7
    track = _track(head, expression, rotations)
    own = head_landmarks(head, track.shape, track.expression, track.jaw)
    rows = zip(track.rotation, track.crop_center_px, track.crop_side_px, own, strict=True)
    seen = [
        Pose(turn.astype(float), center.astype(float), float(side)).project(points)
        for turn, center, side, points in rows
    ]
    pixels = np.stack(seen)
    pixels[4] = np.nan
    lifted = measure_regions(lift_clip(head, pixels, track))
    flat = measure_regions(pixels * [1, -1])
    for name, wanted in measure_regions(own).items():
        assert np.isnan(lifted[name][4])
        np.testing.assert_allclose(np.delete(lifted[name], 4), wanted[0], atol=1e-3, err_msg=name)
    assert np.nanstd(flat["mouth width"]) > 0.02  # what is seen changes with the pose


def test_meshes_are_decoded_a_few_at_a_time_and_come_out_the_same(head: MorphableHead) -> None:
    rng = np.random.default_rng(0)
    expression, jaw = rng.random((37, head.n_expression)), np.zeros((37, 3))
    jaw[:, 0] = rng.random(37) * 0.3
    shape = rng.standard_normal(head.n_shape)
    found = head_landmarks(head, shape, expression, jaw)
    assert found.shape == (37, 478, 3)
    for i in (0, 16, 36):
        alone = head_landmarks(head, shape, expression[i : i + 1], jaw[i : i + 1])[0]
        np.testing.assert_allclose(found[i], alone, atol=1e-6)
