"""Parity with Face-vid2vid's usual unofficial implementation (the reference folder's ``facevid2vid``).

The networks in full are slow; their arithmetic is not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from portrait_core.baselines.facevid2vid_generators import Drawing, generator_from_state
from portrait_core.baselines.facevid2vid_keypoints import (
    Antialias,
    HeadEstimator,
    HeadState,
    KeypointDetector,
)
from portrait_core.baselines.facevid2vid_pose import (
    pose_keypoints,
    relative_keypoints,
    relative_scale,
    rotation_from_degrees,
)
from portrait_core.tracking.encoders import as_input
from tests.reference.published import ROOT, error, needs, relative, seeding, tensors

FOLDER = ROOT / "facevid2vid"
ATOL = 2e-4
"""As the folder suggests."""
FINE = 2e-5
"""Of what passes no deep network."""
GRADIENT = 2e-3
"""Relative difference of gradients in single precision."""
OF_KINKS = 2e-2
"""The same through the estimator's 50 ReLUs and its maxima, some of which are at another side of a kink."""
ROW = 100
"""Of the prediction that the folder keeps whole."""
NETWORKS: dict[str, Callable[[dict[str, Tensor]], nn.Module]] = {
    "kp_detector": KeypointDetector.from_state,
    "he_estimator": HeadEstimator.from_state,
    "generator": generator_from_state,
    "generator_original": generator_from_state,
}
PARTS = tuple(NETWORKS)
pytestmark = needs("facevid2vid/fixture.npz")


@pytest.fixture(scope="module")
def fixture() -> dict[str, Tensor]:
    return tensors(FOLDER / "fixture.npz")


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return json.loads((FOLDER / "state_dict.json").read_text())


def input_of(fixture: dict[str, Tensor], picture: str) -> Tensor:
    return as_input(fixture[f"{picture}_u8"][None])


def changed(prefix: str, name: str, value: Tensor, kernel: Tensor) -> Tensor:
    """The recipe's value of one entry, as the folder changes it."""
    in_hourglass = name.startswith("dense_motion_network.hourglass.")
    if (prefix, name) == ("kp_detector", "down.weight"):
        return kernel.expand_as(value).clone()
    if name in ("fc_roll.weight", "fc_pitch.weight", "fc_yaw.weight"):
        return value * 0.002
    if name in ("fc_t.weight", "fc_exp.weight"):
        return value * 0.0002
    if name == "dense_motion_network.mask.weight":
        return value * 8
    return value * 1.5 if value.ndim in (4, 5) and (prefix != "generator" or in_hourglass) else value


def with_spectral_norms(state: dict[str, Tensor]) -> None:
    """Put the vectors that two steps of power iteration find in their places."""
    for name, weight in list(state.items()):
        if not name.endswith("weight_orig"):
            continue
        matrix = weight.double().flatten(1)
        v = nn.functional.normalize(torch.ones(matrix.shape[1], dtype=torch.float64), dim=0)
        u = nn.functional.normalize(matrix @ v, dim=0)
        v = nn.functional.normalize(matrix.T @ u, dim=0)
        u = nn.functional.normalize(matrix @ v, dim=0)
        state[name.replace("weight_orig", "weight_u")] = u.float()
        state[name.replace("weight_orig", "weight_v")] = v.float()


def state_of(part: str, fixture: dict[str, Tensor], description: dict[str, Any]) -> dict[str, Tensor]:
    """The folder's weights of one part."""
    prefix, recipe = part.removesuffix("_original"), seeding()
    state = {}
    for name, shape in description["state_dict"][part].items():
        if name.endswith(("weight_u", "weight_v")):
            state[name] = torch.empty(shape)  # its place in the order
            continue
        value = torch.from_numpy(recipe.seeded_array(f"{prefix}.{name}", tuple(shape), description["seed"]))
        state[name] = changed(prefix, name, value, fixture["antialias_kernel"])
    with_spectral_norms(state)
    return state


