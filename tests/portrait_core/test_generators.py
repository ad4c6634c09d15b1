"""The embedded generator's options, the renderer and the building blocks, on small real networks."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    GeneratorSettings,
    Planes,
    Rays,
    RaySampler,
    RaySampling,
    SuperresolutionSettings,
    TriPlaneGenerator,
    load_generator,
    load_latent_layout,
    save_generator,
)
from portrait_core.generators.layers import _Filter, resample_filter, upsample_2x
from portrait_core.generators.triplane import Basis

SMALL: dict[str, Any] = {
    "z_dim": 11,
    "w_dim": 16,
    "c_dim": 0,
    "mapping_kind": "scene",
    "mapping_width": 24,
    "ws_per_layer": False,
    "channels": {4: 12, 8: 12, 16: 8},
    "plane_channels": 4,
    "plane_resolution": 32,
    "use_noise": False,
    "learned_constants": True,
    "basis_planes": {16: 6, 32: 5},
    "base_plane": True,
    "background": {"resolution": 16, "basis_maps": 3},
    "plane_axes": "orthogonal",
    "plane_padding": "border",
    "box_warp": 0.72,
    "feature_channels": 6,
    "decoder_hidden": 16,
    "feature_activation": "linear",
    "density_gain": 10.0,
    "sampling": {"near": 2.25, "far": 3.2, "n_coarse": 10, "n_fine": 6},
    "neural_resolution": 16,
    "superresolution": {
        "input_resolution": 16,
        "channels": [8, 6],
        "upsample": [False, True],
        "resize_input": False,
    },
}


def build(**changes: Any) -> TriPlaneGenerator:
    torch.manual_seed(0)
    return TriPlaneGenerator(GeneratorSettings.model_validate(SMALL | changes))


def assert_close(got: Tensor, wanted: Tensor, rtol: float = 1e-5, atol: float = 1e-5) -> None:
    # torch.testing.assert_close takes seconds at its first call, for what it imports
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, rtol=rtol, atol=atol), float((got - wanted).abs().max())


def cameras(*yaws: float) -> Tensor:
    return torch.cat([torch.from_numpy(orbit_labels(yaw, 0.1)) for yaw in yaws])


def set_density(generator: TriPlaneGenerator, value: float) -> None:
    """Make the raw density the same everywhere."""
    state = generator.state_dict()  # shares the parameters' memory
    state["decoder.net.2.weight"][0] = 0.0
    state["decoder.net.2.bias"][0] = value


@pytest.fixture
def generator() -> TriPlaneGenerator:
    return build()


@pytest.mark.parametrize("batch", [1, 3])
def test_synthesis_shapes(generator: TriPlaneGenerator, batch: int) -> None:
    ws = generator.mapping(torch.randn(batch, 11))
    assert ws.shape == (batch, 1, 16)
    out = generator.synthesis(ws, cameras(*[0.2] * batch))
    assert out["image"].shape == (batch, 3, 32, 32)
    assert out["image_raw"].shape == (batch, 3, 16, 16)
    assert out["image_depth"].shape == out["image_weight"].shape == (batch, 1, 16, 16)
    assert generator.settings.image_resolution == 32
    assert 0 <= out["image_weight"].min() <= out["image_weight"].max() <= 1 + 1e-5


def test_one_row_of_ws_serves_all_layers(generator: TriPlaneGenerator) -> None:
    ws = generator.mapping(torch.randn(2, 11))
    one = generator.planes(ws)
    many = generator.planes(ws.expand(-1, generator.settings.layer_count, -1))
    assert_close(one.volume, many.volume)
    with pytest.raises(ValueError, match=r"ws must be \[B,1,16\] or \[B,6,16\], got \[2, 3, 16\]"):
        generator.planes(ws.expand(-1, 3, -1))


def test_each_row_reaches_its_own_layers(generator: TriPlaneGenerator) -> None:
    rows = generator.mapping(torch.randn(1, 11)).expand(-1, 6, -1).clone()
    base = generator.planes(rows).volume
    for row in range(6):
        changed = rows.clone()
        changed[:, row] += 0.5
        assert not torch.allclose(generator.planes(changed).volume, base, atol=1e-4), row


def test_calls_change_nothing(generator: TriPlaneGenerator) -> None:
    ws, camera = generator.mapping(torch.randn(1, 11)), cameras(0.0)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    first = generator.synthesis(ws, camera)["image"]
    generator.synthesis(ws, camera, 8, sampling=RaySampling(n_coarse=5, n_fine=0), jitter=True)
    assert_close(generator.synthesis(ws, camera)["image"], first, rtol=0, atol=0)
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_jitter_is_seeded(generator: TriPlaneGenerator) -> None:
    ws, camera = generator.mapping(torch.randn(1, 11)), cameras(0.0)

    def render(seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        return generator.synthesis(ws, camera, jitter=True, rng=rng)["image_raw"]

    assert torch.equal(render(1), render(1))
    assert not torch.equal(render(1), render(2))


@pytest.mark.parametrize("n_fine", [0, 6])
def test_no_grad_and_coarse_grad_do_not_change_values(n_fine: int) -> None:
    generator = build()
    sampling = RaySampling(near=2.25, far=3.2, n_coarse=10, n_fine=n_fine)
    planes = generator.planes(generator.mapping(torch.randn(2, 11)))
    rays = Rays.of_cameras(cameras(0.1, -0.3), 24)
    wanted = generator.render_rays(planes, rays, RaySampler(sampling))
    without = sampling.model_copy(update={"coarse_grad": False})
    with torch.no_grad():
        chunked = generator.render_rays(planes, rays, RaySampler(sampling))
    for got in (chunked, generator.render_rays(planes, rays, RaySampler(without))):
        assert_close(got.features, wanted.features, rtol=1e-4, atol=1e-5)
        assert_close(got.depth, wanted.depth, rtol=1e-4, atol=1e-5)
        assert_close(got.accumulation, wanted.accumulation, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(generator: TriPlaneGenerator) -> None:
    ws = generator.mapping(torch.randn(2, 11))
    out = generator.synthesis(ws, cameras(0.3, -0.2))
    (out["image"].square().mean() + out["image_depth"].mean()).backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_fast_and_slow_parameters_share_out_all() -> None:
    generator = build()
    fast, slow = generator.fast_parameters(), generator.slow_parameters()
    names = {id(p): name for name, p in generator.named_parameters()}
    assert {names[id(p)] for p in fast} == {
        "backbone.synthesis.b8.learned_const",
        "backbone.synthesis.b16.learned_const",
        "backbone.synthesis.basis.16.maps",
        "backbone.synthesis.basis.32.maps",
        "backbone.synthesis.base_plane",
        "backbone.synthesis.background.basis.maps",
        "backbone.synthesis.background.base_plane",
    }
    assert len(fast) + len(slow) == len(names)
    assert not {id(p) for p in fast} & {id(p) for p in slow}


def test_empty_space_shows_the_wall() -> None:
    generator = build()
    set_density(generator, -100.0)
    planes = generator.planes(generator.mapping(torch.randn(1, 11)))
    rays = Rays.of_cameras(cameras(0.3), 12)
    seen = generator.render_rays(planes, rays)
    assert seen.accumulation.abs().max() < 1e-5
    hit = rays.points(seen.depth)
    assert_close(hit[..., 2], torch.full_like(hit[..., 2], -0.4))
    assert planes.background_plane is not None
    wanted = F.grid_sample(
        planes.background_plane, hit[:, None, :, :2] / 0.8, align_corners=False, padding_mode="border"
    )
    assert_close(seen.features, wanted[:, :, 0].transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_weight_of_uniform_density_follows_the_absorption_law() -> None:
    generator = build(background=None, superresolution=None)
    set_density(generator, 1.5)
    planes = generator.planes(generator.mapping(torch.randn(1, 11)))
    sampling = RaySampling(near=2.25, far=3.2, n_coarse=9, n_fine=0)
    seen = generator.render_rays(planes, Rays.of_cameras(cameras(0.0), 4), RaySampler(sampling))
    optical = F.softplus(torch.tensor(0.5)) * 10.0 * (3.2 - 2.25)
    assert_close(seen.accumulation, (1 - torch.exp(-optical)).expand_as(seen.accumulation))


def test_nothing_beyond_the_wall_is_seen() -> None:
    generator = build(box_warp=4.0)
    set_density(generator, -1.5)
    planes = generator.planes(generator.mapping(torch.randn(1, 11)))
    rays = Rays.of_cameras(cameras(0.0), 4)
    near = RaySampling(near=2.25, far=3.2, n_coarse=96, n_fine=0)
    far = RaySampling(near=2.25, far=4.15, n_coarse=191, n_fine=0)
    short, long = (generator.render_rays(planes, rays, RaySampler(sampling)) for sampling in (near, far))
    assert 0.3 < short.accumulation.min() < short.accumulation.max() < 0.6
    assert_close(short.accumulation, long.accumulation, rtol=0, atol=1e-2)


def test_an_open_top_is_empty_above_the_box_only() -> None:
    generator = build(open_top=True, box_warp=0.72)
    set_density(generator, 5.0)
    planes = generator.planes(generator.mapping(torch.randn(1, 11)))
    points = torch.tensor([[[0.0, 0.35, 0.0], [0.0, 0.37, 0.0], [0.0, -0.5, 0.0], [0.5, 0.0, 0.0]]])
    sigma = generator.sample_points(planes, points)[1][0, :, 0]
    assert_close(sigma, torch.tensor([5.0, -20.0, 5.0, 5.0]))


def test_plane_axes_and_padding() -> None:
    ramp = torch.zeros(1, 3, 4, 8, 8)
    ramp[0, 2, 0] = torch.linspace(-1, 1, 8)[:, None]  # third plane, growing along its height
    planes = Planes(ramp, None)
    up, out = torch.tensor([[[0.0, 0.1, 0.0]]]), torch.tensor([[[0.0, 1.0, 0.0]]])
    orthogonal = build(background=None).renderer
    published = build(background=None, plane_axes="published", plane_padding="zeros").renderer
    assert orthogonal.sample_planes(planes, up)[0, 0, 0] > 0.05  # height of (z,y) is y
    assert published.sample_planes(planes, up)[0, 0, 0].abs() < 1e-6  # height of (z,x) is x
    assert orthogonal.sample_planes(planes, out)[0, 0, 0] == pytest.approx(1 / 3)
    assert published.sample_planes(planes, out).abs().max() == 0


def test_a_flow_starts_as_no_displacement_and_then_moves_the_planes() -> None:
    still, moving = build(), build(flow={16: 3})
    moving.load_state_dict(still.state_dict(), strict=False)
    ws = still.mapping(torch.randn(2, 11))
    wanted = still.planes(ws).volume
    assert_close(moving.planes(ws).volume, wanted)

    flow = moving.backbone.synthesis.flow
    assert flow is not None
    basis = cast(Basis, flow.basis["16"])
    with torch.no_grad():  # every mode is one column of a 32-pixel plane, and the latent picks the first
        basis.maps.fill_(2 / 32)
        basis.mixing.zero_()
        basis.mixing[:, 0, 0] = 1
        basis.style.bias.fill_(1)
        seen = moving.planes(ws).volume
    assert_close(seen[..., :-1], wanted[..., 1:], atol=1e-5, rtol=1e-4)
    assert_close(seen[..., -1], wanted[..., -1], atol=1e-5, rtol=1e-4)


def test_superresolution_runs_on_patches(generator: TriPlaneGenerator) -> None:
    ws = generator.mapping(torch.randn(1, 11))
    features = torch.randn(1, 6, 24, 24)
    whole = generator.superresolve(features, ws)
    patch = generator.superresolve(features[:, :, 4:20, 4:20], ws)
    assert whole.shape == (1, 3, 48, 48)
    assert patch.shape == (1, 3, 32, 32)
    margin = 10  # pixels that a patch's border reaches
    assert_close(
        patch[..., margin:-margin, margin:-margin],
        whole[..., 8 + margin : 40 - margin, 8 + margin : 40 - margin],
        rtol=1e-4,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match="no super-resolution"):
        build(superresolution=None).superresolve(features, ws)


def test_patches_are_resized_as_the_whole_rendering_is() -> None:
    sr = SuperresolutionSettings(input_resolution=32, channels=(6, 5), upsample=(False, True))
    generator = build(superresolution=sr)
    ws = generator.mapping(torch.randn(1, 11))
    features = torch.randn(1, 6, 16, 16)
    whole = generator.superresolve(features, ws)
    patch = generator.superresolve(features[:, :, 2:14, 2:14], ws, 16)
    assert whole.shape == (1, 3, 64, 64)
    assert patch.shape == (1, 3, 48, 48)
    assert_close(patch[..., 14:-14, 14:-14], whole[..., 22:-22, 22:-22], rtol=1e-4, atol=1e-5)
    assert generator.settings.patch_step(16) == 1
    assert generator.settings.patch_step(48) == 3
    with pytest.raises(ValueError, match="patch of 16 of 48 rays"):
        generator.superresolve(features, ws, 48)


def test_upsampling_is_zeros_then_filter() -> None:
    x = torch.randn(2, 3, 5, 7)
    spread = torch.zeros(2, 3, 10, 14)
    spread[..., ::2, ::2] = x
    kernel = (resample_filter() * 4).expand(3, 1, 4, 4)
    wanted = F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=3)
    assert_close(upsample_2x(x, resample_filter()), wanted)


@pytest.mark.parametrize("padding", [1, 2])
def test_filter_gradient(padding: int) -> None:
    taps = resample_filter()
    kernel = taps.expand(2, 1, 4, 4)
    x = torch.randn(1, 2, 6, 7, requires_grad=True)
    wanted = F.conv2d(x, kernel, padding=padding, groups=2)
    # torch leaves Function.apply unannotated
    assert_close(_Filter.apply(x, taps, padding), wanted)  # type: ignore[no-untyped-call]  # as said above
    upstream = torch.randn_like(wanted)
    (wanted * upstream).sum().backward()
    other = x.detach().clone().requires_grad_()
    filtered = _Filter.apply(other, taps, padding)  # type: ignore[no-untyped-call]  # as above
    (filtered * upstream).sum().backward()
    assert x.grad is not None
    assert other.grad is not None
    assert_close(other.grad, x.grad)


def test_noise_modes() -> None:
    generator = build(use_noise=True)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    ws = generator.mapping(torch.randn(1, 11))

    def planes(mode: Any, seed: int = 0) -> Tensor:
        return generator.planes(ws, mode, torch.Generator().manual_seed(seed)).volume

    assert torch.equal(planes("const"), planes("const", 1))
    assert torch.equal(planes("random", 3), planes("random", 3))
    assert not torch.equal(planes("random", 3), planes("random", 4))
    assert not torch.equal(planes("none"), planes("const"))


def test_mapping_refuses_what_it_cannot_do(generator: TriPlaneGenerator) -> None:
    with pytest.raises(ValueError, match=r"truncation_psi=0\.7"):
        generator.mapping(torch.randn(1, 11), truncation_psi=0.7)
    with pytest.raises(ValueError, match=r"z must be \[B,11\], got \[1, 12\]"):
        generator.mapping(torch.randn(1, 12))
    labelled = build(mapping_kind="stylegan", c_dim=25, ws_per_layer=True)
    with pytest.raises(ValueError, match="needs camera labels"):
        labelled.mapping(torch.randn(1, 11))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": {4: 8, 16: 8}}, "every resolution from base_resolution=4"),
        ({"plane_resolution": 48}, "16 times a power of two"),
        ({"basis_planes": {64: 4}}, "basis_planes must name resolutions among"),
        ({"background": {"resolution": 32}}, "background.resolution must be one of"),
        ({"sampling": {"near": 3.0, "far": 2.0}}, "0 < near < far"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_settings_name_the_field_to_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorSettings.model_validate(SMALL | changes)


@pytest.mark.parametrize("half", [True, False])
def test_saved_generators_come_back(generator: TriPlaneGenerator, tmp_path: Path, half: bool) -> None:
    path = tmp_path / "generator.safetensors"
    layout = {"shape": [0, 5], "expression": [5, 11]}
    save_generator(generator, path, latent_layout=layout, metadata={"licence": "CC0"}, half=half)
    loaded = load_generator(path)
    assert loaded.settings == generator.settings
    assert load_latent_layout(path) == layout
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    z = torch.randn(1, 11)
    with torch.no_grad():
        wanted = generator.synthesis(generator.mapping(z), cameras(0.2))["image_raw"]
        got = loaded.synthesis(loaded.mapping(z), cameras(0.2))["image_raw"]
    assert_close(got, wanted, rtol=0, atol=0.05 if half else 1e-6)
    assert all(v.dtype == torch.float32 for v in loaded.state_dict().values())
    assert not any(p.requires_grad for p in loaded.parameters())


def test_files_that_are_no_generators(tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"not a file of tensors")
    for path in (other, tmp_path / "missing.safetensors"):
        with pytest.raises(ValueError, match="cannot read a generator"):
            load_generator(path)


def test_weights_beyond_half_precision_are_refused(generator: TriPlaneGenerator, tmp_path: Path) -> None:
    set_density(generator, 1e6)
    with pytest.raises(ValueError, match=r"decoder\.net\.2\.bias.*half=False"):
        save_generator(generator, tmp_path / "g.safetensors")
