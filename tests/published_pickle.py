"""Network files with the structure that the StyleGAN family's training loops write, around our own weights.

The classes that such a file names live in modules that are not installed here. They are made up while
pickling, so the file holds the same names and instructions; no program text is in it.
"""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from portrait_core.generators import (
    GeneratorSettings,
    StyleGAN2Generator,
    StyleGAN2Settings,
    TriPlaneGenerator,
)

STYLEGAN2_KWARGS: dict[str, Any] = {
    "z_dim": 12,
    "w_dim": 16,
    "mapping_kwargs": {"num_layers": 3},
    "synthesis_kwargs": {"channel_base": 128, "channel_max": 8, "num_fp16_res": 4, "conv_clamp": 256},
    "c_dim": 0,
    "img_resolution": 16,
    "img_channels": 3,
}
EG3D_KWARGS: dict[str, Any] = {
    "z_dim": 12,
    "w_dim": 16,
    "c_dim": 25,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 256,
    "channel_max": 4,
    "fused_modconv_default": "inference_only",
    "num_fp16_res": 0,
    "conv_clamp": None,
    "img_resolution": 128,
    "img_channels": 3,
    "rendering_kwargs": {
        "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
        "clamp_mode": "softplus",
        "c_scale": np.float64(1.0),
        "sr_antialias": True,
        "density_reg_every": None,
        "decoder_lr_mul": 1.0,
        "depth_resolution": 6,
        "depth_resolution_importance": 6,
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "avg_camera_pivot": [0, 0, 0.2],
    },
}
_NUMBERS = {"neural_rendering_resolution": 16}


class _Named:
    """An object that pickles as one of a class that is not installed."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state


class _Persistent(_Named):
    def __reduce__(self) -> Any:
        rebuild = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return rebuild, (self.state,)


class _Scalar:
    """A numpy number under the name that numpy 1 gave its constructor."""

    def __init__(self, value: np.generic) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return sys.modules["numpy.core.multiarray"].scalar, (self.value.dtype, self.value.tobytes())


def _module_class(module: str, name: str) -> type:
    return type(name, (), {"__module__": module})


@contextmanager
def _made_up_modules() -> Iterator[dict[str, ModuleType]]:
    def rebuild(meta: Any) -> None: ...
    def scalar(*_: Any) -> None: ...

    contents: dict[str, dict[str, Any]] = {
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": rebuild},
        "numpy.core.multiarray": {"scalar": scalar},
        "dnnlib": {},
        "dnnlib.util": {"EasyDict": type("EasyDict", (dict,), {"__module__": "dnnlib.util"})},
        "training": {},
        "training.renderer": {
            "ImportanceRenderer": _module_class("training.renderer", "ImportanceRenderer"),
        },
    }
    rebuild.__module__, rebuild.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"
    scalar.__module__, scalar.__qualname__ = "numpy.core.multiarray", "scalar"
    before = {name: sys.modules.get(name) for name in contents}
    made = {}
    for name, attributes in contents.items():
        made[name] = ModuleType(name)
        vars(made[name]).update(attributes)
    sys.modules.update(made)
    try:
        yield made
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _attributes(children: dict[str, Any], module: nn.Module | None = None) -> dict[str, Any]:
    """A module's ``__dict__``, as far as a file holds it."""
    return {
        "training": False,
        "_parameters": OrderedDict(module._parameters if module else {}),
        "_buffers": OrderedDict(module._buffers if module else {}),
        "_non_persistent_buffers_set": set(),
        "_backward_hooks": OrderedDict(),
        "_is_full_backward_hook": None,
        "_modules": OrderedDict(children),
    }


def _persistent(class_name: str, state: dict[str, Any]) -> _Persistent:
    return _Persistent(
        {
            "type": "class",
            "version": 6,
            "module_src": "# removed",
            "class_name": class_name,
            "state": state,
        }
    )


def _record(module: nn.Module, class_name: str, **more: Any) -> Any:
    """A module and all below it. Plain torch modules stay themselves, as they do in published files."""
    children = {name: _record(child, type(child).__name__) for name, child in module.named_children()}
    if type(module).__module__.startswith("torch.nn.modules."):
        plain = copy.copy(module)
        plain._modules = dict(children)
        return plain
    gain = {"weight_gain": _Scalar(np.float64(0.5))} if hasattr(module, "weight_gain") else {}
    state = _attributes(children | more.pop("replaced", {}), module)
    return _persistent(class_name, state | gain | more)