def thinned(value: Tensor, like: Tensor) -> Tensor:
    """Every n-th number along each axis, as few as ``like`` has."""
    steps = [-(-full // kept) for full, kept in zip(value.shape, like.shape, strict=True)]
    return value[tuple(slice(None, None, step) for step in steps)]


def close(got: Tensor, wanted: Tensor, atol: float = ATOL) -> None:
    assert error(thinned(got, wanted), wanted) < atol


def motions(fixture: dict[str, Tensor], which: str) -> HeadState:
    return HeadState(*(fixture[f"{which}_{name}"] for name in HeadState._fields))


@pytest.mark.parametrize("part", PARTS)
def test_names_and_shapes(part: str, description: dict[str, Any]) -> None:
    wanted = {name: tuple(shape) for name, shape in description["state_dict"][part].items()}
    entries = {name: torch.empty(shape, device="meta") for name, shape in wanted.items()}
    network = NETWORKS[part](entries)
    ours = [(name, tuple(value.shape)) for name, value in network.state_dict().items()]
    assert ours == list(wanted.items())


def test_antialias(fixture: dict[str, Tensor]) -> None:
    blur = Antialias(len(fixture["antialias_kernel"]))
    assert error(blur.weight, fixture["antialias_kernel"].expand_as(blur.weight)) < 1e-7
    assert error(blur(input_of(fixture, "source")), fixture["antialias_source"]) < FINE


def test_poses(fixture: dict[str, Tensor]) -> None:
    state = motions(fixture, "motion")
    assert error(state.degrees(), fixture["motion_degrees"]) < ATOL
    assert error(rotation_from_degrees(fixture["motion_degrees"]), fixture["motion_rotation"]) < 1e-6
    got = pose_keypoints(fixture["kp_canonical"], state.degrees(), state.t, state.exp)
    assert error(got, fixture["motion_keypoints"]) < FINE
    for name in ("source", "driving"):
        state = motions(fixture, f"he_{name}")
        assert error(state.degrees()[0], fixture[f"he_{name}_degrees"]) < ATOL
        got = pose_keypoints(fixture["kp_canonical"], state.degrees(), state.t, state.exp)
        assert error(got, fixture[f"pipeline_kp_{name}"]) < FINE


def test_relative_mode(fixture: dict[str, Tensor]) -> None:
    source, driving, initial = fixture["motion_keypoints"][:3].split(1)
    scale = relative_scale(source, initial)
    assert abs(scale - 1) > 1e-3
    got = relative_keypoints(source, driving, initial, scale)
    assert error(got, fixture["relative_keypoints"]) < FINE


def test_gradients_of_poses_in_single_precision(fixture: dict[str, Tensor]) -> None:
    state = motions(fixture, "motion")
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaves = [value.to(dtype).requires_grad_() for value in (fixture["kp_canonical"], *state)]
        there = HeadState(*leaves[1:])
        keypoints = pose_keypoints(leaves[0], there.degrees(), there.t, there.exp)
        gradients.append(torch.autograd.grad(keypoints.pow(3).sum(), leaves))
    for single, double in zip(*gradients, strict=True):
        assert relative(single, double) < 1e-4


@pytest.fixture(scope="module")
def estimator(fixture: dict[str, Tensor], description: dict[str, Any]) -> HeadEstimator:
    return HeadEstimator.from_state(state_of("he_estimator", fixture, description))


def test_head_states(fixture: dict[str, Tensor], estimator: HeadEstimator) -> None:
    for name in ("source", "driving"):
        state, wanted = estimator(input_of(fixture, name)), motions(fixture, f"he_{name}")
        for got, expected in zip(state, wanted, strict=True):
            assert error(got, expected) < ATOL
        assert error(state.degrees()[0], fixture[f"he_{name}_degrees"]) < 1e-3


def gradients(network: nn.Module, image: Tensor, loss: Callable[[nn.Module, Tensor], Tensor]) -> list[Tensor]:
    """Of a network's loss to its input: in single and in double precision."""
    found = []
    for dtype in (torch.float32, torch.float64):
        leaf = image.to(dtype, copy=True).requires_grad_()
        made = loss(network if dtype == torch.float32 else copy.deepcopy(network).double(), leaf)
        found.append(torch.autograd.grad(made, leaf)[0])
    return found


@pytest.mark.slow
def test_gradient_of_head_states(fixture: dict[str, Tensor], estimator: HeadEstimator) -> None:
    def loss(network: nn.Module, image: Tensor) -> Tensor:
        state: HeadState = network(image)
        return state.degrees().sum() + state.t.sum() + state.exp.pow(2).sum()

    assert relative(*gradients(estimator, input_of(fixture, "source"), loss)) < OF_KINKS


@pytest.fixture(scope="module")
def detector(fixture: dict[str, Tensor], description: dict[str, Any]) -> KeypointDetector:
    return KeypointDetector.from_state(state_of("kp_detector", fixture, description))


@pytest.mark.slow
def test_canonical_keypoints(fixture: dict[str, Tensor], detector: KeypointDetector) -> None:
    image = input_of(fixture, "source")
    assert error(detector(image), fixture["kp_canonical"]) < ATOL

    def loss(network: nn.Module, image: Tensor) -> Tensor:
        return network(image).pow(2).sum()

    assert relative(*gradients(detector, image, loss)) < GRADIENT


def draw(network: Any, fixture: dict[str, Tensor]) -> tuple[Tensor, Drawing]:
    """The folder's drawing, and the volume that it was made of."""
    volume = network.encode(input_of(fixture, "source"))
    source, driving = fixture["motion_keypoints"][:2].split(1)
    return volume, network.draw(volume, source, driving)


@pytest.mark.slow
def test_spade_generator(fixture: dict[str, Tensor], description: dict[str, Any]) -> None:
    network = generator_from_state(state_of("generator", fixture, description))
    assert list(network.state_dict()) == list(description["state_dict"]["generator"])
    volume, drawn = draw(network, fixture)
    close(volume, fixture["feature_3d"])
    close(drawn.motion.mask, fixture["mask"])
    close(drawn.motion.deformation, fixture["deformation"])
    close(drawn.motion.occlusion, fixture["occlusion_map"])
    close(drawn.warped, fixture["warped_2d"])
    close(drawn.picture, fixture["prediction"])
    assert error(drawn.picture[0, :, ROW], fixture["prediction_row"]) < ATOL


@pytest.mark.slow
def test_the_papers_own_decoder(fixture: dict[str, Tensor], description: dict[str, Any]) -> None:
    network = generator_from_state(state_of("generator_original", fixture, description))
    assert list(network.state_dict()) == list(description["state_dict"]["generator_original"])
    close(draw(network, fixture)[1].picture, fixture["prediction_original_decoder"])
    image = input_of(fixture, "source")
    half = nn.functional.avg_pool2d(image, 2)

    def loss(network: nn.Module, driving: Tensor) -> Tensor:
        there: Any = network
        source = fixture["motion_keypoints"][:1].to(driving)
        return there.draw(there.encode(half.to(driving)), source, driving).picture.pow(2).mean()

    assert relative(*gradients(network, fixture["motion_keypoints"][1:2], loss)) < GRADIENT
