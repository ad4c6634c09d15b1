"""The folder's generators: ``eg3d`` and ``stylegan2``.

EG3D's numbers are in single precision, as the published ones are: the depth of a ray that meets next to
nothing is a quotient of small numbers, which rounding moves by up to 2e-4.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from portrait_core.generators import GeneratorSettings, StyleGAN2Settings, TriPlaneGenerator
from tests.plain import deep3dface, stylegan2
from tests.plain.eg3d import PlainGenerator, rays
from tests.plain.folder.common import generator_weights, recipe, write_arrays, write_json
from tests.published_pickle import EG3D_KWARGS, STYLEGAN2_KWARGS, write_eg3d, write_stylegan2


def rendering(module: str, samples: tuple[int, int]) -> dict[str, Any]:
    """Rendering options of a published kind, with other samples."""
    coarse, fine = samples
    return EG3D_KWARGS["rendering_kwargs"] | {
        "superresolution_module": f"training.superresolution.{module}",
        "c_scale": 0.8,
        "depth_resolution": coarse,
        "depth_resolution_importance": fine,
        "ray_start": 2.3,
        "ray_end": 3.2,
    }


TINY = EG3D_KWARGS | {
    "z_dim": 40,
    "w_dim": 512,
    "mapping_kwargs": {"num_layers": 3},
    "channel_base": 2048,
    "channel_max": 12,
    "conv_clamp": 300,
    "sr_num_fp16_res": 0,
    "img_resolution": 256,
    "rendering_kwargs": rendering("SuperresolutionHybrid4X", (11, 14)),
}
FULL = EG3D_KWARGS | {
    "z_dim": 96,
    "w_dim": 512,
    "channel_base": 4096,
    "channel_max": 48,
    "sr_num_fp16_res": 4,
    "img_resolution": 512,
    "rendering_kwargs": rendering("SuperresolutionHybrid8XDC", (10, 9)),
}
STYLEGAN2 = STYLEGAN2_KWARGS | {
    "z_dim": 24,
    "w_dim": 40,
    "mapping_kwargs": {"num_layers": 4},
    "synthesis_kwargs": {"channel_base": 512, "channel_max": 20, "num_fp16_res": 4, "conv_clamp": 12},
    "c_dim": 5,
    "img_resolution": 32,
}


def cameras(rng: np.random.Generator, count: int) -> Tensor:
    """Labels ``[count,25]`` in single precision, whose rays lie on no texel border."""
    codes = zip(rng.normal(size=(count, 3)) * 0.3, rng.normal(size=(count, 3)) * 0.3, strict=True)
    return torch.from_numpy(np.stack([deep3dface.label(*code, "orig") for code in codes])).float()


def drawn(rng: np.random.Generator, *shape: int) -> Tensor:
    """Normal numbers in single precision."""
    return torch.from_numpy(rng.normal(size=shape)).float()


def names_and_shapes(network: nn.Module) -> dict[str, dict[str, list[int]]]:
    """``parameters`` and ``buffers`` of ``config.json``."""
    kinds = {"parameters": network.named_parameters(), "buffers": network.named_buffers()}
    return {kind: {name: list(v.shape) for name, v in entries} for kind, entries in kinds.items()}


def mapped(plain: PlainGenerator, rng: np.random.Generator, psi: float, count: int) -> dict[str, Tensor]:
    """Latents, labels and what the mapping makes of them."""
    z, c_cond, c = drawn(rng, count, plain.settings.z_dim), cameras(rng, count), cameras(rng, count)
    ws = plain.mapping(z, c_cond, psi)
    plus = ws + drawn(rng, 1, *ws.shape[1:]) * 0.3
    found = {"z": z, "c_cond": c_cond, "c": c, "ws": ws, "ws_plus": plus}
    return found | {"truncation_psi": torch.tensor(psi)}


def points_of(plain: PlainGenerator, planes: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
    """The decoder at points inside and outside the box."""
    points = torch.from_numpy(rng.uniform(-0.6, 0.6, (len(planes), 48, 3))).float()
    colours, density = plain.evaluate(planes, points)
    return {"points": points, "point_sigma": density, "point_rgb": colours}


def spread(maps: Tensor, name: str) -> dict[str, Tensor]:
    """Mean and deviation of each channel."""
    return {f"{name}_mean": maps.mean((2, 3)), f"{name}_std": maps.std((2, 3), correction=0)}


def eg3d(folder: Path, seed: int) -> None:
    """``generator.pkl``, ``config.json`` and ``outputs.npz``."""
    rng, size, other = np.random.default_rng(seed), 28, 44
    folder.mkdir(parents=True, exist_ok=True)
    fill = generator_weights(seed)
    written = write_eg3d(folder / "generator.pkl", kwargs=TINY, neural_resolution=size, fill=fill)
    about = {"seed": seed, "kwargs": TINY, "neural_rendering_resolution": size}
    config = about | {"num_ws": written.settings.num_ws} | names_and_shapes(written)
    write_json(folder / "config.json", config)
    plain = PlainGenerator.of(written, written.settings)
    out: dict[str, Any] = mapped(plain, rng, 0.6, count=3)
    z, c_cond = out["z"], out["c_cond"]
    full, cut = plain.mapping(z, c_cond), plain.mapping(z, c_cond, 0.3)
    out |= {"ws_psi1": full[:, 0], "ws_psi03_cutoff5": torch.cat([cut[:, :5], full[:, 5:]], 1)}
    ws, c = (out[name].clone().requires_grad_() for name in ("ws_plus", "c"))
    found = plain.synthesis(ws, c)
    losses = {
        "": found["image"].square().mean(),
        "_raw_depth": found["image_raw"].square().mean() + found["image_depth"].mean(),
    }
    for suffix, loss in losses.items():
        grads = torch.autograd.grad(loss, (ws, c), retain_graph=True)
        out |= {f"grad_{name}{suffix}": grad for name, grad in zip(("ws", "c"), grads, strict=True)}
    with torch.no_grad():
        planes = plain.planes(ws)
        maps = planes.flatten(1, 2)
        alternative = plain.synthesis(ws, c, other, noise=False)
        out |= found | points_of(plain, planes, rng) | spread(maps, "planes")
        out |= {f"{name}_alt": alternative[name] for name in ("image", "image_raw")}
        out["forward_image"] = plain.synthesis(plain.mapping(z, c_cond, 0.6), c_cond)["image"]
        origins, directions = rays(out["c"], 3)
    out |= {"planes_s16": maps[:, :, 8::16, 8::16], "rays3_origins": origins, "rays3_directions": directions}
    out |= {"neural_rendering_resolution": size, "neural_rendering_resolution_alt": other}
    write_arrays(folder / "outputs.npz", out)


def full512(folder: Path, seed: int) -> None:
    """``full512.json`` and ``full512_outputs.npz``."""
    rng, size = np.random.default_rng(seed), 36
    settings = GeneratorSettings.from_published(FULL, size)
    generator = TriPlaneGenerator(settings).eval().requires_grad_(False)
    generator_weights(seed)(generator)
    shapes = names_and_shapes(generator)
    fixed = {name: shape for name, shape in shapes["buffers"].items() if name.endswith("resample_filter")}
    buffers = {name: shape for name, shape in shapes["buffers"].items() if name not in fixed}
    values = recipe(shapes["parameters"] | buffers, seed)
    digests = {name: hashlib.sha256(v.numpy().tobytes()).hexdigest()[:16] for name, v in values.items()}
    config = {"seed": seed, "constructor": FULL, "neural_rendering_resolution": size}
    config |= {"num_ws": settings.num_ws, "seeded_parameters": shapes["parameters"]}
    config |= {"seeded_buffers": buffers, "fixed_buffers": fixed, "sha256_first_16": digests}
    write_json(folder / "full512.json", config)
    plain = PlainGenerator.of(generator, settings)
    out: dict[str, Any] = mapped(plain, rng, 0.8, count=1)
    ws = out["ws_plus"].clone().requires_grad_()
    found = plain.synthesis(ws, out["c"])
    (out["grad_ws"],) = torch.autograd.grad(found["image"].square().mean(), ws)
    with torch.no_grad():
        planes = plain.planes(ws)
        maps, image = planes.flatten(1, 2), found.pop("image")
        out |= found | points_of(plain, planes, rng) | spread(maps, "planes") | spread(image, "image")
    out |= {"planes_s32": maps[:, :, 16::32, 16::32], "image_s8": image[:, :, 4::8, 4::8], "seed": seed}
    write_arrays(folder / "full512_outputs.npz", out)


def stylegan(folder: Path, seed: int) -> None:
    """``generator.pkl``, ``config.json`` and ``outputs.npz`` of the 2D generator."""
    rng, psi, cutoff = np.random.default_rng(seed), 0.55, 3
    folder.mkdir(parents=True, exist_ok=True)
    written = write_stylegan2(folder / "generator.pkl", fill=generator_weights(seed), **STYLEGAN2)
    config = {"seed": seed, "constructor": STYLEGAN2, "num_ws": written.settings.num_ws}
    write_json(folder / "config.json", config | names_and_shapes(written))
    settings = StyleGAN2Settings.from_published(STYLEGAN2)
    state = {name: v.double() for name, v in stylegan2.ordinary(written.state_dict()).items()}
    mapping, weights = (stylegan2.scope(state, name) for name in ("mapping", "synthesis"))
    z, c = drawn(rng, 4, settings.z_dim), drawn(rng, 4, settings.c_dim)

    def ws(psi: float) -> Tensor:
        rows, layers = settings.num_ws, settings.mapping_layers
        return stylegan2.mapping(mapping, z.double(), c.double(), rows=rows, layers=layers, psi=psi)

    def image(ws: Tensor, noise: bool = True) -> Tensor:
        clamp = settings.conv_clamp
        return stylegan2.synthesis(weights, ws, settings.resolutions, noise=noise, clamp=clamp)

    truncated, full = ws(psi), ws(1.0)
    plus = truncated.float() + drawn(rng, 1, *truncated.shape[1:]) * 0.3
    rows = plus.double().requires_grad_()
    made = image(rows)
    (grad,) = torch.autograd.grad(made.square().mean(), rows)
    out = {"z": z, "c": c, "truncation_psi": psi, "truncation_cutoff": cutoff}
    out |= {"ws": truncated, "ws_psi1": full[:, 0], "ws_plus": plus, "image": made, "grad_ws": grad}
    out |= {"ws_cutoff": torch.cat([truncated[:, :cutoff], full[:, cutoff:]], 1)}
    out |= {"image_no_noise": image(rows, noise=False), "forward_image": image(truncated)}
    write_arrays(folder / "outputs.npz", out)