def _easy(made: dict[str, ModuleType], values: dict[str, Any]) -> Any:
    fixed = {key: _Scalar(v) if isinstance(v, np.generic) else v for key, v in values.items()}
    return made["dnnlib.util"].EasyDict(fixed)


def _discriminator() -> _Persistent:
    weights = nn.Conv2d(3, 2, 1)
    layer = _persistent("Conv2dLayer", _attributes({}, weights))
    plain = nn.Sequential(nn.Softplus(), nn.Linear(2, 1))
    return _persistent("DualDiscriminator", _attributes({"b4": layer, "tail": plain}))


def _write(path: Path, generator: Any, made: dict[str, ModuleType], protocol: int) -> Path:
    content = {
        "training_set_kwargs": made["dnnlib.util"].EasyDict(class_name="training.dataset.ImageFolderDataset"),
        "G": None,
        "D": _discriminator(),
        "G_ema": generator,
        "augment_pipe": _persistent("AugmentPipe", _attributes({})),
    }
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol=protocol).dump(content)
    path.write_bytes(buffer.getvalue())
    return path


Fill = Callable[[nn.Module], object]
"""Function that gives a generator its weights in place."""


def write_stylegan2(
    path: Path, *, protocol: int = 3, refused: bool = False, fill: Fill | None = None, **changes: Any
) -> StyleGAN2Generator:
    """Write a tiny StyleGAN2 network file; the generator in it is returned.

    Args:
        refused: the ``changes`` are such as our settings refuse, and are made in the file alone.
        fill: gives the weights; default: those of a new generator.
        changes: of the constructor's arguments.
    """
    torch.manual_seed(0)
    kwargs = STYLEGAN2_KWARGS | changes
    settings = StyleGAN2Settings.from_published(STYLEGAN2_KWARGS if refused else kwargs)
    generator = StyleGAN2Generator(settings).eval().requires_grad_(False)
    generator.mapping.w_avg.normal_()
    if fill is not None:
        fill(generator)
    with _made_up_modules() as made:
        record = _record(generator, "Generator", _init_args=(), _init_kwargs=_easy(made, kwargs))
        _write(path, record, made, protocol)
    return generator


FFHQ_KWARGS: dict[str, Any] = EG3D_KWARGS | {
    "z_dim": 512,
    "w_dim": 512,
    "channel_base": 32768,
    "channel_max": 512,
    "img_resolution": 512,
    "rendering_kwargs": EG3D_KWARGS["rendering_kwargs"]
    | {
        "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
    },
}
"""The architecture of the published ``ffhqrebalanced512-128.pkl``."""


def write_eg3d(
    path: Path,
    *,
    protocol: int = 4,
    third_plane: Sequence[int] = (2, 0, 1),
    ffhq: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    neural_resolution: int | None = None,
    fill: Fill | None = None,
    **rendering: Any,
) -> TriPlaneGenerator:
    """Write a tiny EG3D network file; the generator in it is returned.

    Args:
        third_plane: axes (0: x) along which the file's third plane lies.
        ffhq: not tiny: of the published size, 512 pixels from 128 x 128 rays.
        kwargs: the constructor's arguments, instead of the tiny ones.
        neural_resolution: of the rays, instead of theirs.
        fill: gives the weights; default: those of a new generator.
        rendering: changes of the rendering options, in the file alone.
    """
    torch.manual_seed(0)
    kwargs = dict(kwargs or (FFHQ_KWARGS if ffhq else EG3D_KWARGS))
    numbers = {"neural_rendering_resolution": 128} if ffhq else dict(_NUMBERS)
    if neural_resolution is not None:
        numbers["neural_rendering_resolution"] = neural_resolution
    settings = GeneratorSettings.from_published(kwargs, numbers["neural_rendering_resolution"])
    generator = TriPlaneGenerator(settings).eval().requires_grad_(False)
    if fill is not None:
        fill(generator)
    with _made_up_modules() as made:
        options = _easy(made, kwargs["rendering_kwargs"] | rendering)
        renderer = made["training.renderer"].ImportanceRenderer()
        axes = np.eye(3)[[[0, 1, 2], [0, 2, 1], list(third_plane)]]
        vars(renderer).update(_attributes({}), plane_axes=torch.from_numpy(axes).float())
        record = _record(
            generator,
            "TriPlaneGenerator",
            replaced={"renderer": renderer},
            _init_args=(),
            _init_kwargs=kwargs | {"rendering_kwargs": options},
            rendering_kwargs=options,
            **numbers,
        )
        _write(path, record, made, protocol)
    return generator
