"""The Basel face's decoding on a face of a few vertices."""

import numpy as np
import pytest
import torch

from portrait_core.tracking.bfm import BfmModel
from portrait_core.tracking.deep3d import N_COEFFICIENTS, split_coefficients
from portrait_core.weights.readers.mat_files import BfmArrays


@pytest.fixture(scope="module")
def model() -> BfmModel:
    """Two triangles that share an edge, and a vertex in neither."""
    rng = np.random.default_rng(0)
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 5, 5]], float)
    return BfmModel(
        BfmArrays(
            mean_shape=square,
            identity=rng.normal(size=(5, 3, 80)) * 0.01,
            expression=rng.normal(size=(5, 3, 64)) * 0.01,
            mean_texture=np.full((5, 3), 127.5),
            texture=rng.normal(size=(5, 3, 80)),
            faces=np.array([[0, 1, 2], [0, 2, 3]]),
            point_faces=np.array([[0, 1], [0, 2], [0, 1], [1, 2], [2, 2]]).repeat(4, 1),
            keypoints=np.zeros(68, np.int64),
        )
    )


def test_the_mean_face_is_centred_and_seen_from_ten_units(model: BfmModel) -> None:
    face = model(split_coefficients(torch.zeros(1, N_COEFFICIENTS)))
    assert face.shape.mean(1).abs().max() < 1e-6
    assert torch.allclose(face.camera_vertices[..., 2], 10 - face.shape[..., 2])
    assert torch.allclose(face.normals[0, :4], torch.tensor([0.0, 0.0, 1.0]).expand(4, 3))
    assert not face.normals[0, 4].any()  # no triangle, no normal
    # ambient light alone: 0.8 of the first harmonic
    assert torch.allclose(face.color[0, 0], torch.full((3,), 0.5 * 0.8 * torch.pi**0.5 / 2), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_rows_are_independent_and_differentiable(model: BfmModel, batch: int) -> None:
    code = torch.randn(batch, N_COEFFICIENTS, generator=torch.Generator().manual_seed(batch)) * 0.3
    code.requires_grad_()
    face = model(split_coefficients(code))
    assert face.landmarks.shape == (batch, 68, 2)
    alone = model(split_coefficients(code[-1:]))
    assert torch.allclose(alone.color[0], face.color[-1], atol=1e-5)
    (grad,) = torch.autograd.grad(face.color[0].sum() + face.landmarks[0].sum(), code)
    assert grad[0].abs().sum() > 0
    assert not grad[1:].any()
