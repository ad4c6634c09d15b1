import pytest
import torch

from portrait_core.cameras import crop_rays, orbit_labels
from portrait_core.rendering import compositing


def plane_depth(camera: torch.Tensor, size: int, z: float = 0.0) -> torch.Tensor:
    """Distance along each ray to the plane at height ``z``: a scene whose geometry is known exactly."""
    origins, directions = crop_rays(camera, size)
    return ((z - origins[..., 2]) / directions[..., 2]).reshape(1, 1, size, size)


@pytest.fixture
def views() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(orbit_labels(0.0, 0.0)), torch.from_numpy(orbit_labels(0.5, 0.1))


def test_a_mask_stays_where_it_is_when_the_camera_does(views: tuple[torch.Tensor, torch.Tensor]) -> None:
    camera, _ = views
    depth = plane_depth(camera, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 10:25] = 1
    points = compositing.points_from_depth(camera, depth)
    assert torch.allclose(compositing.reproject_mask(mask, camera, depth, points), mask, atol=1e-3)


def test_a_mask_follows_its_surface_to_another_camera(views: tuple[torch.Tensor, torch.Tensor]) -> None:
    source, target = views
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 24:40, 24:40] = 1
    points = compositing.points_from_depth(target, plane_depth(target, 64))
    moved = compositing.reproject_mask(mask, source, plane_depth(source, 64), points)
    # The square is centred on the origin, and so is the target view; turned by 0.5 rad it is narrower.
    rows, columns = torch.where(moved[0, 0] > 0.5)
    assert rows.float().mean() == pytest.approx(31.5, abs=1.0)
    assert columns.float().mean() == pytest.approx(31.5, abs=1.0)
    assert 16 * 16 * 0.8 < len(rows) < 16 * 16 * 0.95


def test_what_the_source_cannot_see_is_not_in_the_mask(views: tuple[torch.Tensor, torch.Tensor]) -> None:
    source, target = views
    mask = torch.ones(1, 1, 32, 32)
    seen_behind = plane_depth(source, 32, z=0.2)  # the source camera sees a plane 0.2 nearer
    points = compositing.points_from_depth(target, plane_depth(target, 32))
    hidden = compositing.reproject_mask(mask, source, seen_behind, points)
    assert hidden.max() == 0


def test_composite_takes_the_face_from_one_and_the_rest_from_the_other() -> None:
    own, first = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 2:5] = 1
    assert torch.equal(compositing.composite(own, first, mask), mask.expand(1, 3, 8, 8))


def test_soft_edges_keep_the_inside_and_the_outside() -> None:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    soft = compositing.soften(mask, dilate_px=2, feather_px=4)
    assert soft[0, 0, 32, 32] == pytest.approx(1.0, abs=1e-4)
    assert soft[0, 0, 2, 2] == pytest.approx(0.0, abs=1e-4)
    assert 0.3 < soft[0, 0, 32, 13] < 0.7  # the edge has moved out by the two pixels of dilation
    assert torch.equal(compositing.gaussian_blur(mask, 0), mask)
