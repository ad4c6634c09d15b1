"""Inversion and tuning through the interface of generators: tri-plane and 2D ones by the same code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from portrait_core.cameras import angles_from_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.reproject import HeadSurface
from portrait_core.generators import (
    CameraRays,
    ImageGenerator,
    Patch,
    PatchRender,
    RaySampling,
    VolumeGenerator,
    VolumePatch,
)
from portrait_core.generators.prepared import at_chunk, volume_of
from portrait_core.generators.scene_latents import APPEARANCE
from portrait_core.generators.scene_latents_2d import PITCH_SCALE, YAW_SCALE
from portrait_core.inversion.latent import Inverter
from portrait_core.inversion.pictures import face_picture, whole_picture
from portrait_core.inversion.sampling import fitting_resolution
from portrait_core.inversion.targets import FrameTarget
from portrait_core.inversion.tuning import Clip, Tuner
from portrait_core.settings import GeneratorChoice, InversionSettings, TuningSettings
from tests.portrait_core import tiny

Build = Callable[[], ImageGenerator]


class OnlyTheInterface(ImageGenerator):
    """A generator that has nothing but what the interface names, so that reaching beyond it fails."""

    def __init__(self, inner: ImageGenerator) -> None:
        super().__init__()
        self.inner = inner
        self.settings = inner.settings

    def mapping(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        return self.inner.mapping(z, c)

    def mapping_label(self, camera: Tensor) -> Tensor | None:
        return self.inner.mapping_label(camera)

    def mapping_parameters(self) -> Iterator[nn.Parameter]:
        return self.inner.mapping_parameters()

    def render_image(
        self,
        ws: Tensor,
        camera: Tensor,
        resolution: int | None = None,
        sampling: RaySampling | None = None,
    ) -> Tensor:
        return self.inner.render_image(ws, camera, resolution, sampling)

    def render_patch(
        self,
        ws: Tensor,
        rays: CameraRays,
        patch: Patch,
        sampling: RaySampling | None = None,
        rng: torch.Generator | None = None,
    ) -> PatchRender:
        return PatchRender(self.inner.render_patch(ws, rays, patch, sampling, rng).image)


GENERATORS = {
    "tri-plane": tiny.generator,
    "2D": tiny.flat,
    "2D, nothing but the interface": lambda: OnlyTheInterface(tiny.flat()),
    "tri-plane, nothing but the interface": lambda: OnlyTheInterface(tiny.generator()),
}
every_generator = pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)


def picture() -> FrameTarget:
    corners = torch.linspace(-0.8, 0.8, 12).view(1, 3, 2, 2)
    return tiny.target(nn.functional.interpolate(corners, tiny.SIZE, mode="bilinear")[0])


@every_generator
@pytest.mark.parametrize("space", ["w", "w+"])
def test_a_picture_is_inverted_whatever_the_generator(
    build: Build, space: Literal["w", "w+"], phi: nn.Module
) -> None:
    generator = build()
    chosen = InversionSettings(init="mean", first_steps=16, steps=6, space=space, noise_maps=True)
    resolution = fitting_resolution(generator, GeneratorChoice())
    inverter = Inverter(generator, phi, tiny.CAMERA, chosen, None, resolution)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    target = picture()
    first = inverter.first(target, None)
    assert inverter.loss(first.ws, target) < inverter.loss(inverter.mean, target)
    refined, losses = inverter.next(first.ws, target, frame=1)
    assert losses[-1] < first.losses[0]
    assert inverter.loss(refined, target) < inverter.loss(first.ws, target)
    whole = whole_picture(inverter, refined)
    assert whole.shape == (tiny.SIZE, tiny.SIZE, 3)
    rendered, distance = face_picture(inverter, refined, target, whole)
    assert rendered.shape == whole.shape
    assert distance > 0
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@every_generator
def test_a_generator_is_tuned_on_a_picture_whatever_it_is(
    build: Build, phi: nn.Module, head: MorphableHead
) -> None:
    generator = build()
    z = torch.randn(1, generator.settings.z_dim, generator=torch.Generator().manual_seed(1))
    ws = generator.mapping(z, generator.mapping_label(tiny.CAMERA))
    resolution = generator.settings.neural_resolution
    chosen = TuningSettings(
        steps=12, batch=1, patch=resolution * 3 // 4, novel_view_rays=64, learning_rate=1e-2,
        locality=0.1, locality_every=3, locality_patch=resolution * 3 // 4,
    )  # fmt: skip
    tuner = Tuner(generator, phi, clip(ws, head), HeadSurface(head), chosen, None, resolution)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    losses = tuner.run()
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    changed = {name for name, value in generator.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any("mapping" in name for name in changed)


def clip(ws: Tensor, head: MorphableHead) -> Clip:
    """One frame, with all that terms of a volume read."""
    vertices = head.to_box(head.decode(torch.zeros(1, 50), torch.zeros(1, 52), torch.zeros(1, 3)))[0]
    plate = torch.zeros(3, tiny.SIZE, tiny.SIZE)
    target = picture()
    return Clip(ws, tiny.CAMERA, lambda i: target, lambda i: vertices, tiny.disc(0.4), plate)


@pytest.mark.parametrize(
    ("build", "has_effect"), [(tiny.generator, True), (tiny.flat, False)], ids=["tri-plane", "2D"]
)
@pytest.mark.parametrize("term", ["depth_anchor", "novel_view", "background"])
def test_terms_of_depth_and_coverage_apply_only_where_there_is_a_volume(
    build: Build, has_effect: bool, term: str, phi: nn.Module, head: MorphableHead
) -> None:
    def first_loss(**settings: float) -> float:
        generator = build()
        z = torch.randn(1, generator.settings.z_dim, generator=torch.Generator().manual_seed(1))
        resolution = generator.settings.neural_resolution
        chosen = TuningSettings(steps=1, batch=1, patch=resolution, novel_view_rays=16)
        chosen = chosen.model_copy(update=settings)
        frames = clip(generator.mapping(z), head)
        return Tuner(generator, phi, frames, HeadSurface(head), chosen, None, resolution).run()[0]

    assert (first_loss() != first_loss(**{term: 0.0})) == has_effect


def test_the_interface_says_which_generators_have_a_volume() -> None:
    volume, without = tiny.generator(), tiny.flat()
    assert isinstance(volume, VolumeGenerator)
    assert not isinstance(without, VolumeGenerator)
    rays = CameraRays.of(tiny.CAMERA, tiny.RESOLUTION)
    patch = Patch(4, 6, 16, tiny.RESOLUTION)
    rendered = volume.render_patch(volume.mapping(torch.zeros(1, volume.settings.z_dim)), rays, patch)
    assert isinstance(rendered, VolumePatch)
    assert rendered.depth.shape == rendered.accumulation.shape == (1, 1, 16, 16)
    ws = without.mapping(torch.zeros(1, 16))
    cut = without.render_patch(ws, rays, patch)
    assert [field.name for field in dataclasses.fields(cut)] == ["image"]
    assert torch.equal(cut.image, without.render_image(ws, tiny.CAMERA)[..., 8:40, 12:44])
    assert at_chunk(without, 64) is without
    assert at_chunk(volume, 64).ray_chunk == 64


def test_what_needs_a_volume_refuses_a_generator_without_one() -> None:
    volume = tiny.generator()
    assert volume_of(volume) is volume
    with pytest.raises(ValueError, match="2D generator, whose head cannot turn"):
        volume_of(tiny.flat())


def test_a_2d_generators_latents_keep_the_portraits_pose_through_a_clip(
    phi: nn.Module, head: MorphableHead
) -> None:
    generator = tiny.flat(scene=True)
    chosen = InversionSettings(first_steps=2)
    inverter = Inverter(generator, phi, tiny.CAMERA, chosen, None, tiny.SIZE)
    rest, open_mouth = np.zeros((1, 52)), np.zeros((1, 52))
    open_mouth[0, head.expression_names.index("jawOpen")] = 1.0
    names = list(head.expression_names[:52])
    z = [inverter.tracker_start(np.zeros(50), expression, names) for expression in (rest, open_mouth)]
    yaw_rad, pitch_rad, _ = angles_from_labels(tiny.CAMERA.numpy())[0]
    pose = torch.tensor([yaw_rad / YAW_SCALE, pitch_rad / PITCH_SCALE])
    assert all(torch.allclose(one[0, -2:], pose.float(), atol=1e-5) for one in z)
    first = inverter.first(picture(), z[0])
    assert first.appearance.shape == (len(APPEARANCE),)
    assert torch.allclose(inverter.moved(first, z[0], z[0]), first.ws, atol=1e-5)
    looking = [
        torch.cat([one[:, :79], torch.from_numpy(first.appearance)[None], pose[None].float()], 1) for one in z
    ]
    mapped = [generator.mapping(one)[:, :1] for one in looking]
    moved = inverter.moved(first, z[0], z[1])
    assert torch.allclose(moved - first.ws, mapped[1] - mapped[0], atol=1e-5)
    assert not torch.equal(moved, first.ws)


def test_nobody_outside_the_generators_reaches_into_one() -> None:
    root = Path(__file__).parents[2]
    inside = root / "portrait_core" / "generators"
    files = [p for name in ("portrait_core", "tasks", "flows") for p in (root / name).rglob("*.py")]
    reaches = re.compile(r"\b(generator|model|new|old)\.(renderer|decoder)\b")
    found = [str(p) for p in files if inside not in p.parents and reaches.search(p.read_text())]
    assert found == []
