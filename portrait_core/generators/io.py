"""Generator files: safetensors, with the settings and what else is known in the metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from portrait_core.errors import ModelFileError
from portrait_core.generators.eg3d import TriPlaneGenerator
from portrait_core.generators.scene_latents_2d import LAYOUT_2D
from portrait_core.generators.settings import GeneratorSettings
from portrait_core.generators.stylegan2 import StyleGAN2Generator, StyleGAN2Settings
from portrait_core.runtime.whole_files import partial_file
from portrait_core.settings.limits import over_limit
from portrait_core.weights.readers.brief import brief
from portrait_core.weights.readers.safetensors_files import open_safetensors
from portrait_core.weights.sidecars import parsed_object

AnyGenerator = TriPlaneGenerator | StyleGAN2Generator
AnySettings = GeneratorSettings | StyleGAN2Settings
Kind = Literal["triplane", "stylegan2"]

_METADATA = "generator"
_MOST_SAMPLES = 4096
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_FREE_VALUES, _VALUES_PER_STORED, _VALUES_PER_TENSOR = 1 << 22, 4, 64
"""Values that a network may make while it is built, always and per stored one; what a tensor counts as."""
_TITLES: dict[str, str] = {"triplane": "tri-plane generator", "stylegan2": "StyleGAN2 (2D) generator"}


def kind_of(generator: AnyGenerator | AnySettings) -> Kind:
    """Return ``triplane`` or ``stylegan2``."""
    return "stylegan2" if isinstance(generator, StyleGAN2Generator | StyleGAN2Settings) else "triplane"


def save_generator(
    generator: AnyGenerator,
    path: str | Path,
    *,
    latent_layout: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    half: bool = True,
) -> None:
    """Write weights, settings and the meaning of z to one file, atomically.

    The same generator always makes the same bytes.

    Args:
        generator: tri-plane or 2D generator.
        path: file to write.
        latent_layout: contents of each range of z (any JSON), for generators with structured latents.
        metadata: further strings, such as the licence.
        half: store float16 (half the size; relative error 5e-4) instead of float32.

    Raises:
        ValueError: if a weight is not finite, or too large for float16.
    """
    dtype = torch.float16 if half else torch.float32
    # the filter taps are fixed, but they belong to the published names; they cost 64 bytes each
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in generator.state_dict().items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that {dtype} cannot hold; save with half=False")
    about = {
        **(metadata or {}),
        "kind": kind_of(generator),
        "image_resolution": generator.settings.image_resolution,
        "settings": generator.settings.model_dump_json(),
        "latent_layout": json.dumps(latent_layout or {}),
    }
    with partial_file(path) as partial:
        # one entry: safetensors writes several in an order that differs from call to call
        save_file(tensors, partial, metadata={_METADATA: json.dumps(about, sort_keys=True)})


@overload
def load_generator(
    path: str | Path, device: str | torch.device = "cpu", *, kind: Literal["triplane"] = "triplane"
) -> TriPlaneGenerator: ...
@overload
def load_generator(
    path: str | Path, device: str | torch.device = "cpu", *, kind: Literal["stylegan2"]
) -> StyleGAN2Generator: ...
@overload
def load_generator(path: str | Path, device: str | torch.device = "cpu", *, kind: None) -> AnyGenerator: ...
def load_generator(
    path: str | Path, device: str | torch.device = "cpu", *, kind: Kind | None = "triplane"
) -> AnyGenerator:
    """Read a file of :func:`save_generator`: a float32 generator in eval mode, without gradients.

    Args:
        path: file to read.
        device: device of the generator.
        kind: kind that the file must hold; None takes either kind.

    Raises:
        ValueError: if the file is not such a file, holds the other kind, or its weights do not fit its
            settings.
    """
    about, tensors = _read(path)
    found = about.get("kind", "triplane")  # the oldest files do not say
    if found not in _TITLES:
        raise ValueError(
            f"{path} holds a generator of kind {brief(found)}; expected one of {sorted(_TITLES)}"
        )
    if kind not in (None, found):
        raise ValueError(f"{path} holds a {_TITLES[found]}; expected a {_TITLES[str(kind)]}")
    settings_class = GeneratorSettings if found == "triplane" else StyleGAN2Settings
    generator = filled_generator(settings_class.model_validate_json(about["settings"]), tensors, path)
    if isinstance(generator, StyleGAN2Generator):
        generator.latent_layout = _layout(about)
    return generator.to(device)


def filled_generator(settings: AnySettings, tensors: Mapping[str, Tensor], path: str | Path) -> AnyGenerator:
    """Build a generator from settings and weights: float32, in eval mode, without gradients.

    The weights may be of any floating type. ``path`` is the file that they come from, for messages.

    Raises:
        ValueError: if the weights do not fit the settings.
    """
    _check_sizes(settings, len(tensors), path)
    values = sum(tensor.numel() for tensor in tensors.values())
    try:
        with _NoDraws(_FREE_VALUES + _VALUES_PER_STORED * values):
            generator = _built(settings)
    # sizes that no network can have cause several kinds of errors in torch
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(f"the settings in {path} make no network: {error!s:.200}") from error
    _check_fit(generator, tensors, path)
    generator.load_state_dict(tensors)  # copies, so each weight keeps its memory format, and becomes float32
    return generator.eval().requires_grad_(False)


def _built(settings: AnySettings) -> AnyGenerator:
    if isinstance(settings, StyleGAN2Settings):
        return StyleGAN2Generator(settings)
    return TriPlaneGenerator(settings)


class _NoDraws(TorchFunctionMode):
    """Leaves new weights unset, and refuses to make far more of them than the file holds.

    Drawing thirty million normals, and laying them out anew, takes longer than reading them does.

    Only for networks of which every tensor is then loaded. A mode holds in its own thread alone.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = most

    def _count(self, size: Iterable[Any]) -> None:
        self._left -= _VALUES_PER_TENSOR + math.prod(length for length in size if isinstance(length, int))
        if self._left < 0:
            raise ValueError("its settings ask for far more weights than it holds")

    def __torch_function__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tuple(args), dict(kwargs or {})
        if func in _MAKERS:
            self._count(kwargs.get("size", args[0] if args and isinstance(args[0], tuple | list) else args))
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        if func is Tensor.to and kwargs.get("memory_format") is not None:
            return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
        return func(*args, **kwargs)


