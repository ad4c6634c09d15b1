from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from portrait_core.cameras import orbit_labels
from portrait_core.errors import ModelFileError
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators import CameraRays, Patch, PatchRender, TriPlaneGenerator, VolumePatch
from portrait_core.inversion.features import build_features, feature_distance, masked_mean
from portrait_core.inversion.latent import FirstLatent, Inverter
from portrait_core.inversion.reconstruction import Reconstruction, phi_scale
from portrait_core.inversion.statistics import latent_statistics
from portrait_core.inversion.targets import image_array, image_tensor, tuning_image
from portrait_core.settings import InversionSettings
from portrait_core.template.detail_mask import detail_mask
from tests.portrait_core import tiny


def test_features_are_unit_vectors_and_zero_apart_for_equal_images(phi: torch.nn.Module) -> None:
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    maps = phi(image)
    assert [m.shape[1] for m in maps] == [16, 24, 40, 112]
    assert all(m.square().sum(1).max() <= 1 + 1e-5 for m in maps)
    assert feature_distance(maps, maps) == 0
    assert feature_distance(maps, phi(-image)) > 0.01


def test_unknown_or_missing_features_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"inversion\.phi"):
        build_features("alexnet")
    with pytest.raises(ModelFileError, match=r"vgg16-397923af\.pth"):
        build_features("vgg16", tmp_path / "nothing.pth")


def test_masked_mean_ignores_what_the_mask_hides() -> None:
    values = torch.tensor([[[[1.0, 5.0]]]])
    assert masked_mean(values, torch.tensor([[[[1.0, 0.0]]]])) == pytest.approx(1.0, rel=1e-5)
    assert masked_mean(values, torch.zeros(1, 1, 1, 2)) == 0


def test_a_patch_is_the_same_pixels_as_the_whole_away_from_its_border() -> None:
    generator = tiny.generator()
    ws = generator.mapping(torch.randn(1, generator.settings.z_dim))

    def render(patch: Patch) -> VolumePatch:
        rays = CameraRays.of(tiny.CAMERA, tiny.RESOLUTION)
        return generator.render_patch(ws, rays, patch, tiny.SAMPLING)

    whole, patch = render(Patch.whole(tiny.RESOLUTION)), Patch(6, 8, 16, tiny.RESOLUTION)
    part = render(patch)
    assert torch.allclose(part.raw, patch.cut(whole.raw), atol=1e-5)
    assert torch.allclose(part.depth, patch.cut(whole.depth), atol=1e-5)
    border = 8  # the super-resolution's receptive field
    inner = (..., slice(border, -border), slice(border, -border))
    assert torch.allclose(part.image[inner], patch.cut(whole.image)[inner], atol=1e-4)


def test_random_patches_stay_inside_and_central_ones_near_the_middle() -> None:
    rng = torch.Generator().manual_seed(0)
    for draw in (Patch.random, Patch.near_centre):
        patches = [draw(20, 32, rng) for _ in range(50)]
        assert all(0 <= p.row <= 12 and 0 <= p.column <= 12 for p in patches)
        assert len({(p.row, p.column) for p in patches}) > 5
    assert Patch.random(64, 32, rng) == Patch.whole(32)
    with pytest.raises(ValueError, match="neural_resolution"):
        Patch.whole(32).cut(torch.zeros(1, 1, 65, 65))


def inverter(phi: torch.nn.Module, **settings: Any) -> Inverter:
    generator = tiny.generator()
    chosen = InversionSettings(first_steps=12, steps=6, **settings)
    return Inverter(generator, phi, tiny.CAMERA, chosen, tiny.SAMPLING, tiny.RESOLUTION)


