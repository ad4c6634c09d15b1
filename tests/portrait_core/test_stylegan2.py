"""The 2D generator's options, on small real networks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from portrait_core.generators import StyleGAN2Generator, StyleGAN2Settings

SMALL: dict[str, Any] = {
    "z_dim": 8,
    "w_dim": 12,
    "mapping_layers": 3,
    "channels": {4: 10, 8: 8, 16: 6},
}


def build(**changes: Any) -> StyleGAN2Generator:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(StyleGAN2Settings.model_validate(SMALL | changes)).eval()
    with torch.no_grad():
        generator.mapping.w_avg.normal_()
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return generator


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes(batch: int, channels: int) -> None:
    generator = build(image_channels=channels)
    ws = generator.mapping(torch.randn(batch, 8))
    assert ws.shape == (batch, 6, 12) == (batch, generator.settings.num_ws, 12)
    assert generator.synthesis(ws).shape == (batch, channels, 16, 16)
    assert generator.settings.image_resolution == 16


def test_truncation_pulls_the_first_rows_to_the_mean() -> None:
    generator = build()
    z, mean = torch.randn(2, 8), generator.mapping.w_avg
    full = generator.mapping(z)
    cut = generator.mapping(z, truncation_psi=0.5, truncation_cutoff=4)
    assert torch.allclose(cut[:, :4], mean + 0.5 * (full[:, :4] - mean), atol=1e-6)
    assert torch.equal(cut[:, 4:], full[:, 4:])
    assert torch.allclose(generator.mapping(z, truncation_psi=0.0), mean.expand(2, 6, -1))


def test_latents_are_normalised() -> None:
    generator, z = build(), torch.randn(2, 8)
    assert torch.allclose(generator.mapping(z), generator.mapping(z * 7), atol=1e-4)


def test_labels() -> None:
    generator = build(c_dim=3, embed_width=5, mapping_width=9)
    assert generator.mapping.embed.weight.shape == (5, 3)
    assert [tuple(generator.state_dict()[f"mapping.fc{i}.weight"].shape) for i in range(3)] == [
        (9, 13),
        (9, 9),
        (12, 9),
    ]
    z, labels = torch.randn(1, 8).expand(2, -1), torch.eye(3)[:2]
    first, second = generator.mapping(z, labels)
    assert not torch.allclose(first, second, atol=1e-3)
    for wrong in (None, torch.eye(3)[:1], torch.zeros(2, 4)):
        with pytest.raises(ValueError, match=r"c \[2,3\], got"):
            generator.mapping(z, wrong)


def test_noise_modes() -> None:
    generator = build()
    ws = generator.mapping(torch.randn(2, 8))

    def image(mode: Any, seed: int = 0) -> Tensor:
        return generator.synthesis(ws, mode, torch.Generator().manual_seed(seed))

    assert torch.equal(image("const"), image("const", 1))
    assert torch.equal(image("random", 3), image("random", 3))
    assert not torch.equal(image("random", 3), image("random", 4))
    assert not torch.equal(image("none"), image("const"))
    silent = build(use_noise=False)
    assert not any("noise" in name for name in silent.state_dict())
    assert torch.equal(silent.synthesis(ws, "const"), silent.synthesis(ws, "none"))


def test_one_row_of_ws_serves_all_layers_and_each_row_its_own() -> None:
    generator = build()
    rows = generator.mapping(torch.randn(1, 8))
    base = generator.synthesis(rows)
    assert torch.allclose(generator.synthesis(rows[:, :1]), base, atol=1e-5)
    for row in range(6):
        changed = rows.clone()
        changed[:, row] += 0.5
        assert not torch.allclose(generator.synthesis(changed), base, atol=1e-4), row
    with pytest.raises(ValueError, match=r"ws must be \[B,1,12\] or \[B,6,12\], got \[1, 3, 12\]"):
        generator.synthesis(rows[:, :3])


def test_every_parameter_learns() -> None:
    generator = build(c_dim=2)
    image = generator(torch.randn(2, 8), torch.eye(2), truncation_psi=0.7)
    image.square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_published_arguments() -> None:
    base = {"z_dim": 8, "c_dim": 0, "w_dim": 12, "img_resolution": 16, "img_channels": 3}
    nested = {"channel_base": 128, "channel_max": 20, "conv_clamp": 256, "num_fp16_res": 4}
    fixed = {"architecture": "skip", "resample_filter": [1, 3, 3, 1], "activation": "lrelu"}
    mapping = {"num_layers": 3, "w_avg_beta": 0.995, "lr_multiplier": 0.01, "embed_features": None}
    settings = StyleGAN2Settings.from_published(
        base | {"mapping_kwargs": mapping, "synthesis_kwargs": nested | fixed}
    )
    assert settings.channels == {4: 20, 8: 16, 16: 8}
    assert (settings.mapping_layers, settings.conv_clamp) == (3, 256)
    # later releases of the training code write the same without nesting
    flat = base | {"mapping_kwargs": mapping, "fused_modconv_default": "inference_only"} | nested
    assert StyleGAN2Settings.from_published(flat) == settings
    assert StyleGAN2Settings.from_published(base).channels == {4: 512, 8: 512, 16: 512}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": {4: 8, 16: 8}}, "every resolution from 4"),
        ({"channels": {8: 8}}, "every resolution from 4"),
        ({"channels": {4: 0}}, "channels must be positive"),
        ({"mapping_layers": 0}, "mapping_layers"),
        ({"architecture": "resnet"}, "architecture"),
    ],
)
def test_settings_name_the_field_to_change(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleGAN2Settings.model_validate(SMALL | changes)
