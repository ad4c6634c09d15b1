"""Generator files: safetensors with half-precision weights, settings in the metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from portrait_core.generators.eg3d import TriPlaneGenerator
from portrait_core.generators.settings import GeneratorSettings
from portrait_core.models.legacy_pickle import read_network


def save_generator(
    generator: TriPlaneGenerator,
    path: str | Path,
    *,
    latent_layout: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    half: bool = True,
) -> None:
    """Write weights, settings and the meaning of z to one file, atomically.

    Args:
        latent_layout: what each range of z holds (any JSON), for generators with structured latents.
        metadata: further strings, such as the licence.
        half: store float16 (half the size; relative error 5e-4) instead of float32.
    """
    dtype = torch.float16 if half else torch.float32
    # the filter taps are fixed, but they belong to the published names; they cost 64 bytes each
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in generator.state_dict().items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that {dtype} cannot hold; save with half=False")
    about = {
        **(metadata or {}),
        "settings": generator.settings.model_dump_json(),
        "latent_layout": json.dumps(latent_layout or {}),
    }
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata=about)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_generator(path: str | Path, device: str | torch.device = "cpu") -> TriPlaneGenerator:
    """Read a file of :func:`save_generator`: a float32 generator in eval mode, without gradients.

    Raises:
        ValueError: if the file is not such a file, or its weights do not fit its settings.
    """
    about, tensors = _read(path)
    generator = TriPlaneGenerator(GeneratorSettings.model_validate_json(about["settings"]))
    try:
        generator.load_state_dict({k: v.float() for k, v in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its settings: {error}") from error
    return generator.to(device).eval().requires_grad_(False)


def load_published(path: str | Path, device: str | torch.device = "cpu") -> TriPlaneGenerator:
    """Read a published EG3D network file (``.pkl``), without running anything in it: the averaged generator
    in float32, eval mode, without gradients.

    Raises:
        ValueError: if the file cannot be read safely or holds another kind of network.
    """
    record = read_network(path)
    kwargs = record.kwargs
    if "rendering_kwargs" not in kwargs:
        raise ValueError(f"{path} holds a {record.class_name}, expected an EG3D TriPlaneGenerator")
    # training may have changed these two after construction; the attributes are what holds
    kwargs["rendering_kwargs"] = record.state.get("rendering_kwargs", kwargs["rendering_kwargs"])
    resolution = int(record.state.get("neural_rendering_resolution", 128))
    generator = TriPlaneGenerator(GeneratorSettings.from_published(kwargs, resolution))
    try:
        generator.load_state_dict(record.state_dict())
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} do not fit its settings: {error}") from error
    return generator.to(device).eval().requires_grad_(False)


def load_latent_layout(path: str | Path) -> dict[str, Any]:
    """The meaning of z that :func:`save_generator` wrote; empty where there is none."""
    with _open(path) as file:
        return dict(json.loads(_metadata(file, path).get("latent_layout", "{}")))


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with _open(path) as file:
        return _metadata(file, path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _open(path: str | Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"cannot read a generator from {path}: {error}; expected a .safetensors file of save_generator"
        ) from error


def _metadata(file: Any, path: str | Path) -> dict[str, str]:
    about = dict(file.metadata() or {})
    if "settings" not in about:
        raise ValueError(f"{path} carries no generator settings; expected a file of save_generator")
    return about