def _synthesis(inverter: Inverter, ws: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = inverter.generator
    assert isinstance(generator, TriPlaneGenerator)
    return generator.synthesis(ws, tiny.CAMERA)


def test_the_paper_fits_the_whole_image(phi: torch.nn.Module) -> None:
    assert inverter(phi, patch_share=1.0).middle == Patch.whole(tiny.RESOLUTION)
    assert inverter(phi).middle.size == round(2 / 3 * tiny.RESOLUTION)


@pytest.mark.parametrize("start", ["tracker", "mean"])
def test_inversion_comes_nearer_to_its_target(phi: torch.nn.Module, head: MorphableHead, start: str) -> None:
    inv = inverter(phi, init=start)
    shape, expression = np.zeros(50), np.zeros((1, 52))
    z = inv.tracker_start(shape, expression, head.expression_names) if start == "tracker" else None
    with torch.no_grad():
        goal = inv.generator.mapping(torch.randn(1, inv.generator.settings.z_dim))
        target = tiny.target(_synthesis(inv, goal)["image"][0].clamp(-1, 1))
    before = inv.loss(inv.mean if z is None else inv.generator.mapping(z), target)
    first = inv.first(target, z)
    assert inv.loss(first.ws, target) < 0.9 * before
    assert len(first.losses) == 12
    assert first.appearance.shape == ((41,) if start == "tracker" else (0,))
    refined, losses = inv.next(first.ws, target, frame=1)
    assert len(losses) == 6
    assert inv.loss(refined, target) < inv.loss(first.ws, target)


def test_later_frames_move_as_their_coefficients_do(phi: torch.nn.Module, head: MorphableHead) -> None:
    inv = inverter(phi)
    expression = np.zeros((2, 52))
    expression[1, head.index("jawOpen")] = 1
    z = inv.tracker_start(np.zeros(50), expression, head.expression_names)
    with torch.no_grad():
        target = tiny.target(_synthesis(inv, inv.generator.mapping(z[:1]))["image"][0])
    first = inv.first(target, z[:1])
    ws = inv.moved(first, z[:1], z)
    assert torch.allclose(ws[:1], first.ws, atol=1e-6)
    assert (ws[1:] - first.ws).abs().max() > 1e-3


def published(**changes: Any) -> TriPlaneGenerator:
    """A generator with a mapping like EG3D's: a camera, and a row of ws per layer."""
    torch.manual_seed(0)
    settings = tiny.generator().settings.model_copy(
        update={"mapping_kind": "stylegan", "c_dim": 25, "ws_per_layer": True, "z_dim": 32} | changes
    )
    return TriPlaneGenerator(settings).eval().requires_grad_(False)


@pytest.mark.parametrize(("space", "rows"), [("w", 1), ("w+", 8)])
def test_one_vector_is_found_for_all_layers_or_one_for_each(
    phi: torch.nn.Module, space: Literal["w", "w+"], rows: int
) -> None:
    generator = published()
    chosen = InversionSettings(init="mean", first_steps=5, steps=3, space=space)
    inv = Inverter(generator, phi, tiny.CAMERA, chosen, tiny.SAMPLING, tiny.RESOLUTION)
    target = tiny.target(torch.full((3, tiny.SIZE, tiny.SIZE), 0.3))
    first = inv.first(target, None)
    assert first.ws.shape == (1, rows, 32)
    refined, _ = inv.next(first.ws, target, frame=1)
    assert refined.shape == (1, rows, 32)
    assert generator.planes(refined).volume.shape[0] == 1
    apart = float((first.ws - first.ws[:, :1]).abs().max())
    assert (apart > 1e-4) == (space == "w+")  # free rows part


def test_w_is_measured_over_many_draws_from_the_front() -> None:
    generator = published()
    known = latent_statistics(generator, count=4000)
    assert known.mean.shape == known.deviation.shape == (1, 1, 32)
    z = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(9))
    front = torch.from_numpy(orbit_labels(0.0, 0.0)).expand(len(z), -1)
    w = generator.mapping(z, front)[:, 0]
    assert torch.allclose(known.mean[0, 0], w.mean(0), atol=0.1 * float(known.deviation.max()))
    assert torch.allclose(known.deviation[0, 0], w.std(0), rtol=0.1)
    away = (w - w.mean(0)).square().sum(1).mean().sqrt()
    assert float(known.radius) == pytest.approx(float(away), rel=0.05)
    elsewhere = generator.mapping(z, torch.from_numpy(orbit_labels(0.6, 0.3)).expand(len(z), -1))[:, 0]
    assert (elsewhere.mean(0) - w.mean(0)).abs().max() > 0.1 * known.deviation.max()


