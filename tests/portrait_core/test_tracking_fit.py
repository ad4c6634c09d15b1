"""The landmark fit on heads whose pose, shape and expression are known, and on a real clip."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from portrait_core.cameras import angles_from_labels, degrees, orbit_labels, project_to_crop
from portrait_core.errors import InputError
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.head_points import HeadPoints
from portrait_core.media import read_frames
from portrait_core.runtime.package_files import data_file, data_folder
from portrait_core.settings import TrackingSettings
from portrait_core.template.lids import LidModel
from portrait_core.template.retarget import Driver, retarget
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.measure import measure
from portrait_core.tracking.projection import Pose, pose_from_points
from portrait_core.tracking.quadratic import solve_bounded
from portrait_core.tracking.terms import lid_ratios
from portrait_core.tracking.track import track_frames, track_image

QUICK = TrackingSettings(shape_frames=8)
CENTER, SIDE = np.array([300.0, 200.0]), 400.0


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load(data_file("models/embedded_head.safetensors"))


def _landmarks(
    head: MorphableHead,
    expression: Mapping[str, float] | None = None,
    degrees_: tuple[float, float, float] = (0.0, 0.0, 0.0),
    shape: np.ndarray | None = None,
) -> np.ndarray:
    """Landmarks ``[478,2]`` of a decoded head seen through the label of (yaw, pitch, roll)."""
    code = torch.zeros(1, head.n_expression)
    for name, value in (expression or {}).items():
        code[0, head.index(name)] = value
    beta = torch.zeros(1, head.n_shape) if shape is None else torch.from_numpy(shape[None]).float()
    vertices = head.decode(beta, code, head.jaw_from_expression(code))
    label = torch.from_numpy(orbit_labels(*np.radians(degrees_)))
    pixels = project_to_crop(label, head.to_box(head.landmarks(vertices)), 1)[0, :, :2].numpy()
    return CENTER + SIDE * (pixels - 0.5)


def _fit(head: MorphableHead, landmarks: np.ndarray, **options: Any) -> FaceTrack:
    return fit_clip(head, landmarks, np.ones(len(landmarks), bool), QUICK, **options)


def _mesh_pixels(head: MorphableHead, track: FaceTrack) -> np.ndarray:
    """The fitted mesh's own landmarks ``[T,478,2]`` in pixels of the frame, through its labels."""
    shape = torch.from_numpy(track.shape[None])
    vertices = head.decode(shape, torch.from_numpy(track.expression), torch.from_numpy(track.jaw))
    pixels = project_to_crop(torch.from_numpy(track.cameras), head.to_box(head.landmarks(vertices)), 1)
    return track.crop_center_px[:, None] + track.crop_side_px[:, None, None] * (pixels[..., :2].numpy() - 0.5)


ANGLES = [
    (0, 0, 0),
    (20, 0, 0),
    (-30, 5, 0),
    (0, 15, 0),
    (0, -20, 0),
    (0, 0, 35),
    (25, -15, -40),
    (40, 0, 10),
]


@pytest.mark.parametrize("angles", ANGLES)
def test_known_angles_come_back(head: MorphableHead, angles: tuple[float, float, float]) -> None:
    track = _fit(head, _landmarks(head, degrees_=angles)[None])
    np.testing.assert_allclose(degrees(angles_from_labels(track.cameras))[0], angles, atol=2.0)
    np.testing.assert_allclose(track.crop_center_px[0], CENTER, atol=0.015 * SIDE)
    assert track.crop_side_px[0] == pytest.approx(SIDE, rel=0.02)
    assert track.fit_error[0] < 0.015


def test_yaw_is_the_cameras_so_the_head_turned_to_its_left_has_negative_yaw(head: MorphableHead) -> None:
    # the subject's left is the image's right: a head turned there shows its nose right of its eyes' middle
    points = _landmarks(head, degrees_=(-25, 0, 0))
    assert points[1, 0] > (points[33, 0] + points[263, 0]) / 2
    assert angles_from_labels(_fit(head, points[None]).cameras)[0, 0] < 0


