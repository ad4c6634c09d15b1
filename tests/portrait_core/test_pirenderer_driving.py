"""What drives PIRenderer: rows, windows, the paper's variants, the animator, and the square it sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import Tensor, nn

from portrait_core.baselines import crops
from portrait_core.baselines import pirenderer_windows as windows
from portrait_core.baselines.pirenderer import PIRenderer
from portrait_core.baselines.pirenderer_animator import PIRendererAnimator, PIRendererOptions
from portrait_core.baselines.pirenderer_eyes import eye_part, eye_part_from_file, eye_vertices, without_eyes
from portrait_core.cameras import orbit_labels
from portrait_core.cameras.eg3d import deep3d_angles_from_labels, labels_from_deep3d
from portrait_core.errors import InputError, ModelFileError
from portrait_core.tracking.five_points import STANDARD_FACE
from portrait_core.weights.readers.mat_files import BfmArrays, read_bfm
from tests import official_files
from tests.portrait_core import pirenderer_parts as parts

COLUMNS = [*range(80, 144), 224, 225, 226, *range(254, 260)]


def test_windows_by_hand() -> None:
    rows = np.arange(5.0)[:, None] * 1000 + np.arange(260.0)[None]
    made = windows.windows(rows, [0, 3])
    assert made.shape == (2, 73, 27)
    assert made.dtype == np.float32
    assert made[0, :, 0].tolist() == COLUMNS  # the first frame is repeated before the clip
    for frame, window in zip((0, 3), made, strict=True):
        times = [min(max(frame + i, 0), 4) for i in range(-13, 14)]
        assert (window - np.array(COLUMNS)[:, None] == 1000 * np.array(times)).all()
    assert windows.windows(rows, [2], radius=1)[0, 0].tolist() == [1080, 2080, 3080]
    assert windows.windows(rows, []).shape == (0, 73, 27)


def test_a_single_picture_is_repeated_and_its_width_and_height_are_left_out() -> None:
    row = windows.row_of_picture_file(np.arange(262.0))
    (window,) = windows.windows(row, [0])
    assert window[:, 0].tolist() == [*COLUMNS[:-3], 259, 260, 261]
    assert (window == window[:, :1]).all()
    with pytest.raises(ValueError, match="262 numbers, got 260"):
        windows.row_of_picture_file(np.arange(260.0))


def test_wrong_rows_are_refused() -> None:
    for wrong in (np.zeros((2, 257)), np.zeros(260), np.zeros((0, 260))):
        with pytest.raises(ValueError, match=r"rows must be \[T,260\]"):
            windows.windows(wrong, [0])
    with pytest.raises(ValueError, match="not finite"):
        windows.windows(np.full((2, 260), np.nan), [0])
    for frame in (-1, 2):
        with pytest.raises(ValueError, match="not all in a clip of 2 frames"):
            windows.windows(np.zeros((2, 260)), [0, frame])


def test_the_crop_scale_is_compared_at_the_frame_that_is_most_like_the_source() -> None:
    rows, source = np.zeros((3, 260)), np.zeros((1, 260))
    rows[:, 257], source[0, 257] = (0.5, 0.8, 1.0), 1.2
    rows[0, 80:144] = 1.0  # 0.3 away
    rows[1, 224] = 1.2  # 0.7 * 1.2 / 3 = 0.28 away
    rows[2, 80:144], rows[2, 224:227] = 0.5, 0.3  # 0.15 + 0.21 = 0.36 away
    assert windows.crop_ratio(rows, source) == pytest.approx(1.5)
    fitted = windows.fitted_to(rows, source)
    assert fitted[:, 257] == pytest.approx([0.75, 1.2, 1.5])
    assert (np.delete(fitted, 257, 1) == np.delete(rows.astype(np.float32), 257, 1)).all()


def test_without_pose_only_expressions_move() -> None:
    rows, source = parts.rows(4), parts.rows(1, seed=9)
    made = windows.without_pose(rows, source)
    standing = [*range(224, 227), *range(254, 260)]
    assert (made[:, standing] == source[:, standing]).all()
    assert (np.delete(made, standing, 1) == np.delete(rows, standing, 1)).all()


def _face(shared: bool = False) -> BfmArrays:
    """A face of 40 vertices: both eyes (6 landmarks each, with a seventh vertex between them), and others.

    The first half of the expression moves the eyes alone, the second the others alone; ``shared`` lets the
    first coefficient move all.
    """
    rng = np.random.default_rng(0)
    ring = 0.1 * np.stack([np.cos(np.arange(6)), np.sin(np.arange(6)), np.zeros(6)], 1)
    left, right = ring + np.array([-0.5, 0.5, 0]), ring + np.array([0.5, 0.5, 0])
    points = np.concatenate(
        [left, right, [[-0.5, 0.5, 0.0], [0.5, 0.5, 0.0]], rng.normal(size=(26, 3)) - [0, 5, 0]]
    )
    expression = rng.normal(size=(40, 3, 64))
    expression[:14, :, 32:] = 0
    expression[14:, :, int(shared) : 32] = 0
    keypoints = np.full(68, 20)
    keypoints[36:48] = np.arange(12)
    empty = np.zeros((40, 3, 80))
    faces = np.array([[0, 1, 2]])
    return BfmArrays(points, empty, expression, points, empty, faces, np.ones((40, 8), np.int64), keypoints)


def test_without_eyes_the_eyes_stay_as_in_the_first_frame() -> None:
    face, rows = _face(), parts.rows(4)
    assert np.flatnonzero(eye_vertices(face)).tolist() == list(range(14))
    made = without_eyes(rows, eye_part(face))
    assert made[:, 80:112] == pytest.approx(np.tile(rows[:1, 80:112], (4, 1)), abs=1e-3)
    assert made[:, 112:144] == pytest.approx(rows[:, 112:144], abs=1e-3)
    assert (np.delete(made, range(80, 144), 1) == np.delete(rows, range(80, 144), 1)).all()
    assert made[0] == pytest.approx(rows[0])


def test_a_coefficient_that_moves_both_is_the_least_squares_of_both() -> None:
    face, rows = _face(shared=True), parts.rows(2)
    made = without_eyes(rows, eye_part(face))[1, 80:144].astype(float)
    eyes = eye_vertices(face)

    def distance(expression: np.ndarray) -> float:
        moved = [face.expression @ (expression - rows[i, 80:144]) for i in (0, 1)]
        return float((moved[0][eyes] ** 2).sum() / eyes.sum() + (moved[1][~eyes] ** 2).sum() / (~eyes).sum())

    rng = np.random.default_rng(1)
    least = distance(made)
    assert least < 0.5 * min(distance(rows[0, 80:144]), distance(rows[1, 80:144]))
    assert all(distance(made + 0.01 * rng.normal(size=64)) > least for _ in range(20))


def test_without_the_basel_face_the_variant_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path))
    options = PIRendererOptions(without_eyes=True)
    with pytest.raises(ValueError, match="needed to hold the eyes still") as caught:
        PIRendererAnimator(parts.network(), parts.picture(), parts.rows(1), parts.rows(3), options)
    with pytest.raises(ModelFileError) as missing:
        eye_part_from_file()
    for said in (str(caught.value), str(missing.value)):
        for words in (
            "BFM_model_front.mat",
            "faces.dmi.unibas.ch",
            "Basel Face Model",
            "`portrait models check",
        ):
            assert words in said
    path = tmp_path / "BFM_model_front.mat"
    arrays = official_files.write_bfm(path)  # its landmarks lie anywhere
    with pytest.raises(ModelFileError, match=r"BFM_model_front\.mat.*landmarks are not those of a face"):
        eye_part_from_file()
    arrays["keypoints"][0, 36:48] = np.repeat([1, 2], 6) + np.tile([0, 2, 4], 4)
    savemat(path, arrays)
    assert (eye_part_from_file() == eye_part(read_bfm(path))).all()


@pytest.fixture(scope="module")
def network() -> PIRenderer:
    return parts.network()


def animator(network: PIRenderer, **options: object) -> PIRendererAnimator:
    chosen = PIRendererOptions(**options)  # type: ignore[arg-type]  # named by the tests
    return PIRendererAnimator(
        network, parts.picture(), parts.rows(1, seed=9), parts.rows(6), chosen, eye_part(_face())
    )


def test_frames_are_drawn_equally_in_any_order_and_grouping(network: PIRenderer) -> None:
    one = animator(network)
    assert (one.source == parts.picture()).all()
    whole = one.animate(range(6))
    assert whole.shape == (6, 24, 24, 3)
    assert whole.dtype == np.uint8
    assert whole[1:].astype(int) - whole[:-1] != pytest.approx(0)
    assert (one.animate([5, 0, 3]) == whole[[5, 0, 3]]).all()
    assert (np.concatenate([one.animate([i]) for i in range(6)]) == whole).all()
    assert one.animate([]).shape == (0, 24, 24, 3)


def test_the_network_gets_the_picture_and_windows_of_the_variant(network: PIRenderer) -> None:
    rows, own = parts.rows(6), parts.rows(1, seed=9)
    fitted = windows.fitted_to(rows, own)
    part = eye_part(_face())
    for options, driving in (
        ({}, fitted),
        ({"cross_identity": False}, rows),
        ({"without_pose": True}, windows.without_pose(rows, own)),
        ({"without_eyes": True}, without_eyes(fitted, part)),
        ({"without_eyes": True, "without_pose": True}, windows.without_pose(without_eyes(rows, part), own)),
    ):
        one = animator(network, **options)
        wanted = windows.windows(driving, range(6))
        assert (one.windows(range(6)) == wanted).all()
        image = torch.from_numpy(parts.picture()).permute(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            drawn = network(image, torch.from_numpy(wanted[2:3])).image[0]
        got = one.animate([2])[0].astype(float)
        assert np.abs(got - (127.5 * (drawn + 1)).permute(1, 2, 0).numpy()).max() < 0.51


def test_cameras_take_the_place_of_the_drivers_poses(network: PIRenderer) -> None:
    own, angles = parts.rows(1, seed=9)[0], np.array([[0.1, -0.4, 0.2], [0.0, 0.3, 0.0]])
    cameras = list(labels_from_deep3d(angles, np.zeros((2, 3))))
    one = animator(network)
    made = one.windows([1, 4], cameras)
    assert made[:, 64:67] == pytest.approx(np.repeat(angles[:, :, None], 27, 2), abs=1e-6)
    assert (made[:, :64] == one.windows([1, 4])[:, :64]).all()
    assert (made[:, 67:] == own[254:260][None, :, None]).all()
    assert (one.animate([1, 4], cameras) != one.animate([1, 4])).any()
    assert (one.animate([4], cameras[1:]) == one.animate([1, 4], cameras)[1:]).all()
    with pytest.raises(ValueError, match="one camera label"):
        one.animate([1, 4], cameras[:1])


def test_wrong_parts_are_refused(network: PIRenderer) -> None:
    rows = parts.rows(2)
    for picture in (
        parts.picture(20),
        parts.picture()[:, :16],
        parts.picture() / 255,
        parts.picture()[..., 0],
    ):
        with pytest.raises(ValueError, match=r"\[S,S,3\] uint8 with S a multiple of 8"):
            PIRendererAnimator(network, picture, rows[0], rows)  # type: ignore[arg-type]  # one is no uint8
    with pytest.raises(ValueError, match=r"rows must be \[T,260\]"):
        PIRendererAnimator(network, parts.picture(), rows[0, :257], rows)
    with pytest.raises(ValueError, match="at least 1 frame"):
        PIRendererAnimator(network, parts.picture(), rows[0], rows, PIRendererOptions(batch=0))
    with pytest.raises(ValueError, match="not all in a clip"):
        animator(network).animate([6])


def test_angles_of_cameras_are_those_they_were_made_of() -> None:
    angles = np.random.default_rng(2).uniform(-1.2, 1.2, (20, 3))
    trans = np.random.default_rng(3).normal(size=(20, 3))
    for mode in ("orig", "cor"):
        labels = labels_from_deep3d(angles, trans, mode)
        assert deep3d_angles_from_labels(labels) == pytest.approx(angles)
    assert deep3d_angles_from_labels(orbit_labels(0.0, 0.0)) == pytest.approx(np.zeros((1, 3)), abs=1e-7)
    seen_from_the_side = deep3d_angles_from_labels(orbit_labels(0.3, 0.0))[0]
    assert np.abs(seen_from_the_side) == pytest.approx([0, 0.3, 0], abs=1e-6)
    assert deep3d_angles_from_labels(np.zeros((0, 25))).shape == (0, 3)
    with pytest.raises(ValueError, match=r"\[n,25\]"):
        deep3d_angles_from_labels(np.zeros(25))


class _Regressor(nn.Module):
    """Stands in for Deep3DFaceRecon's: 257 times the mean of the crop."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 224, 224)
        self.batches.append(len(images))
        return self.factor * images.mean((1, 2, 3))[:, None].expand(-1, 257)