def test_noise_on_w_falls_to_nothing_over_three_quarters_of_the_steps(phi: torch.nn.Module) -> None:
    inv = inverter(phi, init="mean", w_noise=0.05)
    rng = torch.Generator().manual_seed(0)
    ws = torch.zeros(1, 1, 32)

    def strength(step: int) -> float:
        drawn = torch.cat([inv._noisy(ws, torch.tensor([step]), 1000, rng) for _ in range(200)])
        return float(drawn.std())

    assert strength(0) == pytest.approx(0.05 * float(inv.radius), rel=0.05)
    assert strength(375) == pytest.approx(0.05 * float(inv.radius) / 4, rel=0.05)
    assert strength(750) == strength(999) == 0


def test_noise_maps_are_optimised_and_forgotten(phi: torch.nn.Module) -> None:
    def found(**settings: Any) -> tuple[FirstLatent, bool]:
        generator = published(use_noise=True)
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.5)
        chosen = InversionSettings(init="mean", first_steps=4, **settings)
        before = {name: value.clone() for name, value in generator.state_dict().items()}
        inv = Inverter(generator, phi, tiny.CAMERA, chosen, tiny.SAMPLING, tiny.RESOLUTION)
        first = inv.first(tiny.target(torch.full((3, tiny.SIZE, tiny.SIZE), 0.3)), None)
        same = all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
        return first, same

    (alone, kept), (beside, kept_too) = found(), found(noise_maps=True)
    assert kept
    assert kept_too
    assert alone.losses[0] != beside.losses[0]
    assert all(np.isfinite(beside.losses))


def test_phi_sees_larger_pictures_shrunk_by_area(phi: torch.nn.Module) -> None:
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image.shape[-1])
            return phi(image)

    looks = Watched()

    render = PatchRender(torch.rand(1, 3, 64, 64, requires_grad=True))
    target, weight = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    whole = Reconstruction(1.0, 0.0, 0.0, phi_scale(64, None))
    half = Reconstruction(1.0, 0.0, 0.0, phi_scale(64, 32))
    assert half(looks, render, target, weight) != whole(looks, render, target, weight)
    assert seen == [32, 32, 64, 64]
    assert phi_scale(64, 256) == 1  # smaller pictures stay as they are
    known = half.target_maps(phi, target, weight)
    assert torch.equal(half(phi, render, target, weight, known), half(phi, render, target, weight))


def test_the_tuning_image_takes_each_part_from_where_the_paper_says() -> None:
    flat = [np.full((4, 4, 3), v, np.uint8) for v in (10, 20, 30)]
    template, portrait, painted = flat
    face, mouth = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    face[:, 1:] = 255
    mouth[:, 3:] = 255
    out = tuning_image(template, face, mouth, portrait, painted)[0, :, 0]
    assert out.tolist() == [20, 10, 10, 30]
    assert tuning_image(template, face, mouth, portrait, None)[0, :, 0].tolist() == [20, 10, 10, 10]


def test_images_survive_the_way_to_tensors_and_back() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5
    assert np.array_equal(image_array(image_tensor(image)), image)


def test_the_detail_mask_covers_mouth_and_eyes_only() -> None:
    points = np.full((478, 2), 32.0)
    points[[61, 291, 0, 17]] = [[24, 44], [40, 44], [32, 41], [32, 47]]
    mask = detail_mask(points, 64)
    assert mask[44, 32] > 200
    assert mask[5, 5] == 0
