"""EG3D's crops from five points, 68 points from the face mesh, and the paper's tracker as a whole."""

import numpy as np
import pytest
import torch
from PIL import Image

from portrait_core.errors import InputError
from portrait_core.face_model.topology import MIRROR
from portrait_core.runtime.package_files import data_folder, sample_portrait
from portrait_core.tracking import ffhq_align, five_points, landmarks68, wild_crop
from portrait_core.tracking.deca import DecaEncoder
from portrait_core.tracking.deep3d import Deep3DEncoder
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.paper_tracker import PaperTracker


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.asarray(Image.open(sample_portrait()).convert("RGB"))


@pytest.fixture(scope="module")
def landmarks(portrait: np.ndarray) -> np.ndarray:
    return FaceLandmarker.from_models(data_folder() / "models").detect(portrait[None]).points


@pytest.fixture(scope="module")
def tracker() -> PaperTracker:
    torch.manual_seed(0)
    return PaperTracker(DecaEncoder().eval(), Deep3DEncoder().eval())


def standing(scale: float, size: tuple[int, int]) -> np.ndarray:
    """Five points ``[1,5,2]`` of the standard face seen from the front, in the middle of an image."""
    points = five_points.STANDARD_FACE[:, :2] * [scale, -scale] + np.array(size) / 2
    return points[None]


@pytest.mark.parametrize("scale", [30.0, 100.0])
def test_a_frontal_face_is_scaled_and_centred(scale: float) -> None:
    found = five_points.align(standing(scale, (400, 300)), np.array([[400, 300]]))
    assert found.scale == pytest.approx([102 / scale], rel=1e-9)
    got = found.points(standing(scale, (400, 300)))[0]
    assert got == pytest.approx(five_points.STANDARD_FACE[:, :2] * 102 + 112, abs=2)


