"""One view warped into another: a textured sphere before a textured wall, whose depth is known."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from portrait_core.cameras import crop_rays, orbit_labels
from portrait_core.metrics.view_reprojection import (
    DepthView,
    depth_along_rays,
    view_agreement,
    warp_view,
)

SIZE = 96
RADIUS, WALL_Z = 0.17, -0.35


def camera(yaw: float, pitch: float = 0.0) -> Tensor:
    return torch.from_numpy(orbit_labels(yaw, pitch))


def hits(label: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Distances ``[1,1,size,size]`` along the rays, and whether they end on the sphere."""
    origin, direction = (x.double() for x in crop_rays(label, size))
    along = (origin * direction).sum(-1)
    inner = along**2 - (origin.square().sum(-1) - RADIUS**2)
    sphere = inner > 0
    near = -along - inner.clamp(min=0).sqrt()
    wall = (WALL_Z - origin[..., 2]) / direction[..., 2]
    shape = (1, 1, size, size)
    return torch.where(sphere, near, wall).float().reshape(shape), sphere.reshape(shape)


def view(yaw: float, pitch: float = 0.0, phase: float = 0.0, size: int = SIZE) -> DepthView:
    """The scene from a side; ``phase`` slides the texture over its surfaces."""
    label = camera(yaw, pitch)
    depth, sphere = hits(label, size)
    origin, direction = crop_rays(label, size)
    points = (origin + depth.reshape(1, -1, 1) * direction).reshape(1, size, size, 3)
    turn = torch.tensor([[21.0, 9.0, -14.0], [-6.0, 26.0, 11.0], [13.0, -17.0, 19.0]])
    colour = torch.sin(points @ turn + phase).permute(0, 3, 1, 2) * torch.where(sphere, 0.9, 0.5)
    return DepthView(colour, depth, label)


def seen_exactly(a: DepthView, yaw: float, pitch: float) -> Tensor:
    """Whether a view from a side shows the same points, by intersecting its rays with the scene."""
    label = camera(yaw, pitch)
    origin, direction = crop_rays(a.camera, SIZE)
    points = (origin + a.depth.reshape(1, -1, 1) * direction)[0].double()
    eye = label[0, 3:12:4].double()
    ray = points - eye
    length = ray.norm(dim=-1)
    ray = ray / length[:, None]
    along = ray @ eye
    inner = along**2 - (eye @ eye - RADIUS**2)
    sphere = torch.where(inner > 0, -along - inner.clamp(min=0).sqrt(), torch.inf)
    clear = length < sphere + 1e-3
    pose = label[0, :16].reshape(4, 4).double()
    local = (points - eye) @ pose[:3, :3]
    place = label[0, 16].double() * local[:, :2] / local[:, 2:] + 0.5
    return (clear & ((place > 0) & (place < 1)).all(-1)).reshape(1, 1, SIZE, SIZE)


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (0.25, 0.0), (-0.2, 0.15)])
def test_views_of_one_scene_agree(yaw: float, pitch: float) -> None:
    a, b = view(0.05), view(yaw, pitch)
    found = view_agreement(a, b)
    assert float(found.l1) < 0.012
    assert float(found.psnr_db) > 34
    exact = seen_exactly(a, yaw, pitch)
    _, seen = warp_view(a, b)
    assert not (seen & ~exact).float().mean() > 0.002  # next to nothing that is hidden is compared
    assert float((seen & exact).sum() / exact.sum()) > 0.9
    assert float(found.visible) == pytest.approx(float(seen.float().mean()))


def test_a_texture_that_slides_with_the_view_is_charged_for() -> None:
    a = view(0.05)
    errors = [float(view_agreement(a, view(0.25, phase=phase)).l1) for phase in (0.0, 0.1, 0.2, 0.4)]
    assert errors[0] < 0.012
    for one, other in itertools.pairwise(errors):
        assert other > 1.4 * one
    # sin(x + 0.4) - sin(x) is 0.25 on average, on pictures in 0..1 half of that
    assert errors[-1] == pytest.approx(0.125 * 0.6, rel=0.25)


def test_wrong_depth_is_charged_for_too() -> None:
    a, b = view(0.05), view(0.25)
    flat = DepthView(a.picture, torch.full_like(a.depth, 2.7), a.camera)
    assert float(view_agreement(flat, b).l1) > 5 * float(view_agreement(a, b).l1)


def test_without_the_occlusion_test_hidden_wall_takes_the_spheres_colours() -> None:
    a, b = view(-0.25), view(0.25)
    whole = view_agreement(a, b)
    trusting = view_agreement(a, b, tolerance=10.0)
    assert float(trusting.visible) > float(whole.visible) + 0.03
    assert float(trusting.l1) > 2 * float(whole.l1)


def test_the_formulas_of_a_known_difference() -> None:
    a = view(0.0)
    b = DepthView(a.picture + 0.2, a.depth, a.camera)  # 0.1 of 0..1 everywhere
    found = view_agreement(a, b)
    assert float(found.l1) == pytest.approx(0.1, rel=1e-3)
    assert float(found.psnr_db) == pytest.approx(20, abs=0.01)
    left = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    left[..., : SIZE // 2] = True
    b.picture[..., SIZE // 2 :] = 5
    masked = view_agreement(a, b, left)
    assert float(masked.l1) == pytest.approx(0.1, rel=0.1)  # one column lies on the mask's edge
    assert float(masked.visible) > 0.85


def test_nothing_to_compare_is_nan_and_not_agreement() -> None:
    a = view(0.0)
    empty = DepthView(a.picture, torch.zeros_like(a.depth), a.camera)
    nothing = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.bool)
    unknown = DepthView(a.picture, a.depth * torch.nan, a.camera)
    for found in (view_agreement(empty, a), view_agreement(a, a, nothing), view_agreement(a, unknown)):
        assert found.l1.isnan().all()
        assert found.psnr_db.isnan().all()
        assert found.visible.eq(0).all()


def test_coarse_depth_and_batches() -> None:
    pairs = [(0.0, 0.2), (0.1, -0.15)]
    fine = [(view(a), view(b)) for a, b in pairs]
    one, other = (
        DepthView(
            torch.cat([pair[i].picture for pair in fine]),
            torch.cat([hits(pair[i].camera, SIZE // 2)[0] for pair in fine]),
            torch.cat([pair[i].camera for pair in fine]),
        )
        for i in (0, 1)
    )
    found = view_agreement(one, other)
    assert found.l1.shape == (2,)
    assert found.l1.max() < 0.015
    for i, (a, b) in enumerate(fine):
        assert float(found.visible[i]) == pytest.approx(float(view_agreement(a, b).visible), abs=0.12)
    with pytest.raises(ValueError, match="give pairs"):
        view_agreement(one, fine[0][0])
    with pytest.raises(ValueError, match=r"expected \[B,3,S,S\]"):
        DepthView(fine[0][0].picture, fine[0][0].depth[:, 0], fine[0][0].camera)


def test_depth_along_the_axis_becomes_distance() -> None:
    label = camera(0.3, 0.2)
    depth, _ = hits(label, 32)
    origin, direction = crop_rays(label, 32)
    points = origin + depth.reshape(1, -1, 1) * direction
    pose = label[0, :16].reshape(4, 4)
    z = ((points[0] - pose[:3, 3]) @ pose[:3, :3])[:, 2].reshape(1, 1, 32, 32)
    torch.testing.assert_close(depth_along_rays(z, label), depth, rtol=1e-5, atol=0)
