"""FLAME through the morphable head: codes, gradients, the sliding contour."""

import numpy as np
import pytest
import torch

from portrait_core.face_model import flame
from portrait_core.face_model.head import MorphableHead
from tests.portrait_core import flame_like


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return flame.flame_head(flame_like.arrays(), 3, 2, flame_like.embedding())


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_rows_of_a_batch_are_independent(head: MorphableHead, batch: int) -> None:
    generator = torch.Generator().manual_seed(batch)
    shape, exp, pose, eyes = (torch.randn(batch, n, generator=generator) * 0.3 for n in (3, 2, 6, 6))
    together = flame.decode(head, shape, exp, pose, eyes)
    assert together.vertices.shape == (batch, 12, 3)
    assert together.joints.shape == (batch, 5, 3)
    slide = flame.FlameLandmarks(flame_like.embedding(), head.faces)
    marks = slide(together.vertices, pose[:, :3])
    assert marks.shape == (batch, 68, 3)
    for i in range(batch):
        row = slice(i, i + 1)
        alone = flame.decode(head, shape[row], exp[row], pose[row], eyes[row])
        assert torch.allclose(alone.vertices, together.vertices[row], atol=1e-6)
        assert torch.allclose(slide(alone.vertices, pose[row, :3]), marks[row], atol=1e-6)


def test_gradients_are_those_of_differences() -> None:
    head = flame.flame_head(flame_like.arrays(6), 2, 2).double()
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, n, generator=generator, dtype=torch.double) * 0.3 for n in (2, 2, 6, 6)]
    for value in inputs:
        value.requires_grad_()
    assert torch.autograd.gradcheck(lambda *codes: tuple(flame.decode(head, *codes)), inputs)
    rest = torch.zeros(1, 6, dtype=torch.double, requires_grad=True)
    flame.decode(head, inputs[0][:1], inputs[1][:1], rest).vertices.sum().backward()
    assert rest.grad is not None
    assert torch.isfinite(rest.grad).all()  # the axis of no rotation is not defined, its derivative is


def test_directions_are_the_first_of_each_kind() -> None:
    arrays = flame_like.arrays()
    full, small = flame.flame_head(arrays, 300, 100), flame.flame_head(arrays, 4, 3)
    shape, exp, pose = torch.randn(2, 4), torch.randn(2, 3), torch.randn(2, 6) * 0.2
    wide_shape, wide_exp = torch.nn.functional.pad(shape, (0, 296)), torch.nn.functional.pad(exp, (0, 97))
    a, b = (
        flame.decode(full, wide_shape, wide_exp, pose).vertices,
        flame.decode(small, shape, exp, pose).vertices,
    )
    assert torch.allclose(a, b, atol=1e-5)


def test_contour_rows() -> None:
    yaw = torch.tensor([0.0, 0.4, 1.0, 38.7, 39.4, 80.0, -0.4, -1.0, -38.7, -39.4, -80.0])
    root = torch.stack([torch.zeros_like(yaw), torch.deg2rad(yaw), torch.zeros_like(yaw)], 1)
    wanted = [0, 0, 1, 39, 39, 39, 0, 40, 78, 78, 78]
    assert flame.contour_row(root).tolist() == wanted
    assert flame.contour_row(torch.zeros_like(root), root).tolist() == wanted


def test_transfer_keeps_the_head_and_takes_the_jaw() -> None:
    source, target = torch.arange(6.0)[None], torch.arange(12.0).reshape(2, 6) + 10
    assert flame.transfer_pose(source, target).tolist() == [[0, 1, 2, 13, 14, 15], [0, 1, 2, 19, 20, 21]]


def test_refuses_what_does_not_fit(head: MorphableHead) -> None:
    with pytest.raises(ValueError, match="n_shape=301"):
        flame.flame_head(flame_like.arrays(), 301)
    with pytest.raises(ValueError, match="n_expression=0"):
        flame.flame_head(flame_like.arrays(), 10, 0)
    with pytest.raises(ValueError, match="pose must be"):
        flame.decode(head, torch.zeros(1, 3), torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="cut it"):
        flame.decode(head, torch.zeros(1, 4), torch.zeros(1, 2), torch.zeros(1, 6))
    with pytest.raises(ValueError, match="belongs to this head"):
        flame.FlameLandmarks(flame_like.embedding(99), head.faces)
    assert np.isfinite(head.landmarks(head.decode(torch.zeros(1, 3), torch.zeros(1, 2))).numpy()).all()
