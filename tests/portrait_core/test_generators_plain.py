"""Our generator against the plain implementation: values and gradients, every way a call can be made.

Random weights and small sizes, so nothing is needed but the checkout. Both run in double precision too, where
only formulas can differ: in float32, rounding moves gradients of cameras across texel borders.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    StyleGAN2Generator,
    StyleGAN2Settings,
    TriPlaneGenerator,
)
from portrait_core.generators.settings import PUBLISHED_SUPERRESOLUTION
from tests.plain import eg3d, stylegan2
from tests.plain.eg3d import PlainGenerator

SMALL: dict[str, Any] = {
    "z_dim": 9,
    "w_dim": 12,
    "channels": {4: 7, 8: 6, 16: 5},
    "plane_channels": 4,
    "box_warp": 1.0,
    "feature_channels": 6,
    "decoder_hidden": 10,
    "sampling": {"n_coarse": 9, "n_fine": 7},
}
OUTPUTS = ("image", "image_raw", "image_depth")
DTYPES = (torch.float32, torch.float64)


@pytest.fixture
def no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours leaves out the published 1e-10, which double precision shows."""
    monkeypatch.setattr(eg3d, "LEAK", 0.0)


pytestmark = pytest.mark.usefixtures("no_leak")


def build(
    module: str = "SuperresolutionHybrid8XDC", dtype: torch.dtype = torch.float64, **changes: Any
) -> TriPlaneGenerator:
    """A published kind of generator with small channels, and none of its weights at a special value."""
    published = PUBLISHED_SUPERRESOLUTION[module]
    antialias = changes.pop("antialias", True)
    size = published.input_resolution // 8
    sr = published.model_copy(update={"channels": (5, 4), "input_resolution": size, "antialias": antialias})
    values = SMALL | {"neural_resolution": size, "superresolution": sr} | changes
    torch.manual_seed(3)
    generator = TriPlaneGenerator(GeneratorSettings.model_validate(values))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        generator.backbone.get_buffer("mapping.w_avg").normal_()
        generator.decoder.get_parameter("net.0.weight").mul_(3.0)  # else all points look alike
        generator.decoder.get_parameter("net.2.weight")[0].mul_(5.0)
    return generator.to(dtype)


def plain(generator: TriPlaneGenerator, grad: bool = False) -> PlainGenerator:
    """The same weights; with ``grad``, parameters of its own to differentiate by."""
    return PlainGenerator.of(generator, generator.settings, grad)


def inputs(generator: TriPlaneGenerator, batch: int) -> tuple[Tensor, Tensor]:
    """Rows of ws that differ, and cameras that differ in everything."""
    dtype = generator.decoder.get_parameter("net.0.weight").dtype
    source = torch.Generator().manual_seed(batch)
    s = generator.settings
    ws = torch.randn(batch, s.num_ws, s.w_dim, generator=source, dtype=dtype)
    labels = [torch.from_numpy(orbit_labels(0.5 * i - 0.4, 0.2 * i - 0.1)) for i in range(batch)]
    c = torch.cat(labels).to(dtype)
    # off the centre, by no round number: rays along an axis lie exactly on texel borders
    c[:, 18], c[:, 21], c[:, 20] = 0.47, 0.54, c[:, 20] * 1.07
    return ws, c


def relative(got: Tensor | None, wanted: Tensor | None) -> float:
    assert got is not None
    assert wanted is not None
    assert got.shape == wanted.shape
    return float(((got - wanted).norm() / wanted.norm().clamp(min=1e-12)).detach())


def loss(out: dict[str, Tensor]) -> Tensor:
    """Weighs every pixel of every output differently."""
    total = torch.zeros(())
    for i, name in enumerate(OUTPUTS):
        source = torch.Generator().manual_seed(i)
        weights = torch.randn(out[name].shape, generator=source, dtype=torch.float64).to(out[name].dtype)
        total = total + (weights * (out[name] + 0.5 * out[name].square())).mean()
    return total


CASES = [
    (module, batch, factor)
    for module in PUBLISHED_SUPERRESOLUTION
    for batch, factor in ((1, 1.0), (2, 0.625), (3, 1.25))
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("module", "batch", "factor"), CASES)
def test_images(module: str, batch: int, factor: float, dtype: torch.dtype) -> None:
    """At the module's own neural resolution, a smaller and a larger one."""
    generator = build(module, dtype)
    ws, c = inputs(generator, batch)
    size = int(generator.settings.neural_resolution * factor)
    with torch.no_grad():
        got = generator.synthesis(ws, c, size)
        wanted = plain(generator).synthesis(ws, c, size)
    assert wanted["image"].shape[-1] == generator.settings.image_resolution
    assert wanted["image_depth"].std() > 0.01  # a scene, not a wall or a void
    for name in OUTPUTS:
        assert relative(got[name], wanted[name]) < (1e-5 if dtype == torch.float32 else 1e-12), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("module", "batch", "factor"), CASES)
