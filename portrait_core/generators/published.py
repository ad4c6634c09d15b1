"""Published network files (``.pkl``): read without running anything in them, built, converted, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from portrait_core.generators.io import (
    AnyGenerator,
    AnySettings,
    filled_generator,
    kind_of,
    load_generator,
    save_generator,
)
from portrait_core.generators.settings import GeneratorSettings
from portrait_core.generators.stylegan2 import StyleGAN2Settings
from portrait_core.runtime.whole_files import write_whole
from portrait_core.weights.file_checks import open_weights, sha256_of
from portrait_core.weights.readers.legacy_pickle import ModuleRecord, plain_data, read_network
from portrait_core.weights.sidecars import read_sidecar

NVIDIA_LICENCE = "NVIDIA source code licence, non-commercial"

_BASICS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_RAYS = ("ray_start", "ray_end", "depth_resolution", "depth_resolution_importance", "box_warp")
_AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}
_MAPPING = {"activation": "lrelu", "lr_multiplier": 0.01, "layer_features": None, "embed_features": None}
_PLANE_AXES = {"published": ("xyz", "xzy", "zxy"), "orthogonal": ("xyz", "xzy", "zyx")}


@dataclass(frozen=True)
class Published:
    """Settings of a network file's averaged generator, and its weights."""

    class_name: str
    """Name of its class where it was trained."""
    settings: AnySettings
    """Our settings for it."""
    constructor: dict[str, Any]
    """The arguments that it was constructed with, as JSON can hold them."""
    rendering: dict[str, Any] | None
    """Its rendering options (EG3D), which training may have changed after construction."""
    weights: dict[str, Tensor]
    """Parameters and buffers by name, float32."""
    sha256: str
    """Digest of the file that they were read from."""


@dataclass(frozen=True)
class Converted:
    """A network file after its conversion."""

    weights: Path
    """The ``.safetensors`` file."""
    about_path: Path
    """The ``.json`` file beside it."""
    about: dict[str, Any]
    """Its content."""


@dataclass(frozen=True)
class Checked:
    """A generator file in which nothing is wrong."""

    generator: AnyGenerator
    about: dict[str, Any]
    """Content of the JSON file beside it; empty where there is none."""


def read_published(path: str | Path) -> Published:
    """Read the averaged generator of an EG3D or StyleGAN2 network file.

    Raises:
        ValueError: if the file cannot be read safely, or holds a network of another kind, or one that asks
            for what is not implemented.
    """
    _refuse_other_files(Path(path))
    record = read_network(path)
    # the basic ones are attributes too, which serves files that gave them by position
    basics = {name: record.state[name] for name in _BASICS if name in record.state}
    kwargs = plain_data(basics | record.kwargs)
    rendering: dict[str, Any] | None = None
    try:
        if "rendering_kwargs" in kwargs:
            # training may have changed these after construction; the attributes are what holds
            rendering = plain_data(record.state.get("rendering_kwargs", kwargs["rendering_kwargs"]))
            settings: AnySettings = _eg3d_settings(record, kwargs | {"rendering_kwargs": rendering})
        elif {"z_dim", "img_resolution"} <= set(kwargs):
            settings = StyleGAN2Settings.from_published(kwargs)
        else:
            raise ValueError(
                f"it holds a {record.class_name}, expected an EG3D TriPlaneGenerator or a StyleGAN2 Generator"
            )
    except (ValueError, KeyError, TypeError) as error:
        missing = f"its constructor arguments lack {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot build the generator in {path}: {missing}") from error
    return Published(record.class_name, settings, kwargs, rendering, record.state_dict(), record.sha256)


def load_published(path: str | Path, device: str | torch.device = "cpu") -> AnyGenerator:
    """Read a published EG3D or StyleGAN2 network file (``.pkl``), without running anything in it.

    The result is the averaged generator in float32, eval mode, without gradients. Its constructor arguments
    decide which of the two it is.

    Raises:
        ValueError: if the file cannot be read safely or holds another kind of network.
    """
    found = read_published(path)
    return filled_generator(found.settings, found.weights, path).to(device)


