"""The head's depth and a frame's colours at other cameras."""

import numpy as np
import pytest
import torch

from portrait_core.cameras import crop_rays, orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import interpolate
from portrait_core.face_model.reproject import HeadSurface, SourceFrame, head_depth

SIZE = 64


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return MorphableHead.load("data/models/embedded_head.safetensors")


@pytest.fixture(scope="module")
def opened(head: MorphableHead) -> torch.Tensor:
    """A head with an open mouth, box frame ``[1,V,3]``."""
    expression = torch.zeros(1, head.n_expression)
    expression[0, head.index("jawOpen")] = 0.7
    jaw = head.jaw_from_expression(expression)
    return head.to_box(head.decode(torch.zeros(1, head.n_shape), expression, jaw))


def _camera(yaw: float, pitch: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(orbit_labels(yaw, pitch))


def test_depth_along_the_ray_ends_on_the_surface(head: MorphableHead, opened: torch.Tensor) -> None:
    camera = _camera(0.4, 0.1)
    seen = head_depth(head, opened, camera, SIZE)
    origin, direction = crop_rays(camera, SIZE)
    hit = seen.depth.view(1, -1, 1) > 0
    points = (origin + seen.depth.view(1, -1, 1) * direction)[hit[..., 0]]
    fragments = HeadSurface(head).see(opened, camera, SIZE)[0]
    surface = interpolate(opened, head.faces, fragments).view(-1, 3)[hit.view(-1)]
    assert hit.float().mean() > 0.2
    assert (points - surface).norm(dim=-1).max() < 1e-4


def test_masks_nest_and_follow_the_head(head: MorphableHead, opened: torch.Tensor) -> None:
    left, right = head_depth(
        head, opened.expand(2, -1, -1), torch.cat([_camera(-0.5), _camera(0.5)]), SIZE
    ).face
    assert (left.sum() - right.sum()).abs() < 0.05 * left.sum()  # a symmetric head
    assert left.flip(-1).logical_xor(right).float().mean() < 0.02
    seen = head_depth(head, opened, _camera(0.0), SIZE)
    assert seen.mouth.sum() > 10
    assert not (seen.mouth & ~seen.face).any()
    assert not (seen.face & (seen.depth == 0)).any()
    assert seen.detail.sum() > 20
    assert not (seen.detail & (seen.mouth | ~seen.face)).any()


def test_a_frame_seen_from_its_own_camera_is_itself(head: MorphableHead, opened: torch.Tensor) -> None:
    image = torch.rand(3, SIZE, SIZE)
    view = SourceFrame(HeadSurface(head), image, opened[0], _camera(0.1)[0]).at(_camera(0.1), SIZE)
    face = view.valid[0]
    assert face.sum() > 0.95 * head_depth(head, opened, _camera(0.1), SIZE).face.sum()
    # grid_sample meets pixel centres to rounding
    assert (view.image[0] - image)[:, face].abs().max() < 0.02


def test_where_the_photograph_shows_wall_the_head_carries_no_colour(
    head: MorphableHead, opened: torch.Tensor
) -> None:
    matte = torch.ones(1, SIZE, SIZE)
    matte[..., : SIZE // 2] = 0
    surface, image = HeadSurface(head), torch.rand(3, SIZE, SIZE)
    whole = SourceFrame(surface, image, opened[0], _camera(0.0)[0]).at(_camera(0.0), SIZE)
    half = SourceFrame(surface, image, opened[0], _camera(0.0)[0], matte).at(_camera(0.0), SIZE)
    assert not half.valid[..., : SIZE // 2 - 1].any()
    assert torch.equal(half.valid[..., SIZE // 2 + 1 :], whole.valid[..., SIZE // 2 + 1 :])
    assert torch.equal(half.face, whole.face)


def test_colours_stick_to_the_surface(head: MorphableHead, opened: torch.Tensor) -> None:
    """A frame painted by position on the head shows the same position's colour from elsewhere."""
    surface, source, other = HeadSurface(head), _camera(0.0), _camera(0.35, -0.1)
    paint = (opened[0] - opened[0].amin(0)) / (opened[0].amax(0) - opened[0].amin(0))

    def picture(camera: torch.Tensor) -> torch.Tensor:
        fragments = surface.see(opened, camera, 2 * SIZE)[0]
        return interpolate(paint[None], head.faces, fragments)[0].permute(2, 0, 1)

    view = SourceFrame(surface, picture(source), opened[0], source[0]).at(other, 2 * SIZE)
    error = (view.image[0] - picture(other)).abs().amax(0)[view.valid[0]]
    assert view.valid.float().mean() > 0.1
    assert error.median() < 0.003
    assert error.quantile(0.95) < 0.03


def test_the_far_cheek_is_not_valid(head: MorphableHead, opened: torch.Tensor) -> None:
    surface = HeadSurface(head)
    view = SourceFrame(surface, torch.ones(3, SIZE, SIZE), opened[0], _camera(-0.6)[0]).at(_camera(0.6), SIZE)
    face = head_depth(head, opened, _camera(0.6), SIZE).face
    assert 0.3 < view.valid.sum() / face.sum() < 0.95
    assert np.all(view.image.numpy()[0][:, ~view.valid[0].numpy()] == 0)
