"""Generator files: both kinds, the oldest form, and loading without drawing weights."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from portrait_core.generators import (
    GeneratorSettings,
    StyleGAN2Generator,
    StyleGAN2Settings,
    TriPlaneGenerator,
    load_generator,
    load_latent_layout,
    load_published,
    save_generator,
)
from portrait_core.generators.io import filled_generator, load_facts, load_metadata
from portrait_core.generators.prepared import generator_bytes
from portrait_core.weights.readers.legacy_pickle import read_legacy_pickle, read_network
from tests.portrait_core import tiny
from tests.published_pickle import EG3D_KWARGS, STYLEGAN2_KWARGS, write_eg3d

Build = Any


def stylegan2() -> StyleGAN2Generator:
    torch.manual_seed(0)
    return StyleGAN2Generator(StyleGAN2Settings.from_published(STYLEGAN2_KWARGS))


def published() -> TriPlaneGenerator:
    torch.manual_seed(0)
    return TriPlaneGenerator(GeneratorSettings.from_published(EG3D_KWARGS, 16))


def clamped() -> TriPlaneGenerator:
    torch.manual_seed(0)
    kwargs = EG3D_KWARGS | {"sr_num_fp16_res": 4, "conv_clamp": 128}
    return TriPlaneGenerator(GeneratorSettings.from_published(kwargs, 16))


BUILDS = [stylegan2, published, clamped, tiny.generator]


@pytest.mark.parametrize("build", BUILDS)
def test_loading_restores_values_layout_and_leaves_randomness_alone(build: Build, tmp_path: Path) -> None:
    made, path = build(), tmp_path / "generator.safetensors"
    save_generator(made, path, half=False)
    before = torch.random.get_rng_state()
    loaded = load_generator(path, kind=None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert type(loaded) is type(made)
    assert loaded.settings == made.settings
    wanted = made.state_dict()
    assert list(loaded.state_dict()) == list(wanted)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, wanted[name]), name
        assert (value.dtype, value.stride()) == (torch.float32, wanted[name].stride()), name
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("build", BUILDS)
def test_loaded_weights_can_be_changed_and_the_file_stays(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    save_generator(build(), path)
    content = path.read_bytes()
    loaded = load_generator(path, kind=None)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1.0)
    assert path.read_bytes() == content


def test_clamps_come_back_from_a_file_and_act(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    save_generator(clamped(), path)
    loaded = load_generator(path)
    assert loaded.settings.conv_clamp == 128
    assert loaded.settings.superresolution is not None
    assert loaded.settings.superresolution.conv_clamp == 256
    assert loaded.backbone.synthesis.get_submodule("b8.conv0").conv_clamp == 128
    assert loaded.get_submodule("superresolution.block1.torgb").conv_clamp == 256
    save_generator(stylegan2(), path)  # its published arguments say 256
    two_d = load_generator(path, kind="stylegan2")
    with torch.no_grad():
        two_d.synthesis.get_parameter("b16.torgb.bias").fill_(1e4)
        image = two_d(torch.randn(1, 12))
    assert image.max() < 500  # 256, and what the smaller resolutions add


@pytest.mark.parametrize("half", [True, False])
def test_the_same_generator_makes_the_same_bytes(half: bool, tmp_path: Path) -> None:
    made, files = stylegan2(), [tmp_path / name for name in ("a", "b", "c")]
    for path in files:
        save_generator(made, path, metadata={"licence": "CC0", "steps": "3"}, half=half)
    assert len({path.read_bytes() for path in files}) == 1
    about = load_metadata(files[0])
    assert (about["kind"], about["licence"], about["steps"]) == ("stylegan2", "CC0", "3")


def test_files_of_the_first_form_still_load(tmp_path: Path) -> None:
    """One metadata entry a string, and no kind."""
    made, path = tiny.generator(), tmp_path / "old.safetensors"
    tensors = {name: value.half().contiguous() for name, value in made.state_dict().items()}
    save_file(
        tensors, path, metadata={"settings": made.settings.model_dump_json(), "latent_layout": '{"a": 1}'}
    )
    assert load_generator(path).settings == made.settings
    assert load_latent_layout(path) == {"a": 1}


@pytest.mark.parametrize(
    ("third", "wanted"), [([2, 0, 1], "published"), ([2, 1, 0], "orthogonal"), ([1, 2, 0], None)]
)
def test_plane_axes_are_those_of_the_file(third: list[int], wanted: str | None, tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    write_eg3d(path, third_plane=third)
    if wanted is None:
        with pytest.raises(ValueError, match="its planes lie along"):
            load_published(path)
        return
    loaded = load_published(path)
    assert isinstance(loaded, TriPlaneGenerator)
    assert loaded.settings.plane_axes == wanted


def test_weights_that_do_not_fit_are_named() -> None:
    made = stylegan2()
    weights = made.state_dict()
    weights["synthesis.b4.const"] = torch.zeros(1, 4, 4)
    weights["more"] = torch.zeros(1)
    del weights["mapping.w_avg"]
    with pytest.raises(ValueError, match=r"weights in here do not fit its settings") as caught:
        filled_generator(made.settings, weights, "here")
    assert "mapping.w_avg is missing" in str(caught.value)
    assert "more is not known" in str(caught.value)
    assert "synthesis.b4.const has shape [1, 4, 4], expected [8, 4, 4]" in str(caught.value)


class _Attack:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def test_network_files_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "attack.pkl"
    path.write_bytes(pickle.dumps({"G_ema": _Attack()}))
    with pytest.raises(ValueError, match="system, which is not a name known as safe"):
        read_network(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert read_legacy_pickle(path) == {"a": 1}
    with pytest.raises(ValueError, match="holds no network 'G_ema'"):
        load_published(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="cannot read"):
        read_network(path)


def test_a_file_says_what_it_holds_without_its_weights_being_read(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    facts = []
    for made in (tiny.generator(), stylegan2(), tiny.flat(scene=True)):
        path.write_bytes(generator_bytes(made))
        facts.append(load_facts(path))
        loaded = load_generator(path, kind=None)
        assert facts[-1].has_scene_latents == loaded.has_scene_latents == made.has_scene_latents
        assert facts[-1].image_resolution == made.settings.image_resolution
    assert [(one.kind, one.has_scene_latents) for one in facts] == [
        ("triplane", True),
        ("stylegan2", False),
        ("stylegan2", True),
    ]
