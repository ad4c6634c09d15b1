"""Pictures of both generators, poses and composites on the second device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from portrait_core.attribute_editing.consistency_edits import column_edit
from portrait_core.attribute_editing.edit_series import latent_labels
from portrait_core.attribute_editing.styleflow_files import load_styleflow
from portrait_core.attribute_editing.subjects import (
    Person,
    draw_person,
    edited_person,
    moved_camera,
    moved_latent,
    pictures_of,
    rows_to_edit,
)
from portrait_core.cameras import crop_rays, orbit_labels, project_to_crop
from portrait_core.generators import StyleGAN2Generator, load_generator
from portrait_core.metrics.consistency import draw_views
from portrait_core.rendering.pose_renderer import PosedFrame, PoseRenderer
from portrait_core.rendering.still_renderer import StillRenderer
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import CompositeSettings, RenderSettings
from tests.portrait_core import tiny
from tests.portrait_core.test_picture import picture_inputs, picture_renderer, small_page
from tests.portrait_core.test_stylegan2 import build
from tests.second_device import counted

_FIELDS = ("image", "first", "mask", "depth")


def _renderer(device: torch.device | str, **compositing: object) -> PoseRenderer:
    generator = tiny.generator()
    z = torch.randn(1, generator.settings.z_dim, generator=torch.Generator().manual_seed(1))
    first = generator.mapping(z, None).to(device)
    return PoseRenderer(
        generator.to(device),
        first,
        tiny.disc(0.3)[None].to(device),
        tiny.CAMERA.to(device),
        RenderSettings(samples=8, importance_samples=6),
        CompositeSettings.model_validate(compositing),
    )


def _posed(device: torch.device | str, **compositing: object) -> PosedFrame:
    renderer = _renderer(device, **compositing)
    moved = renderer.first + 0.1 * torch.randn(
        renderer.first.shape, generator=torch.Generator().manual_seed(2)
    ).to(device)
    camera = torch.from_numpy(orbit_labels(0.3, 0.1)).to(device)
    return renderer.render(moved, tiny.disc(0.28)[None].to(device), camera)


def _still(device: torch.device | str) -> tuple[StillRenderer, torch.Tensor, torch.Tensor]:
    """A renderer without a volume, with the latent and the face of another frame."""
    generator = tiny.flat(scene=True)
    z = torch.randn(2, generator.settings.z_dim, generator=torch.Generator().manual_seed(1))
    ws = generator.mapping(z).to(device)
    parts = (tiny.disc(0.3)[None].to(device), tiny.CAMERA.to(device), CompositeSettings())
    renderer = StillRenderer(generator.to(device), ws[:1], *parts)
    return renderer, ws[1:], tiny.disc(0.28)[None].to(device)


@pytest.mark.usefixtures("plain_cpu")
def test_a_frame_of_a_2d_generator_equals_the_cpus_and_is_read_back_once(second: torch.device) -> None:
    here, (renderer, ws, face) = _still("cpu"), _still(second)
    with counted() as waits:
        there = renderer.render(ws, face)
    assert len(waits.copies) == 1
    np.testing.assert_array_equal(there, here[0].render(*here[1:]))
    pose = renderer.generator.pose_latents(tiny.CAMERA.to(second))
    assert pose.device == second
    assert torch.equal(pose.cpu(), here[0].generator.pose_latents(tiny.CAMERA))


@pytest.mark.usefixtures("plain_cpu")
@pytest.mark.parametrize("compositing", [{}, {"mode": "whole"}, {"union_first": False, "feather_px": 0}])
def test_a_posed_frame_equals_the_cpus(second: torch.device, compositing: dict[str, object]) -> None:
    there, here = _posed(second, **compositing), _posed("cpu", **compositing)
    for name in _FIELDS:
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name), err_msg=name)


def test_a_posed_frame_is_the_one_of_the_cpus_own_functions(second: torch.device) -> None:
    there, here = _posed(second), _posed("cpu")
    for name in ("image", "first", "mask"):
        off = np.abs(getattr(there, name).astype(int) - getattr(here, name))
        assert off.max() <= 1, name  # a level of 255, where rounding decides
    np.testing.assert_allclose(there.depth, here.depth, atol=2e-3)


def test_a_frame_is_read_back_once_for_its_patch_and_once_per_picture(second: torch.device) -> None:
    renderer = _renderer(second)
    camera, face = torch.from_numpy(orbit_labels(0.3, 0.1)).to(second), tiny.disc(0.28)[None].to(second)
    with counted() as waits:
        renderer.render(renderer.first, face, camera)
    pictures = [wait for wait in waits.copies if "_posed" in wait.place or " in pixels" in wait.place]
    assert len(pictures) == 4
    assert [
        str(wait) for wait in waits.copies if wait not in pictures and " in bounds" not in wait.place
    ] == []
    assert len(waits.copies) == 5


def test_a_picture_equals_the_cpus(second: torch.device) -> None:
    page, camera = small_page(), torch.from_numpy(orbit_labels(-0.3, 0.15))
    drawn = []
    for device in (second, torch.device("cpu")):
        renderer, photograph = picture_renderer("head", page, device=device)
        drawn.append(renderer.render(picture_inputs(renderer, page, photograph), camera))
    for name in ("image", "coverage", "mask", "cutout"):
        off = np.abs(getattr(drawn[0], name).astype(int) - getattr(drawn[1], name))
        assert off.max() <= 2, name  # levels of 255


@pytest.mark.parametrize("motion", ["head", "camera"])
def test_a_picture_waits_for_its_rays_and_its_rectangle_and_is_read_back(
    second: torch.device, motion: str
) -> None:
    """Of what the host waits for, and of what goes between host and device, nothing else is in a frame."""
    page, camera = small_page(), torch.from_numpy(orbit_labels(-0.3, 0.15))
    renderer, photograph = picture_renderer(motion, page, device=second)
    inputs = picture_inputs(renderer, page, photograph)
    renderer.render(inputs, camera)
    with counted() as waits:
        renderer.render(inputs, camera)
    places = {"in rendered_surface": 3, "in bounds": 1, "in image_array": 4, "in _finished": 1}
    # the wanted pose goes to the device
    places |= {"in bend": 2} if motion == "head" else {"in view": 1}
    found = [str(wait) for wait in (*waits.copies, *waits.reads)]
    assert [wait for wait in found if not any(place in wait for place in places)] == []
    for place, most in places.items():
        assert sum(place in wait for wait in found) <= most, found


def test_rays_and_projections_copy_nothing(second: torch.device) -> None:
    camera = tiny.CAMERA.to(second)
    with counted() as waits:
        origins, directions = crop_rays(camera, 8)
        project_to_crop(camera, origins + 2.7 * directions, 8)
    assert str(waits) == "no copies and no reads"


@pytest.mark.usefixtures("plain_cpu")
@pytest.mark.parametrize("mode", ["const", "random", "none"])
def test_a_2d_generator_draws_what_it_draws_on_the_cpu(second: torch.device, mode: str) -> None:
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    pictures = [_pictures(build().to(device), z.to(device), mode).cpu() for device in ("cpu", second)]
    assert torch.equal(*pictures)


def _pictures(generator: StyleGAN2Generator, z: torch.Tensor, mode: str) -> torch.Tensor:
    rng = torch.Generator(device=z.device).manual_seed(4)
    with torch.no_grad():
        return generator(z, truncation_psi=0.7, noise_mode=mode, rng=rng)


def test_a_2d_generator_has_the_cpus_gradients(
    second: torch.device, plain_cpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gradient(device: torch.device | str) -> torch.Tensor:
        generator = build().to(device).requires_grad_(False)
        z = torch.randn(1, 8, generator=torch.Generator().manual_seed(3))
        ws = generator.mapping(z.to(device)).detach().requires_grad_(True)
        generator.synthesis(ws).square().mean().backward()
        assert ws.grad is not None
        return ws.grad.cpu()

    plain = gradient("cpu")
    assert torch.equal(gradient(second), plain)
    monkeypatch.undo()
    torch.testing.assert_close(gradient("cpu"), plain, rtol=1e-5, atol=1e-7)


def test_the_embedded_2d_generator_draws_on_the_device(second: torch.device) -> None:
    drawn = []
    for device in ("cpu", second):
        generator = load_generator(data_file("models/embedded_2d.safetensors"), device, kind="stylegan2")
        z = torch.randn(1, generator.settings.z_dim, generator=torch.Generator().manual_seed(5))
        with torch.no_grad():
            drawn.append(generator(z.to(device)).cpu())
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("plain_cpu")
def test_people_turn_before_the_camera_on_the_device(second: torch.device) -> None:
    def views(device: torch.device | str) -> NDArray[np.uint8]:
        generator = tiny.generator().to(device)
        person = Person(draw_person(generator, 1, 0, 0.7)[:, :1])
        return np.stack(
            pictures_of(moved_camera(generator, person, draw_views(1)[0], sampling=tiny.SAMPLING))
        )

    np.testing.assert_array_equal(views(second), views("cpu"))


def test_people_are_edited_and_turned_by_their_flow_on_the_device(second: torch.device) -> None:
    def views(device: torch.device | str) -> tuple[torch.Tensor, NDArray[np.uint8]]:
        path = data_file("models/embedded_2d.safetensors")
        generator = load_generator(path, device, kind="stylegan2")
        model = load_styleflow(data_file("models/embedded_2d_flow.safetensors"), device)
        w = rows_to_edit(draw_person(generator, 1, 0, 0.7, posed=True), model)
        own = latent_labels(model, w)
        person = edited_person(model, w, own, column_edit(model, "facial_hair", own, 0.5, 1))
        assert person.w.device.type == torch.device(device).type
        return person.w.cpu(), np.stack(moved_latent(generator, model, person, draw_views(1)[0]))

    (there, shown), (here, expected) = views(second), views("cpu")
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-3)
    assert np.abs(shown.astype(int) - expected).max() <= 2