def test_points_go_to_the_crop_and_back(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    points = landmarks68.five_points(landmarks)
    crops, placement = wild_crop.generator_crops([portrait], points)
    assert crops.shape == (1, 512, 512, 3)
    there = placement.to_crop(points + 0.5)
    assert placement.to_image(there) == pytest.approx(points + 0.5)
    again = FaceLandmarker.from_models(data_folder() / "models").detect(crops).points
    assert landmarks68.five_points(again) + 0.5 == pytest.approx(there, abs=4.0)


def test_a_part_is_resized_as_the_whole_is(
    portrait: np.ndarray, landmarks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, size = landmarks68.five_points(landmarks), np.array([portrait.shape[1::-1]])
    for shift in (0, 180):  # the second: partly outside of the image
        found = five_points.align(points + shift, size)
        whole = five_points.cut(portrait, found, 0).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(five_points, "_WHOLE_LIMIT", 0)
            part = five_points.cut(portrait, found, 0).astype(int)
        assert np.abs(whole - part).max() <= 2
        assert np.abs(whole - part).mean() < 0.05
        assert ((whole == 0) == (part == 0)).mean() > 0.99


def test_the_middle_is_cut_out_of_the_square(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    points, size = landmarks68.five_points(landmarks), np.array([portrait.shape[1::-1]])
    found = five_points.align(points, size)
    assert np.array_equal(
        five_points.cut(portrait, found, 0, 100), five_points.cut(portrait, found, 0)[62:162, 62:162]
    )


def test_mesh_points_of_the_scheme_are_symmetric(landmarks: np.ndarray) -> None:
    swap = np.concatenate(
        [
            np.arange(17)[::-1],
            np.arange(17, 27)[::-1],
            [27, 28, 29, 30, 35, 34, 33, 32, 31],
            [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],
            [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],
            [64, 63, 62, 61, 60, 67, 66, 65],
        ]
    )
    assert np.array_equal(MIRROR[landmarks68.MESH_TO_68], landmarks68.MESH_TO_68[swap])
    assert len(set(landmarks68.MESH_TO_68.tolist())) == 68
    points = landmarks68.mesh_to_68(landmarks)[0]
    assert (np.diff(points[:17, 0]) > -3).all()  # the jaw runs from left to right
    assert points[8, 1] == points[:, 1].max()  # by the chin
    assert points[51, 1] < points[62, 1] < points[66, 1] < points[57, 1]  # lips from top to bottom
    with pytest.raises(ValueError, match="FaceLandmarker"):
        landmarks68.mesh_to_68(np.zeros((1, 68, 2)))


@pytest.mark.parametrize("batch", [1, 3])
def test_frames_of_a_clip_are_tracked_one_by_one_or_together(
    tracker: PaperTracker, portrait: np.ndarray, landmarks: np.ndarray, batch: int
) -> None:
    frames = np.stack([portrait] * batch)
    frames[:, 250:] //= np.arange(1, batch + 1, dtype=np.uint8)[:, None, None, None]
    points = np.repeat(landmarks, batch, axis=0) + np.arange(float(batch))[:, None, None]
    together = tracker.track(frames, points)
    assert together.wild.images.shape == (batch, 512, 512, 3)
    assert together.wild.cameras.shape == (batch, 25)
    assert together.jaw.shape == (batch, 3)
    last = tracker.track(frames[-1:], points[-1:])
    assert torch.allclose(last.code.exp[0], together.code.exp[-1], atol=1e-5)
    assert np.array_equal(last.wild.images[0], together.wild.images[-1])
    assert last.wild.cameras[0] == pytest.approx(together.wild.cameras[-1], abs=1e-5)


def test_the_oriented_square_follows_the_face(portrait: np.ndarray, landmarks: np.ndarray) -> None:
    points = landmarks68.mesh_to_68(landmarks)[0]
    quad = ffhq_align.oriented_quad(points, 1.0)
    sides = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    assert sides == pytest.approx(np.full(4, sides[0]))
    larger = ffhq_align.oriented_quad(points)
    assert np.linalg.norm(larger[3] - larger[0]) == pytest.approx(1.8 * sides[0])
    for scale in (1.0, 1.8):  # with and without padding
        got = ffhq_align.align_ffhq(portrait, points, 96, 192, scale)
        assert got.shape == (96, 96, 3)
        assert got.std() > 20


def test_refuses_what_is_no_face(tracker: PaperTracker, portrait: np.ndarray, landmarks: np.ndarray) -> None:
    size = np.array([[100, 100]])
    with pytest.raises(InputError, match="not finite"):
        five_points.align(np.full((1, 5, 2), np.nan), size)
    with pytest.raises(InputError, match="one place"):
        five_points.align(np.full((1, 5, 2), 7.0), size)
    with pytest.raises(InputError, match="one place"):
        ffhq_align.oriented_quad(np.full((68, 2), 7.0))
    with pytest.raises(ValueError, match=r"\[n,5,2\]"):
        five_points.align(np.zeros((1, 4, 2)), size)
    with pytest.raises(ValueError, match="one face each"):
        wild_crop.generator_crops([portrait, portrait], landmarks68.five_points(landmarks))
    with pytest.raises(ValueError, match="uint8 image"):
        five_points.cut(
            portrait.astype(float), five_points.align(standing(50, (512, 512)), np.array([[512, 512]])), 0
        )
    with pytest.raises(ValueError, match="was a face found"):
        tracker.track(portrait[None], np.full((1, 478, 2), np.nan))


def test_the_standard_face_comes_from_a_mean_faces_68_points() -> None:
    marks = np.zeros((68, 3))
    for places, point in zip(
        ((36, 39), (42, 45), (30,), (48,), (54,)), five_points.STANDARD_FACE, strict=True
    ):
        marks[list(places)] = point
    assert five_points.standard_face(marks) == pytest.approx(five_points.STANDARD_FACE)
    left, right = five_points.STANDARD_FACE[[0, 1]]
    assert left[0] < 0 < right[0]  # the image's left first
    with pytest.raises(ValueError, match="landmarks68"):
        five_points.five_of_68(np.zeros((2, 5, 2)))