def test_gradients_to_w_of_a_frozen_generator(
    module: str, batch: int, factor: float, dtype: torch.dtype
) -> None:
    generator = build(module, dtype).eval().requires_grad_(False)
    size = int(generator.settings.neural_resolution * factor)
    grads = []
    for model in (generator, plain(generator)):
        ws = inputs(generator, batch)[0].requires_grad_()
        loss(model.synthesis(ws, inputs(generator, batch)[1], size)).backward()
        grads.append(ws.grad)
    assert relative(*grads) < (1e-4 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("module", "batch", "factor"), CASES)
def test_gradients_to_everything(module: str, batch: int, factor: float, dtype: torch.dtype) -> None:
    """ws, camera labels and every parameter at once."""
    generator = build(module, dtype)
    other = plain(generator, grad=True)
    size = int(generator.settings.neural_resolution * factor)
    leaves = []
    for model in (generator, other):
        ws, c = (x.requires_grad_() for x in inputs(generator, batch))
        loss(model.synthesis(ws, c, size)).backward()
        leaves.append((ws, c))
    tolerance = 2e-4 if dtype == torch.float32 else 1e-9
    assert relative(leaves[0][0].grad, leaves[1][0].grad) < tolerance
    # rounding moves this one across texel borders, where bilinear look-ups have kinks
    got, wanted = (label.grad for _, label in leaves)
    assert relative(got, wanted) < (2e-2 if dtype == torch.float32 else 1e-9)
    for name, parameter in generator.named_parameters():
        if name.startswith("superresolution") and name.endswith("noise_strength"):
            assert parameter.grad is None  # that part never adds noise
        elif ".mapping." not in name:
            assert relative(parameter.grad, other.params[name].grad) < tolerance, name


@pytest.mark.parametrize("psi", [1.0, 0.7])
def test_mapping(psi: float) -> None:
    generator = build(label_scale=0.6, mapping_layers=3)
    z, c = torch.randn(3, 9, dtype=torch.float64), inputs(generator, 3)[1]
    other = plain(generator, grad=True)
    got, wanted = generator.mapping(z, c, psi), other.mapping(z, c, psi)
    assert relative(got, wanted) < 1e-12
    got.square().mean().backward()
    wanted.square().mean().backward()
    for name, parameter in generator.backbone.mapping.named_parameters():
        assert relative(parameter.grad, other.params[f"backbone.mapping.{name}"].grad) < 1e-9, name


@pytest.mark.parametrize(
    "changes",
    [
        {"box_warp": 1.6},
        {"decoder_lr_multiplier": 0.5},
        {"antialias": False},
        {"sampling": {"n_coarse": 12, "n_fine": 0}},
        {"sampling": {"near": 2.0, "far": 3.6, "n_coarse": 5, "n_fine": 20}},
        {"plane_channels": 3, "feature_channels": 3},
        {"channels": {4: 5}},
    ],
    ids=str,
)
def test_settings(changes: dict[str, Any]) -> None:
    """Other published settings, at a neural resolution that is resized to the module's."""
    generator = build(**changes)
    other = plain(generator)
    grads = []
    for model in (generator, other):
        ws, c = inputs(generator, 2)
        ws.requires_grad_()
        loss(model.synthesis(ws, c, 21)).backward()
        grads.append(ws.grad)
    assert relative(*grads) < 1e-10
    with torch.no_grad():
        got = generator.synthesis(ws, c, 10, noise_mode="none")
        wanted = other.synthesis(ws, c, 10, noise=False)
    for name in OUTPUTS:
        assert relative(got[name], wanted[name]) < 1e-12, name


def test_points() -> None:
    """Inside the box, outside it, and on texel borders."""
    generator = build()
    ws, _ = inputs(generator, 2)
    source = torch.Generator().manual_seed(0)
    points = torch.rand(2, 300, 3, generator=source, dtype=torch.float64) * 1.4 - 0.7
    points[:, :20] = (points[:, :20] * 16).round() / 16
    with torch.no_grad():
        features, density = generator.sample_points(generator.planes(ws), points)
        other = plain(generator)
        colours, wanted = other.evaluate(other.planes(ws), points)
    assert relative((features + 1) / 2, colours) < 1e-12
    assert relative(density, wanted) < 1e-12


def test_skewed_cameras() -> None:
    generator = build()
    ws, c = inputs(generator, 1)
    c[:, 17] = 0.2
    with torch.no_grad():
        got, wanted = generator.synthesis(ws, c), plain(generator).synthesis(ws, c)
    assert relative(got["image_raw"], wanted["image_raw"]) < 1e-12


