"""EG3D's cameras: signs, mirrors, look-at poses."""

import math

import numpy as np
import pytest
import torch

from portrait_core import cameras
from portrait_core.cameras import eg3d as eg3d_cameras

ANGLE = np.random.default_rng(0).normal(size=(6, 3)) * 0.3
TRANS = np.random.default_rng(1).normal(size=(6, 3)) * 0.3


@pytest.mark.parametrize("mode", ["orig", "cor", "simplify"])
@pytest.mark.parametrize("batch", [1, 6])
def test_labels_are_rigid_and_at_the_fixed_distance(mode: eg3d_cameras.CenterMode, batch: int) -> None:
    labels = eg3d_cameras.labels_from_deep3d(ANGLE[:batch], TRANS[:batch], mode)
    pose = labels[:, :16].reshape(-1, 4, 4)
    assert pose[:, :3, :3] @ pose[:, :3, :3].transpose(0, 2, 1) == pytest.approx(
        np.tile(np.eye(3), (batch, 1, 1))
    )
    assert np.linalg.det(pose[:, :3, :3]) == pytest.approx(np.ones(batch))
    pivot = np.array([0, 0, 0 if mode == "orig" else 0.175])
    assert np.linalg.norm(pose[:, :3, 3] - pivot, axis=1) == pytest.approx(np.full(batch, cameras.RADIUS))
    assert labels[:, 16:] == pytest.approx(np.tile(cameras.intrinsics().reshape(-1), (batch, 1)))


def test_a_frontal_face_has_the_frontal_camera() -> None:
    label = eg3d_cameras.labels_from_deep3d(np.zeros((1, 3)), np.zeros((1, 3)))
    assert cameras.angles_from_labels(label) == pytest.approx(np.zeros((1, 3)), abs=1e-12)
    assert label[0, [3, 7, 11]] == pytest.approx([0, 0, 2.7], abs=0.01)


def test_mirroring_is_the_flipped_face_and_undoes_itself() -> None:
    labels = eg3d_cameras.labels_from_deep3d(ANGLE, TRANS)
    mirrored = eg3d_cameras.mirror_labels(labels)
    assert eg3d_cameras.mirror_labels(mirrored) == pytest.approx(labels)
    flipped = eg3d_cameras.labels_from_deep3d(ANGLE * [1, -1, -1], TRANS * [-1, 1, 1])
    assert mirrored == pytest.approx(flipped, abs=1e-9)
    turned = cameras.angles_from_labels(labels)
    assert cameras.angles_from_labels(mirrored) == pytest.approx(turned * [-1, 1, -1])


def test_orbits_look_at_their_pivot() -> None:
    half = torch.full((3,), math.pi / 2)
    h, v = half + torch.tensor([0.0, 0.3, 0.0]), half + torch.tensor([0.0, 0.0, 0.3])
    pivot = torch.tensor([0.0, 0.1, 0.2])
    poses = eg3d_cameras.orbit_poses(h, v, pivot)
    place = poses[:, :3, 3]
    assert torch.allclose(place[0], torch.tensor([0.0, 0.0, 2.7]), atol=1e-6)
    assert place[1, 0] > 0.5  # larger h: to +x
    assert place[2, 1] < -0.3  # larger v: down
    assert torch.allclose(
        place + poses[:, :3, 2] * (pivot - place).norm(dim=-1, keepdim=True), pivot.expand(3, 3), atol=1e-5
    )


def test_sampled_poses_repeat_with_their_seed_and_spread() -> None:
    def draw(spread: tuple[float, float]) -> torch.Tensor:
        return eg3d_cameras.sample_poses(50, torch.Generator().manual_seed(3), spread)

    assert torch.equal(draw((0.3, 0.1)), draw((0.3, 0.1)))
    still = draw((0.0, 0.0))
    assert torch.allclose(still, still[:1].expand_as(still))
    x, y = draw((0.3, 0.1))[:, :2, 3].std(0)
    assert x > 2 * y > 0


def test_refuses_unknown_modes_and_shapes() -> None:
    with pytest.raises(ValueError, match="orig, cor or simplify"):
        eg3d_cameras.labels_from_deep3d(ANGLE, TRANS, "other")  # type: ignore[arg-type]  # what it must refuse
    with pytest.raises(ValueError, match=r"\[n,3\]"):
        eg3d_cameras.labels_from_deep3d(ANGLE[0], TRANS[0])
