"""Parity with EG3D's preprocessing (numbers in the reference folder's ``eg3d_camera``)."""

import numpy as np
import pytest
import torch
from PIL import Image

from portrait_core.cameras import eg3d as eg3d_cameras
from portrait_core.cameras import intrinsics
from portrait_core.tracking import ffhq_align, wild_crop
from tests.reference.published import ROOT, arrays, named, needs

FOLDER = ROOT / "eg3d_camera"
ATOL = 1e-6
PIXEL = 1e-3
GREY_LEVELS = 2
pytestmark = needs("eg3d_camera/labels.npz")


def off(got: np.ndarray | torch.Tensor, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return float(np.abs(np.asarray(got).astype(np.float64) - wanted).max())


@pytest.fixture(scope="module")
def labels() -> dict[str, np.ndarray]:
    return arrays(FOLDER / "labels.npz")


@pytest.fixture(scope="module")
def crops() -> dict[str, np.ndarray]:
    return arrays(FOLDER / "crops.npz")


@pytest.mark.parametrize("mode", ["orig", "cor", "simplify"])
def test_labels(labels: dict[str, np.ndarray], mode: eg3d_cameras.CenterMode) -> None:
    got = eg3d_cameras.labels_from_deep3d(labels["angle"], labels["trans"], mode)
    assert off(got, labels[f"label_{mode}"]) < ATOL
    mirrored = labels.get(f"label_{mode}_mirror")
    if mirrored is not None:
        assert off(eg3d_cameras.mirror_labels(got), mirrored) < ATOL


def test_poses(labels: dict[str, np.ndarray]) -> None:
    got = eg3d_cameras.poses_from_deep3d(labels["angle"], labels["trans"])
    assert off(got, labels["idr_pose"]) < ATOL
    # their intrinsics, of the 1024-pixel image, are discarded: the labels' are of the 700-pixel crop in it
    cut, full = wild_crop.CENTER_SIZE, wild_crop.ALIGNED_SIZE
    k = intrinsics()
    wanted = labels["idr_intrinsics"]
    assert off(np.broadcast_to(k[[0, 1], [0, 1]] * cut, (len(wanted), 2)), wanted[:, [0, 1], [0, 1]]) < 1e-3
    assert off(np.broadcast_to(k[:2, 2] * full, (len(wanted), 2)), wanted[:, :2, 2]) < ATOL


def test_look_at(labels: dict[str, np.ndarray]) -> None:
    rows = torch.from_numpy(labels["lookat_args_h_v_pivot_radius"])
    for row, wanted in zip(rows, labels["lookat_cam2world"], strict=True):
        h, v, pivot, radius = row[:1], row[1:2], row[2:5], float(row[5])
        assert off(eg3d_cameras.orbit_poses(h, v, pivot, radius)[0], wanted) < ATOL
    name, (whole, thousandths) = named(labels, r"fov_(\d+)_(\d{3})_intrinsics")
    degrees = whole + thousandths / 1000
    assert off(eg3d_cameras.intrinsics_from_fov(degrees), labels[name]) < ATOL


def test_crop_boxes(crops: dict[str, np.ndarray]) -> None:
    standard = crops["lm3d_std"].astype(np.float64)
    found = wild_crop.generator_alignment(crops["detections5"], crops["size_wh"], standard)
    params = np.concatenate([crops["size_wh"], found.scale[:, None], found.translation], axis=1)
    assert off(params, crops["trans_params"]) < PIXEL
    assert off(found.points(crops["detections5"]), crops["lm_in_1024"]) < PIXEL
    assert np.array_equal(found.resized_wh, crops["resize_wh"])
    box = np.concatenate([found.corner, found.corner + found.target], axis=1)
    assert np.array_equal(box, crops["align_box"])
    left = (wild_crop.ALIGNED_SIZE - wild_crop.CENTER_SIZE) // 2
    center = [left, left, left + wild_crop.CENTER_SIZE, left + wild_crop.CENTER_SIZE]
    assert np.array_equal(np.broadcast_to(center, crops["center_box"].shape), crops["center_box"])


def test_crops(crops: dict[str, np.ndarray]) -> None:
    standard, size = crops["lm3d_std"].astype(np.float64), int(crops["output_wh"][0, 0])
    assert (crops["output_wh"] == size).all()
    sources = sorted(FOLDER.glob("wild_source_*.png"))
    assert sources
    name, (step,) = named(crops, r"crops_every(\d+)")
    for path in sources:
        index = int(path.stem.rsplit("_", 1)[1])
        image = np.asarray(Image.open(path).convert("RGB"))
        points = crops["detections5"][index : index + 1]
        got, placement = wild_crop.generator_crops([image], points, standard, size)
        assert off(got[0, ::step, ::step], crops[name][index]) <= GREY_LEVELS
        wanted = np.asarray(Image.open(FOLDER / f"wild_crop_{index}.png").convert("RGB"))
        assert off(got[0], wanted) <= GREY_LEVELS
        assert off(placement.to_image(placement.to_crop(points)), points) < PIXEL


def test_ffhq_alignment() -> None:
    expected = arrays(FOLDER / "ffhq_align.npz")
    name, (size, step) = named(expected, r"aligned(\d+)_every(\d+)")
    for index, landmarks in enumerate(expected["landmarks68"]):
        image = np.asarray(Image.open(FOLDER / f"ffhq_source_{index}.png").convert("RGB"))
        assert image.shape[1::-1] == tuple(expected["size_wh"][index])
        found = ffhq_align.prepare_quad(image, ffhq_align.oriented_quad(landmarks), size)
        assert off(found.quad, expected["quad_final_plus_half"][index]) < ATOL
        assert found.image.shape[1::-1] == tuple(expected["image_size_before_transform"][index])
        assert list(found.crop_box or [-1] * 4) == expected["first_crop_box"][index].tolist()
        got = ffhq_align.align_ffhq(image, landmarks, size)
        assert off(got[::step, ::step], expected[name][index]) <= GREY_LEVELS