def _landmarks(center: tuple[float, float], unit: float) -> np.ndarray:
    """Landmarks ``[478,2]`` of the standard face, ``unit`` pixels to its unit, at ``center`` (y up)."""
    five = STANDARD_FACE[:, :2] * unit + center
    five[:, 1] = 255 - five[:, 1]  # centres at integers, y down
    out = np.zeros((478, 2))
    for marks, place in (((33, 133), five[0]), ((362, 263), five[1]), ((4,), five[2])):
        out[list(marks)] = place
    out[[61, 291]] = five[3:]
    return out + 0.5


def test_rows_of_pictures_hold_coefficients_and_crops_and_faces_not_found_are_held() -> None:
    pictures = np.stack([np.full((256, 256, 3), level, np.uint8) for level in (10, 20, 30, 40, 50)])
    marks = np.stack([_landmarks((120.0 + i, 130.0 - 2 * i), 85.0 + 5 * i) for i in range(5)])
    marks[[0, 3]] = np.nan
    regressor = _Regressor()
    made = windows.rows_from_pictures(pictures, marks, regressor, batch=2)  # type: ignore[arg-type]
    assert regressor.batches == [2, 1]
    assert made.dtype == np.float32
    held = [1, 1, 2, 2, 4]
    assert made[:, :257] == pytest.approx(np.tile((np.array(held)[:, None] + 1) * 10 / 255, 257), abs=1e-5)
    wanted = [[102 / (85 + 5 * i), 120 + i, 130 - 2 * i] for i in held]
    assert made[:, 257:] == pytest.approx(np.array(wanted), rel=1e-6)
    with pytest.raises(ValueError, match="none of 5 pictures"):
        windows.rows_from_pictures(pictures, np.full((5, 478, 2), np.nan), regressor)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="as many landmarks"):
        windows.rows_from_pictures(pictures[:1], marks, regressor)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one place"):
        windows.rows_from_pictures(pictures[:1], np.zeros((1, 478, 2)), regressor)  # type: ignore[arg-type]