def convert_published(
    path: str | Path, folder: str | Path, *, half: bool = False, licence: str = NVIDIA_LICENCE
) -> Converted:
    """Write a network file's averaged generator as ``NAME.safetensors`` and ``NAME.json``.

    Each is written atomically in ``folder``. The same file always makes the same bytes.

    Args:
        path: network file to read.
        folder: folder to write to.
        half: store float16 instead of the exact float32.
        licence: of the weights, as the JSON file shall state it.

    Raises:
        ValueError: as :func:`read_published`, or where the weights do not fit, or nothing can be written.
    """
    path, folder = Path(path), Path(folder)
    found = read_published(path)
    generator = filled_generator(found.settings, found.weights, path)
    weights = folder / f"{path.stem}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_generator(generator, weights, metadata={"licence": licence}, half=half)
        about = {
            "file": weights.name,
            "sha256": sha256(weights),
            "licence": licence,
            "source": path.name,
            "source_sha256": found.sha256,
            "made_by": "portrait models import",
            "kind": kind_of(generator),
            "class": found.class_name,
            "parameters": sum(parameter.numel() for parameter in generator.parameters()),
            "precision": "float16" if half else "float32",
            "settings": generator.settings.model_dump(mode="json"),
            "constructor": found.constructor,
            "rendering": found.rendering,
        }
        about_path = weights.with_suffix(".json")
        write_whole(about_path, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot write to {folder}: {error}; name another folder with --out") from error
    return Converted(weights, about_path, about)


def check_generator(path: str | Path) -> Checked:
    """Load a generator file (converted, or still a ``.pkl``) and look for faults.

    Faults are a wrong digest, weights that do not fit or are not finite, and a mapping that gives no sensible
    latent.

    Raises:
        ValueError: naming what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is no file; expected a .safetensors file of `portrait models import`")
    about: dict[str, Any] = {}
    if path.suffix == ".pkl":
        generator = load_published(path)
    else:
        about = _about(path)
        digest = sha256(path) if about.get("sha256") else None
        if digest != about.get("sha256"):
            raise ValueError(
                f"{path} has SHA-256 {digest}, but {path.with_suffix('.json').name} says {about['sha256']}: "
                "it was changed or cut short; import it again"
            )
        generator = load_generator(path, kind=None)
    broken = [name for name, value in generator.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(f"{path} has weights that are not finite: {', '.join(broken[:3])}")
    _check_mapping(generator, path)
    return Checked(generator, about)


def sha256(path: str | Path) -> str:
    """Return the digest of a file, 64 hexadecimal digits."""
    with open_weights(path) as file:
        return sha256_of(file)


def _check_mapping(generator: AnyGenerator, path: Path) -> None:
    settings = generator.settings
    z = torch.randn(2, settings.z_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ws = generator.mapping(z, torch.zeros(2, settings.c_dim) if settings.c_dim else None)
    if ws.shape != (2, settings.num_ws, settings.w_dim) or not torch.isfinite(ws).all():
        raise ValueError(
            f"the mapping network of {path} gives {list(ws.shape)} or values that are not finite"
        )


def _eg3d_settings(record: ModuleRecord, kwargs: Mapping[str, Any]) -> GeneratorSettings:
    rendering = kwargs["rendering_kwargs"]
    for name in _RAYS:
        value = rendering.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"its rendering option {name} is {value!r}; only a number is supported")
    for name, value in (kwargs.get("mapping_kwargs") or {}).items():
        if name not in ("num_layers", "w_avg_beta") and value != _MAPPING.get(name):
            raise ValueError(
                f"it was built with mapping_kwargs {name}={value!r}, which is not supported in EG3D"
            )
    resolution = record.state.get("neural_rendering_resolution", 128)
    settings = GeneratorSettings.from_published(kwargs, int(resolution))
    return settings.model_copy(update={"plane_axes": _plane_axes(record)})


def _plane_axes(record: ModuleRecord) -> str:
    """Tell from a file's renderer whether its training code had corrected the third plane."""
    renderer = (record.state.get("_modules") or {}).get("renderer")
    axes = renderer.state.get("plane_axes") if isinstance(renderer, ModuleRecord) else None
    if axes is None:
        return "published"
    found = plain_data(axes)
    for name, planes in _PLANE_AXES.items():
        if found == [[list(map(float, _AXES[axis])) for axis in plane] for plane in planes]:
            return name
    raise ValueError(f"its planes lie along {found}, which is not known here")


def _refuse_other_files(path: Path) -> None:
    """Name the files that people are most likely to mistake for a network file."""
    try:
        with open_weights(path) as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    what = None
    if path.suffix == ".safetensors":
        what = "a .safetensors file; if it is a converted generator, `portrait models check` reads it"
    elif start.startswith(b"PK"):
        what = "a zip archive, as torch.save writes"
    elif start[:1] == b"<" or start.lower().startswith(b"version https://git-lfs"):
        what = "a web page or a pointer in place of the file; download it again"
    elif not start:
        what = "empty; download it again"
    if what:
        raise ValueError(
            f"{path} is {what}. Expected a network file (.pkl) of EG3D or StyleGAN2, as published"
        )


def _about(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        return read_sidecar(beside)
    except ValueError as error:
        raise ValueError(f"{beside} cannot be read ({error}); import {path.stem} again") from error