def _check_fit(generator: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    wanted = {name: tuple(value.shape) for name, value in generator.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = [f"{name} is missing" for name in wanted if name not in given]
    wrong += [f"{name} is not known" for name in given if name not in wanted]
    wrong += [
        f"{name} has shape {list(given[name])}, expected {list(shape)}"
        for name, shape in wanted.items()
        if given.get(name, shape) != shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"the weights in {path} do not fit its settings: {'; '.join(wrong[:3])}{more}")


def _check_sizes(settings: AnySettings, tensors: int, path: str | Path) -> None:
    """Refuse settings of a network that would be endless to build or to run."""
    sides = [settings.image_resolution, settings.neural_resolution]
    if isinstance(settings, GeneratorSettings):
        sides.append(settings.plane_size)
        samples = settings.sampling.n_coarse + settings.sampling.n_fine
        if samples > _MOST_SAMPLES:
            raise ValueError(f"{path} asks for {brief(samples)} samples per ray, of at most {_MOST_SAMPLES}")
    if problem := over_limit("picture_pixels", max(sides) ** 2):
        raise ValueError(f"{path}: a picture or plane of its network {problem}")
    if settings.mapping_layers > tensors:  # each has its own weights
        raise ValueError(f"{path} names {brief(settings.mapping_layers)} layers and holds {tensors} tensors")


def load_latent_layout(path: str | Path) -> dict[str, Any]:
    """Return the meaning of z that :func:`save_generator` wrote; empty where there is none."""
    return _layout(load_metadata(path))


@dataclass(frozen=True)
class GeneratorFacts:
    """What a generator's file says of itself.

    Attributes:
        kind: its kind.
        image_resolution: side of its images in pixels.
        has_scene_latents: True where its z holds the parameters of a scene.
    """

    kind: Kind
    image_resolution: int
    has_scene_latents: bool


def load_facts(path: str | Path) -> GeneratorFacts:
    """Read what the file of a 2D or tri-plane generator says of itself, without its weights.

    Raises:
        ValueError: if the file is not one of :func:`save_generator`.
    """
    about = load_metadata(path)
    if about.get("kind", "triplane") == "stylegan2":
        flat = StyleGAN2Settings.model_validate_json(about["settings"])
        return GeneratorFacts("stylegan2", flat.image_resolution, _layout(about) == LAYOUT_2D)
    volume = GeneratorSettings.model_validate_json(about["settings"])
    return GeneratorFacts("triplane", volume.image_resolution, volume.mapping_kind == "scene")


def _layout(about: Mapping[str, str]) -> dict[str, Any]:
    return parsed_object(about.get("latent_layout", "{}"))


def load_metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata that :func:`save_generator` wrote beside the weights.

    They are ``kind``, ``settings``, ``latent_layout``, and the strings that it was given.

    Raises:
        ValueError: if the file is not such a file.
    """
    with _open(path) as file:
        return _metadata(file, path)


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with _open(path) as file:
        return _metadata(file, path), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _open(path: str | Path) -> Iterator[Any]:
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_safetensors(path))
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"cannot read a generator from {path}: {error}; expected a .safetensors file of "
                "save_generator"
            ) from error
        yield file


def _metadata(file: Any, path: str | Path) -> dict[str, str]:
    about = dict(file.metadata() or {})
    if _METADATA in about:
        about = parsed_object(about[_METADATA])
    if not all(isinstance(value, str | int) for value in about.values()) or "settings" not in about:
        raise ValueError(f"{path} carries no generator settings; expected a file of save_generator")
    return about