def test_labels_and_rotations_agree_and_jaw_follows_the_expression(head: MorphableHead) -> None:
    track = _fit(head, _landmarks(head, {"jawOpen": 0.7}, (10, 5, 3))[None])
    np.testing.assert_allclose(
        track.cameras[0, :16].reshape(4, 4)[:3, :3] @ np.diag([1, -1, -1]), track.rotation[0].T, atol=1e-6
    )
    expected = head.jaw_from_expression(torch.from_numpy(track.expression)).numpy()
    np.testing.assert_allclose(track.jaw, expected, atol=1e-6)
    assert track.expression.shape == (1, 52)
    assert 0 <= track.expression.min() <= track.expression.max() <= 1


RECOVERED = [
    ({"jawOpen": 0.7}, 0.12),
    ({"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, 0.2),
    ({"eyeBlinkLeft": 0.9}, 0.15),
    ({"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6}, 0.2),
    ({"eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6}, 0.15),
    ({"eyeLookUpLeft": 0.6, "eyeLookUpRight": 0.6}, 0.25),
    ({"browInnerUp": 0.8}, 0.35),
]


@pytest.mark.parametrize(("expression", "tolerance"), RECOVERED)
def test_an_expression_in_one_frame_of_a_clip_comes_back(
    head: MorphableHead, expression: Mapping[str, float], tolerance: float
) -> None:
    rest, moved = (_landmarks(head, e, (10, 0, 5)) for e in ({}, expression))
    clip = np.stack([rest] * 8 + [moved] + [rest] * 7)
    track = _fit(head, clip)
    change = track.expression[8] - track.expression[0]
    for name, value in expression.items():
        assert change[head.index(name)] == pytest.approx(value, abs=tolerance), name
    shut = expression.get("eyeBlinkRight") == 1.0  # which does not show where the eyes look
    others = [
        i
        for i, name in enumerate(head.expression_names)
        if name not in expression and not (shut and name.startswith("eyeLook"))
    ]
    assert np.abs(change[others]).max() < 0.35
    # and one frame later it is over
    assert np.abs(track.expression[10] - track.expression[0]).max() < 0.05


def test_a_single_closed_frame_stays_closed_under_smoothing(head: MorphableHead) -> None:
    closed = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
    clip = np.stack([_landmarks(head)] * 7 + [_landmarks(head, closed)] + [_landmarks(head)] * 6)
    strong = TrackingSettings(shape_frames=8, smooth_expression=1.0, smooth_pose=1.0)
    track = fit_clip(head, clip, np.ones(14, bool), strong)
    blink = track.expression[:, head.index("eyeBlinkLeft")]
    assert blink[7] > 0.75
    assert np.delete(blink, 7).max() < 0.1


def test_narrow_eyes_are_not_half_blinks(head: MorphableHead) -> None:
    """They are fitted as narrow as they are, and leave the eyes of a portrait that they drive as open as its
    own."""
    narrow = {"eyeBlinkLeft": 0.3, "eyeBlinkRight": 0.3}
    closed = {"eyeBlinkLeft": 0.7, "eyeBlinkRight": 0.7}  # as networks read it: a gap that is none
    clip = np.stack(
        [_landmarks(head, narrow)] * 10 + [_landmarks(head, closed)] + [_landmarks(head, narrow)] * 5
    )
    track, lids, own = _fit(head, clip), LidModel.of(head), np.zeros(head.n_expression)
    read = np.array([lid_ratios(landmarks) for landmarks in clip])
    assert lids.opening(track.shape, track.expression)[:10] == pytest.approx(read[:10], abs=0.03)
    driver = Driver(track.shape, track.expression, track.ok)
    made, _ = retarget(head, driver, np.zeros(head.n_shape), own)
    opening = lids.opening(np.zeros(head.n_shape), made)
    still = lids.opening(np.zeros(head.n_shape), own[None])
    assert np.delete(opening, 10, axis=0) == pytest.approx(np.repeat(still, 15, axis=0), abs=0.02)
    assert opening[10] == pytest.approx(lids.shut(np.zeros(head.n_shape)), abs=0.02)


def test_shape_comes_back_better_than_the_mean_head(head: MorphableHead) -> None:
    shape = np.random.default_rng(0).normal(size=head.n_shape).astype(np.float32)
    views = [(yaw, pitch, 0.0) for yaw in (-25, 0, 25) for pitch in (-10, 10)]
    track = _fit(head, np.stack([_landmarks(head, degrees_=view, shape=shape) for view in views]))
    face = head.mask("face").numpy() > 0.5

    def normalised(code: np.ndarray) -> np.ndarray:
        vertices = head.decode(torch.from_numpy(code[None]).float(), torch.zeros(1, 52))[0].numpy()[face]
        vertices = vertices - vertices.mean(axis=0)
        return vertices / np.sqrt((vertices**2).sum(axis=1).mean())

    truth = normalised(shape)
    fitted = np.linalg.norm(normalised(track.shape) - truth, axis=1).mean()
    mean = np.linalg.norm(normalised(np.zeros_like(shape)) - truth, axis=1).mean()
    assert fitted < 0.85 * mean


def test_a_given_shape_is_held(head: MorphableHead) -> None:
    shape = np.random.default_rng(1).normal(size=head.n_shape).astype(np.float32) * 0.5
    track = _fit(head, _landmarks(head, shape=shape)[None], shape=shape)
    np.testing.assert_array_equal(track.shape, shape)
    with pytest.raises(ValueError, match="shape"):
        _fit(head, _landmarks(head)[None], shape=np.zeros(3))


def test_frames_without_a_face_are_held_from_the_nearest(head: MorphableHead) -> None:
    clip = np.stack([_landmarks(head, degrees_=(yaw, 0, 0)) for yaw in (0, 5, 10, 15, 20)])
    ok = np.array([False, True, False, False, True])
    clip[~ok] = np.nan
    track = fit_clip(head, clip, ok, QUICK)
    assert track.ok.tolist() == ok.tolist()
    for frame, source in ((0, 1), (2, 1), (3, 4)):
        np.testing.assert_array_equal(track.cameras[frame], track.cameras[source])
        np.testing.assert_array_equal(track.expression[frame], track.expression[source])
        assert np.isnan(track.fit_error[frame])
    for field in fields(track):
        assert field.name in ("shape", "ok") or len(getattr(track, field.name)) == 5


def test_clips_without_any_face_and_wrong_arrays_are_refused(head: MorphableHead) -> None:
    with pytest.raises(InputError, match="no face"):
        fit_clip(head, np.full((3, 478, 2), np.nan), np.zeros(3, bool))
    with pytest.raises(ValueError, match=r"\[T,478,2\]"):
        fit_clip(head, np.zeros((3, 68, 2)), np.ones(3, bool))
    with pytest.raises(ValueError, match="not finite"):
        fit_clip(head, np.full((1, 478, 2), np.nan), np.ones(1, bool))


def test_the_model_of_the_fit_moves_as_the_head_decodes(head: MorphableHead) -> None:
    rng = np.random.default_rng(2)
    points = HeadPoints.from_head(head)
    shape, expression = rng.normal(size=50), rng.uniform(0, 1, 52)
    code = torch.from_numpy(expression[None]).float()
    vertices = head.decode(torch.from_numpy(shape[None]).float(), code, head.jaw_from_expression(code))
    rest = head.decode(torch.zeros(1, 50), torch.zeros(1, 52))
    moved = (head.landmarks(vertices) - head.landmarks(rest))[0].numpy() / head.box_unit_m
    mine = points.with_shape(shape).points(expression) - points.rest
    np.testing.assert_allclose(mine, moved, atol=1e-4)


def test_derivatives_match_differences(head: MorphableHead) -> None:
    rng = np.random.default_rng(3)
    points = HeadPoints.from_head(head)
    shape, expression = rng.normal(size=50), rng.uniform(0.1, 0.9, 52)
    shaped = points.with_shape(shape)
    pose = Pose(np.linalg.qr(rng.normal(size=(3, 3)))[0], np.array([10.0, 20.0]), 300.0)
    itself = np.tile(np.eye(3), (478, 1, 1))
    derivative = shaped.by_expression(itself, expression)
    tiny = 1e-6
    for unit in (0, points.names.index("jawOpen"), points.names.index("mouthSmileLeft")):
        step = tiny * np.eye(52)[unit]
        slope = (shaped.points(expression + step) - shaped.points(expression - step)) / (2 * tiny)
        np.testing.assert_allclose(derivative[..., unit], slope, atol=1e-7)
    basis = points.by_shape(itself, float(expression[points.names.index("jawOpen")]))
    moved = points.with_shape(shape + tiny * np.eye(50)[4]).points(expression)
    np.testing.assert_allclose(basis[..., 4], (moved - shaped.points(expression)) / tiny, atol=1e-6)
    box = shaped.points(expression)
    by_pose = pose.pose_derivative(box, pose.pixel_derivative(box))
    for k in range(6):
        step = tiny * np.eye(6)[k]
        slope = (pose.moved(step).project(box) - pose.moved(-step).project(box)) / (2 * tiny)
        np.testing.assert_allclose(by_pose[..., k], slope, atol=1e-4)


def test_the_first_pose_is_close_for_any_roll(head: MorphableHead) -> None:
    points = HeadPoints.from_head(head)
    for roll in (-170, -90, 0, 60, 135):
        pixels = _landmarks(head, degrees_=(15, -10, roll))
        pose = pose_from_points(points.rest[:468], pixels[:468], points.weight[:468])
        error = np.linalg.norm(pose.project(points.rest[:468]) - pixels[:468], axis=1).mean()
        assert error < 0.02 * SIDE


def test_bounded_steps_satisfy_the_optimality_conditions() -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        factor = rng.normal(size=(12, 9))
        matrix, gradient = factor.T @ factor + 0.1 * np.eye(9), 3 * rng.normal(size=9)
        lower, upper = -rng.uniform(0, 0.3, 9), rng.uniform(0, 0.3, 9)
        lower[:2], upper[:2] = -np.inf, np.inf
        x = solve_bounded(matrix, gradient, lower, upper)
        slope = matrix @ x + gradient
        assert (x >= lower - 1e-12).all()
        assert (x <= upper + 1e-12).all()
        inside = (x > lower + 1e-9) & (x < upper - 1e-9)
        np.testing.assert_allclose(slope[inside], 0, atol=1e-8)
        assert (slope[x <= lower + 1e-9] >= -1e-8).all()
        assert (slope[x >= upper - 1e-9] <= 1e-8).all()


def test_a_real_clip_through_the_whole_chain(head: MorphableHead, carphone: Path) -> None:
    landmarker = FaceLandmarker.from_models(data_folder() / "models")
    frames = (frame for i, frame in enumerate(read_frames(carphone, 30, 102)) if i % 3 == 0)
    found, track = track_frames(landmarker, head, frames, TrackingSettings(batch=7, shape_frames=8))
    assert found.ok.all()
    assert len(track.ok) == 24
    assert np.nanmax(track.fit_error) < 0.05
    seen, mesh = measure(found.points), measure(_mesh_pixels(head, track))
    for name, lowest, highest in (("lip_gap", 0.9, 1.3), ("eye_opening", 0.7, 1.5)):
        slope = np.polyfit(seen[name], mesh[name], 1)[0]
        assert np.corrcoef(seen[name], mesh[name])[0, 1] > 0.9, name
        assert lowest < slope < highest, name
    blink = track.expression[:, [head.index("eyeBlinkLeft"), head.index("eyeBlinkRight")]].mean(axis=1)
    assert blink.argmax() == 4  # frame 42
    assert blink[4] > 0.65
    assert np.median(blink) < 0.15
    jaw = track.expression[:, head.index("jawOpen")]
    assert np.corrcoef(jaw, seen["lip_gap"])[0, 1] > 0.95
    roll = degrees(angles_from_labels(track.cameras))[:, 2]
    eyes = found.points[:, 263] - found.points[:, 33]
    # the eye line falls to the image's right where the head leans clockwise
    assert np.corrcoef(roll, np.arctan2(eyes[:, 1], eyes[:, 0]))[0, 1] > 0.9


def test_one_image_through_the_whole_chain(head: MorphableHead) -> None:
    import skimage.data

    landmarker = FaceLandmarker.from_models(data_folder() / "models")
    found, track = track_image(landmarker, head, skimage.data.astronaut())
    mesh = _mesh_pixels(head, track)
    eyes = np.linalg.norm(found.points[0, 33] - found.points[0, 263])
    assert np.linalg.norm(mesh - found.points, axis=2)[0, :468].mean() < 0.035 * eyes
    assert track.expression[0, head.index("mouthSmileLeft")] > 0.3
    with pytest.raises(InputError, match="no face"):
        track_image(landmarker, head, skimage.data.chelsea())
    with pytest.raises(ValueError, match="no frames"):
        track_frames(landmarker, head, [])