def test_the_published_leak_of_intervals_is_below_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = build()
    ws, c = inputs(generator, 1)
    rows = ws.requires_grad_()
    results = []
    for leak in (0.0, 1e-10):
        monkeypatch.setattr(eg3d, "LEAK", leak)
        out = plain(generator).synthesis(rows, c)
        results.append([*(out[name] for name in OUTPUTS), *torch.autograd.grad(loss(out), rows)])
    for without, published in zip(*results, strict=True):
        assert 0 < relative(without, published) < 3e-8  # float32 has 6e-8


SMALL_CLAMP = 0.6
"""Of layers whose outputs have about unit variance, so a third of them or so is beyond."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("module", PUBLISHED_SUPERRESOLUTION)
def test_a_clamp_that_bites(module: str, dtype: torch.dtype) -> None:
    """In the backbone and in super-resolution: values, and gradients to ws and every parameter."""
    clamped = PUBLISHED_SUPERRESOLUTION[module].model_copy(update={"conv_clamp": SMALL_CLAMP})
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setitem(PUBLISHED_SUPERRESOLUTION, module, clamped)
        generator = build(module, dtype, conv_clamp=SMALL_CLAMP)
    free = build(module, dtype)
    free.load_state_dict(generator.state_dict())
    other = plain(generator, grad=True)
    ws, c = inputs(generator, 2)
    results = []
    for model in (generator, other):
        rows = ws.clone().requires_grad_()
        out = model.synthesis(rows, c)
        loss(out).backward()
        results.append((out, rows.grad))
    tolerance = (1e-5, 2e-4) if dtype == torch.float32 else (1e-12, 1e-9)
    for name in OUTPUTS:
        assert relative(results[0][0][name], results[1][0][name]) < tolerance[0], name
    assert relative(results[0][1], results[1][1]) < tolerance[1]
    for name, parameter in generator.named_parameters():
        wanted = other.params[name].grad
        if wanted is not None and ".mapping." not in name:
            assert relative(parameter.grad, wanted) < tolerance[1], name
    with torch.no_grad():
        unclamped = free.synthesis(ws, c)
    for name in OUTPUTS:
        assert relative(unclamped[name], results[0][0][name]) > 0.02, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_stylegan2_generator_whose_clamp_bites(dtype: torch.dtype) -> None:
    torch.manual_seed(4)
    settings = StyleGAN2Settings(
        z_dim=6, w_dim=8, mapping_layers=2, channels={4: 6, 8: 5, 16: 4}, conv_clamp=SMALL_CLAMP
    )
    generator = StyleGAN2Generator(settings).to(dtype)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    ws = torch.randn(2, settings.num_ws, 8, dtype=dtype)
    params = stylegan2.scope(stylegan2.ordinary(generator.state_dict()), "synthesis")
    images, grads = [], list[Tensor]()
    for clamp in (SMALL_CLAMP, None):
        rows = ws.clone().requires_grad_()
        image = stylegan2.synthesis(params, rows, settings.resolutions, clamp=clamp)
        images.append(image)
        grads += torch.autograd.grad(image.square().mean(), rows)
    rows = ws.clone().requires_grad_()
    image = generator.synthesis(rows)
    (grad,) = torch.autograd.grad(image.square().mean(), rows)
    tolerance = (1e-5, 1e-4) if dtype == torch.float32 else (1e-12, 1e-10)
    assert relative(image, images[0]) < tolerance[0]
    assert relative(grad, grads[0]) < tolerance[1]
    assert relative(image, images[1]) > 0.05


def test_a_stylegan2_generator_with_labels() -> None:
    """Mapping with truncation and cut-off, images with noise and without."""
    torch.manual_seed(5)
    settings = StyleGAN2Settings(z_dim=6, w_dim=8, c_dim=3, mapping_layers=3, channels={4: 6, 8: 5})
    generator = StyleGAN2Generator(settings).double()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        generator.mapping.w_avg.normal_()
    params = stylegan2.ordinary(generator.state_dict())
    mapping, synthesis = (stylegan2.scope(params, name) for name in ("mapping", "synthesis"))
    z, c = (torch.randn(3, n, dtype=torch.float64) for n in (6, 3))
    rows, psi, cutoff = settings.num_ws, 0.6, 2
    full, cut = (stylegan2.mapping(mapping, z, c, rows=rows, layers=3, psi=one) for one in (1.0, psi))
    assert relative(generator.mapping(z, c), full) < 1e-12
    assert relative(generator.mapping(z, c, psi), cut) < 1e-12
    mixed = torch.cat([cut[:, :cutoff], full[:, cutoff:]], 1)
    assert relative(generator.mapping(z, c, psi, cutoff), mixed) < 1e-12
    images = {
        mode: stylegan2.synthesis(synthesis, mixed, settings.resolutions, noise=mode == "const")
        for mode in ("const", "none")
    }
    for mode, image in images.items():
        assert relative(generator.synthesis(mixed, mode), image) < 1e-12
    assert relative(images["const"], images["none"]) > 1e-3
