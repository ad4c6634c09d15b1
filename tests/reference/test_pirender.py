"""Parity with PIRenderer (numbers in the reference folder's ``pirender``)."""

import json

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.baselines import pirenderer_windows as windows
from portrait_core.baselines.pirenderer import PIRenderer, PIRendererOutput, warp_by_flow
from tests.plain import pirender
from tests.reference.published import ROOT, error, needs, relative, seeded_state, tensors

FOLDER = ROOT / "pirender"
ATOL = 2e-4
"""The folder's README suggests it; the published code's own float32 is 1.6e-5 from its float64."""
CONSTANT_FLOW = (3.0, -1.5)
"""Pixels of the flow's grid, x and y, of ``constant_flow_warp``."""
OUTPUTS = ("descriptor", "flow_field", "warp_image", "fake_image")
pytestmark = needs("pirender/fixture.npz", "pirender/state_dict.json")


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    return tensors(FOLDER / "fixture.npz")


@pytest.fixture(scope="module")
def network() -> PIRenderer:
    config = json.loads((FOLDER / "state_dict.json").read_text())
    made = PIRenderer.from_state(seeded_state(config["state_dict"], config["seed"]))
    assert [(name, list(value.shape)) for name, value in made.state_dict().items()] == list(
        config["state_dict"].items()
    )
    assert sum(value.numel() for value in made.parameters()) == config["parameters"]
    return made


@pytest.fixture(scope="module")
def image(published: dict[str, Tensor]) -> Tensor:
    return published["image_u8"].permute(2, 0, 1)[None] / 127.5 - 1


@pytest.fixture(scope="module")
def outputs(network: PIRenderer, published: dict[str, Tensor], image: Tensor) -> PIRendererOutput:
    driving = published["semantic"]
    with torch.no_grad():
        return network(image.expand(len(driving), -1, -1, -1), driving)


def thinned(picture: Tensor, like: Tensor) -> Tensor:
    """Every so many pixels of ``picture``, as the folder keeps pictures."""
    step = picture.shape[-1] // like.shape[-1]
    return picture[..., ::step, ::step]


def row(picture: Tensor, kept: Tensor, whole: Tensor) -> Tensor:
    """The row of ``picture [3,S,S]`` that the folder keeps ``whole [3,S]``, found by the thinned ``kept``."""
    step = picture.shape[-1] // kept.shape[-1]
    away = (kept - whole[:, None, ::step]).abs().amax((0, 2))
    assert away.min() == 0
    return picture[:, step * int(away.argmin())]


def test_every_output(outputs: PIRendererOutput, published: dict[str, Tensor]) -> None:
    assert error(outputs.descriptor[..., None], published["descriptor"]) < ATOL
    assert error(outputs.flow_field, published["flow_field"]) < ATOL
    for name, picture in (("warp", outputs.warp), ("fake", outputs.image)):
        kept, whole = published[f"{name}_image"], published[f"{name}_rows"]
        assert error(thinned(picture, kept), kept) < ATOL, name
        assert error(row(picture[0], kept[0], whole), whole) < ATOL, name


def test_warps_by_constant_flows(published: dict[str, Tensor], image: Tensor) -> None:
    size = published["flow_field"].shape[1:]
    kept, whole = published["zero_flow_warp"], published["zero_flow_row"]
    still = warp_by_flow(image, torch.zeros(1, *size))
    assert error(thinned(still, kept), kept) < 1e-5
    assert error(row(still[0], kept[0], whole), whole) < 1e-5
    assert error(still, image) > 0.1  # zero flow is not the identity
    flow = torch.tensor(CONSTANT_FLOW)[None, :, None, None].expand(1, *size)
    kept = published["constant_flow_warp"]
    assert error(thinned(warp_by_flow(image, flow), kept), kept) < 1e-5


def test_windows(published: dict[str, Tensor]) -> None:
    track, frames = published["track"].numpy(), published["frames"].tolist()
    radius = published["windows"].shape[2] // 2
    assert radius == windows.RADIUS
    assert np.array_equal(windows.windows(track, frames), published["windows"].numpy())
    own = published["source_row"].numpy()
    assert windows.crop_ratio(track, own) == pytest.approx(float(published["crop_ratio"]), rel=1e-6)
    cross = windows.windows(windows.fitted_to(track, own), frames)
    assert np.abs(cross - published["windows_cross"].numpy()).max() < 1e-6


@pytest.mark.slow
def test_double_precision_and_gradients(
    network: PIRenderer, published: dict[str, Tensor], image: Tensor, outputs: PIRendererOutput
) -> None:
    """Our float32, in values and gradients, against our float64, and that against the plain one."""
    double = PIRenderer.from_state({name: value.double() for name, value in network.state_dict().items()})
    driving = published["semantic"][:1]
    with torch.no_grad():
        plain = pirender.generate(double.state_dict(), image.double(), driving.double())
    gradients: list[tuple[Tensor, ...]] = []
    for one, kind in ((double, torch.float64), (network, torch.float32)):
        inputs = [image.to(kind).requires_grad_(), driving.to(kind).requires_grad_()]
        weights = [
            one.get_parameter("mapping_net.first.0.weight"),
            one.get_parameter("editing_net.decoder.final.model.0.weight"),
        ]
        for weight in weights:
            weight.requires_grad_()
        made = one(*inputs)
        draw = torch.randn(made.image.shape, generator=torch.Generator().manual_seed(0)).to(kind)
        made.descriptor.retain_grad()
        (made.image * draw).sum().backward()
        gradients.append(tuple(x.grad for x in (*inputs, made.descriptor, *weights)))
        for weight in weights:
            weight.requires_grad_(False)
        if kind is torch.float64:
            for name, ours, other, single in zip(OUTPUTS, made, plain, outputs, strict=True):
                assert error(ours, other) < 1e-9, name
                print(f"{name}: float32 is {error(single[:1].double(), ours):.1e} from float64")
                assert error(single[:1].double(), ours) < ATOL, name
    for name, exact, single in zip(
        ("image", "window", "descriptor", "first", "final"), *gradients, strict=True
    ):
        print(f"gradient of {name}: float32 is {relative(single.double(), exact):.1e} from float64")
        assert relative(single.double(), exact) < 3e-2, name
