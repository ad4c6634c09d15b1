"""The coefficient regressors on weights of their own: batches, parts, strictness."""

import pytest
import torch

from portrait_core.cameras.eg3d import rotation
from portrait_core.tracking import deca, deep3d
from portrait_core.tracking.encoders import as_input, build


def drawn(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def encoder() -> deca.DecaEncoder:
    torch.manual_seed(0)
    return deca.DecaEncoder.from_state(drawn(deca.DecaEncoder()))


@pytest.fixture(scope="module")
def regressor() -> deep3d.Deep3DEncoder:
    torch.manual_seed(1)
    return deep3d.Deep3DEncoder.from_state(drawn(deep3d.Deep3DEncoder()))


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    return as_input(torch.randint(0, 256, (3, 224, 224, 3), generator=torch.Generator().manual_seed(2)))


def test_faces_do_not_depend_on_their_batch(
    encoder: deca.DecaEncoder, regressor: deep3d.Deep3DEncoder, crops: torch.Tensor
) -> None:
    for network, part in ((encoder, "exp"), (regressor, "angle")):
        together, alone = network.encode(crops), network.encode(crops, batch=2)
        assert torch.allclose(getattr(together, part), getattr(alone, part), atol=1e-5)
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_parts_come_in_their_order(encoder: deca.DecaEncoder, regressor: deep3d.Deep3DEncoder) -> None:
    code = deca.split_code(torch.arange(2 * deca.N_CODE).float().view(2, -1))
    assert [part.shape[1] for part in code[:5]] == list(deca.CODE_SIZES.values())[:5]
    assert code.cam[0].tolist() == [206, 207, 208]
    assert code.light[0, 1].tolist() == [212, 213, 214]  # coefficient first
    parts = deep3d.split_coefficients(torch.arange(deep3d.N_COEFFICIENTS).float()[None])
    assert parts.angle[0].tolist() == [224, 225, 226]
    assert parts.gamma[0, 1, 0] == 236  # colour first
    assert parts.trans[0].tolist() == [254, 255, 256]


def test_crops_of_another_size_or_kind_are_refused(
    encoder: deca.DecaEncoder, regressor: deep3d.Deep3DEncoder
) -> None:
    for network in (encoder, regressor):
        for wrong in (
            torch.zeros(1, 3, 112, 112),
            torch.zeros(3, 224, 224),
            torch.zeros(1, 3, 224, 224).byte(),
        ):
            with pytest.raises(ValueError, match="crop the face first"):
                network(wrong)
    with pytest.raises(ValueError, match="a code is"):
        deca.split_code(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="coefficients are"):
        deep3d.split_coefficients(torch.zeros(257))


def test_weights_must_fit_exactly() -> None:
    state = drawn(deca.DetailDecoder())
    for wrong, said in (
        ({k: v for k, v in state.items() if k != "l1.0.bias"}, "l1.0.bias is missing"),
        (state | {"more": torch.zeros(1)}, "more is unknown"),
        (state | {"l1.0.bias": torch.zeros(2)}, r"shape \(2,\), expected"),
    ):
        with pytest.raises(ValueError, match=said):
            build(deca.DetailDecoder, wrong)


def test_displacements_are_small_and_differentiable() -> None:
    decoder = deca.DetailDecoder.from_state(drawn(deca.DetailDecoder()))
    exp = torch.randn(2, 50, requires_grad=True)
    got = decoder(torch.zeros(2, 3), exp, torch.randn(2, 128))
    assert got.shape == (2, 1, 256, 256)
    assert got.abs().max() <= 0.01
    got.sum().backward()
    assert exp.grad is not None
    assert exp.grad.abs().max() > 0


def test_rotation_is_one() -> None:
    turn = rotation(torch.randn(5, 3, dtype=torch.double))
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(3, dtype=torch.double).expand(5, 3, 3))
    assert torch.allclose(torch.linalg.det(turn), torch.ones(5, dtype=torch.double))
    quarter = rotation(torch.tensor([[0.0, 0.0, torch.pi / 2]]))
    assert torch.allclose(torch.tensor([1.0, 0, 0]) @ quarter[0], torch.tensor([0.0, 1, 0]), atol=1e-6)