def test_the_square_of_a_clip_is_one_around_all_of_its_faces() -> None:
    marks = np.array([[[10.0, 20], [50, 40]], [[30, 30], [90, 60]], [[np.nan, 0], [0, 0]]])
    center, side = crops.clip_square(marks, enlargement=2.0)
    assert side == pytest.approx(160)  # 80 wide, 40 high
    assert center[0] == pytest.approx(50)
    assert 40 - 0.15 * side < center[1] < 40  # above the landmarks' middle
    assert crops.clip_square(marks)[1] == pytest.approx(80 * crops.ENLARGEMENT)
    for wrong, words in (
        (marks[0], "expected landmarks"),
        (marks[2:], "no frame of the clip has a face"),
        (np.zeros((1, 4, 2)), "one place"),
    ):
        with pytest.raises(ValueError, match=words):
            crops.clip_square(wrong)
    with pytest.raises(ValueError, match="positive"):
        crops.clip_square(marks, enlargement=0.0)


def test_the_cut_square_shows_what_its_points_say() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    image[40:44, 60:64] = 255
    center, side = np.array([50.0, 45.0]), 64.0
    made = crops.cut(image, center, side)
    assert made.shape == (256, 256, 3)
    y, x = np.argwhere(made[..., 0] > 127).mean(0) + 0.5
    (point,) = crops.points_in_square(np.array([[[62.0, 42.0]]]), center, side)[0]
    assert (x, y) == pytest.approx(tuple(point), abs=0.5)
