import numpy as np
import pytest
import torch

from portrait_core import cameras
from portrait_core.cameras.eg3d import labels_from_deep3d
from portrait_core.rendering.pose_renderer import target_cameras
from portrait_core.settings import RenderSettings


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.5, -0.3, 0.2), (-0.7, 0.4, -0.4)])
def test_angles_come_back(angles: tuple[float, float, float]) -> None:
    labels = cameras.orbit_labels(*angles)
    assert cameras.angles_from_labels(labels)[0] == pytest.approx(angles, abs=1e-6)
    assert cameras.rotations_from_labels(labels)[0] == pytest.approx(
        cameras.orbit_rotation(*angles), abs=1e-6
    )


def test_positive_yaw_moves_the_camera_to_plus_x_and_positive_pitch_up() -> None:
    position = cameras.orbit_labels(0.3, 0.2)[0, :16].reshape(4, 4)[:3, 3]
    expected = 2.7 * np.array([np.sin(0.3) * np.cos(0.2), np.sin(0.2), np.cos(0.3) * np.cos(0.2)])
    assert position == pytest.approx(expected, abs=1e-5)


def test_origin_projects_to_the_middle_and_positive_roll_tips_the_top_to_the_right() -> None:
    labels = torch.from_numpy(cameras.orbit_labels(0.1, 0.0, 0.4))
    points = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]]])
    pixels = cameras.project_to_crop(labels, points, 200)[0]
    assert pixels[0].tolist() == pytest.approx([100.0, 100.0, 2.7], abs=1e-4)
    assert pixels[1, 0] > 100
    assert pixels[1, 1] < 100


@pytest.mark.parametrize("batch", [1, 3])
def test_rays_pass_through_the_pixels_they_belong_to(batch: int) -> None:
    labels = torch.from_numpy(np.repeat(cameras.orbit_labels(0.4, -0.2, 0.1), batch, axis=0))
    origins, directions = cameras.crop_rays(labels, 5)
    pixels = cameras.project_to_crop(labels, origins + 2.5 * directions, 5)
    grid = torch.stack(torch.meshgrid(torch.arange(5) + 0.5, torch.arange(5) + 0.5, indexing="xy"), -1)
    assert torch.allclose(pixels[..., :2], grid.reshape(1, 25, 2).expand(batch, -1, -1), atol=1e-4)


def test_smoothing_over_two_frames_is_the_half_way_rotation() -> None:
    labels = np.concatenate([cameras.orbit_labels(0.0, 0.0), cameras.orbit_labels(0.2, 0.0)])
    yaw = cameras.angles_from_labels(cameras.smooth_labels(labels, 2))[:, 0]
    assert yaw == pytest.approx([0.0, 0.1], abs=1e-6)
    assert cameras.smooth_labels(labels, 1) == pytest.approx(labels, abs=1e-6)
    with pytest.raises(ValueError, match="pose_window"):
        cameras.smooth_labels(labels, 0)


def past_the_origin(count: int) -> np.ndarray:
    """Labels as EG3D's preprocessing makes them of photographs: the axis misses the origin."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-0.3, 0.3, 3) + 0.03 * np.arange(count)[:, None]
    trans = rng.uniform(-0.4, 0.4, (count, 3))
    return labels_from_deep3d(angle, trans, "orig").astype(np.float32)


def test_an_offset_is_found_and_kept() -> None:
    labels = past_the_origin(4)
    offsets = cameras.offsets_from_labels(labels)
    assert np.abs(offsets).max() > 0.01
    again = cameras.labels_from_rotations(cameras.rotations_from_labels(labels), offsets)
    assert again == pytest.approx(labels, abs=1e-6)
    assert cameras.smooth_labels(labels, 1) == pytest.approx(labels, abs=1e-6)


def test_smoothing_is_half_way_between_positions_too() -> None:
    labels = past_the_origin(2)
    smooth = cameras.smooth_labels(labels, 2)
    assert smooth[0] == pytest.approx(labels[0], abs=1e-6)
    position = smooth[1, :16].reshape(4, 4)[:3, 3]
    middle = labels[:, :16].reshape(-1, 4, 4)[:, :3, 3].mean(0)
    apart = np.linalg.norm(np.diff(labels[:, :16].reshape(-1, 4, 4)[:, :3, 3], axis=0))
    assert np.linalg.norm(position - middle) < 0.02 * apart  # on the sphere, not on the chord
    assert cameras.offsets_from_labels(smooth)[1] == pytest.approx(
        cameras.offsets_from_labels(labels).mean(0), abs=1e-5
    )
    held = target_cameras(labels, labels[:1], RenderSettings(pose_window=2))
    assert held == pytest.approx(smooth, abs=1e-5)


def test_cameras_on_an_orbit_have_no_offset_at_all() -> None:
    labels = np.concatenate([cameras.orbit_labels(0.1 * i, -0.05 * i, 0.02 * i) for i in range(9)])
    assert not cameras.offsets_from_labels(labels).any()
    turns = cameras.rotations_from_labels(labels)
    assert np.array_equal(
        cameras.labels_from_rotations(turns, cameras.offsets_from_labels(labels)),
        cameras.labels_from_rotations(turns),
    )
