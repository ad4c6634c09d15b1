"""Checkpoints of ``torch.save``, in its zip format or the older one, whatever their suffix is.

Our own reader makes tensors and plain containers of them. Then they are compared with the names and shapes of
their network: entries that do not fit are refused instead of skipped.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from portrait_core.weights.file_checks import checking, open_weights
from portrait_core.weights.locate import package_file
from portrait_core.weights.readers.brief import listed
from portrait_core.weights.readers.torch_pickles import read_checkpoint

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of a network's entries by their names."""

LPIPS_CHANNELS = (64, 128, 256, 512, 512)
"""Channels of the VGG16 feature maps that LPIPS weights."""
LPIPS_ALEX_CHANNELS = (64, 192, 384, 256, 256)
"""Channels of AlexNet's."""

_FREE, _COPIES = 1 << 26, 16  # bytes that copies may always take, and per stored byte: two of uint8 as int64

State = dict[str, Tensor]
"""Tensors by the names of a network's ``state_dict``, on the CPU: float32, counters int64."""


@dataclass(frozen=True)
class LpipsHeads:
    """LPIPS's linear layers on VGG16 or AlexNet, version 0.1."""

    weights: tuple[Tensor, ...]
    """Five tensors ``[1,C,1,1]`` float32; on VGG16 C = 64, 128, 256, 512, 512: relu1_2 to relu5_3."""


def network_shapes(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's entries, without memory for them."""
    with torch.device("meta"):
        state = build().state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


@cache
def vgg16_shapes() -> Shapes:
    """Return the shapes of VGG16's convolutions, 26 entries."""
    from torchvision.models import vgg16  # here: slow to import, and only VGG16 and LPIPS need it

    shapes = network_shapes(lambda: vgg16(weights=None))
    return {name: shape for name, shape in shapes.items() if name.startswith("features.")}


def read_vgg16(path: str | Path) -> State:
    """Read the convolutions of ``vgg16-397923af.pth``: ``features.0.weight`` to ``features.28.bias``.

    Its classifier is ignored, and need not exist.

    Raises:
        ModelFileError: the file is missing, holds more than tensors, or lacks weights.
    """
    with checking(path, "vgg16"):
        return select_tensors(read_torch(path), vgg16_shapes(), "VGG16")


@cache
def alexnet_shapes() -> Shapes:
    """Return the shapes of AlexNet's convolutions, 10 entries."""
    from torchvision.models import alexnet  # here, as above

    shapes = network_shapes(lambda: alexnet(weights=None))
    return {name: shape for name, shape in shapes.items() if name.startswith("features.")}


def read_alexnet(path: str | Path) -> State:
    """Read the convolutions of ``alexnet-owt-7be5be79.pth``: ``features.0.weight`` to ``features.10.bias``.

    Its classifier is ignored, and need not exist.

    Raises:
        ModelFileError: the file is missing, holds more than tensors, or lacks weights.
    """
    with checking(path, "alexnet"):
        return select_tensors(read_torch(path), alexnet_shapes(), "AlexNet")


def read_lpips(path: str | Path | None = None) -> LpipsHeads:
    """Read LPIPS's linear layers on VGG16.

    Args:
        path: the file; default: the one inside the installed package ``lpips``, which is not imported.

    Raises:
        ModelFileError: the file is missing, holds more than tensors, or lacks weights.
    """
    path = package_file("lpips", "weights/v0.1/vgg.pth") if path is None else path
    return _lpips_heads(path, "lpips", LPIPS_CHANNELS)


def read_lpips_alex(path: str | Path | None = None) -> LpipsHeads:
    """Read LPIPS's linear layers on AlexNet, as :func:`read_lpips` does."""
    path = package_file("lpips", "weights/v0.1/alex.pth") if path is None else path
    return _lpips_heads(path, "lpips_alex", LPIPS_ALEX_CHANNELS)


def _lpips_heads(path: str | Path, model: str, channels: tuple[int, ...]) -> LpipsHeads:
    with checking(path, model):
        shapes = {f"lin{i}.model.1.weight": (1, n, 1, 1) for i, n in enumerate(channels)}
        state = select_tensors(read_torch(path), shapes, "LPIPS")
        return LpipsHeads(tuple(state[name] for name in shapes))


def read_styleflow(path: str | Path) -> State:
    """Read published StyleFlow weights: a bare ``state_dict``, whose names and shapes its network checks.

    Raises:
        ModelFileError: the file is missing or holds more than tensors by name.
    """
    with checking(path, "styleflow"):
        return select_tensors(read_torch(path), {}, "StyleFlow", keep_others=True)


def read_torch(path: str | Path) -> Any:
    """Read the tensors and plain containers of a checkpoint, on the CPU. Nothing in it is run.

    Raises:
        OSError: the file does not exist.
        ValueError: it is not a checkpoint, is damaged, or asks for anything else.
    """
    with open_weights(path) as file:
        return read_torch_file(file)


def read_torch_file(file: BinaryIO) -> Any:
    """Read a checkpoint from an open file, as :func:`read_torch` does."""
    try:
        return read_checkpoint(file)
    # a damaged or hostile file causes many kinds of errors
    except Exception as error:
        own = isinstance(error, ValueError | pickle.UnpicklingError)
        reason = str(error) if own else type(error).__name__
        raise ValueError(f"it is no checkpoint that can be read safely ({reason:.200})") from error


def select_tensors(state: Any, shapes: Shapes, what: str, *, keep_others: bool = False) -> State:
    """Return the tensors that a network needs, float32 and int64, contiguous.

    Args:
        state: tensors by name.
        shapes: names and shapes that must exist; others are left out.
        what: name of the network, for messages.
        keep_others: keep the others too, for a network that is checked elsewhere.

    Raises:
        ValueError: entries are missing, have another shape or are not finite; the message names them.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{what} is a {type(state).__name__}, expected weights by name")
    if keep_others:
        _refuse_repeats(state, what)
    problems = [f"{name} is missing" for name in shapes if name not in state]
    chosen: Iterable[str] = [name for name in state if keep_others or name in shapes]
    for name in chosen:
        value = state[name]
        if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
            problems.append(f"{name!s:.100} is a {type(value).__name__}, expected plain numbers")
        elif name in shapes and tuple(value.shape) != shapes[name]:
            problems.append(f"{name} has shape {list(value.shape)}, expected {list(shapes[name])}")
        elif not torch.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{what} does not fit: {'; '.join(problems[:3])}{more}")
    return {name: _plain(state[name]) for name in chosen}


def _refuse_repeats(state: Mapping[Any, Any], what: str) -> None:
    """Refuse tensors whose shapes nothing else bounds and which repeat their values very often.

    A tensor is a view of a storage, so a few bytes can stand for gigabytes, which a copy would need.
    """
    tensors = [
        value for value in state.values() if isinstance(value, Tensor) and value.layout is torch.strided
    ]
    storages = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    needed = sum(value.numel() for value in tensors) * torch.int64.itemsize
    if needed > _FREE + _COPIES * sum(storages.values()):
        raise ValueError(f"{what} repeats its values: {needed:,} bytes of {sum(storages.values()):,}")


def _plain(value: Tensor) -> Tensor:
    kind = torch.float32 if value.is_floating_point() else torch.int64
    return value.detach().to(kind).contiguous()


def checkpoint_entry(content: Any, name: str) -> Any:
    """Return a checkpoint's entry of a name.

    Raises:
        ValueError: it has no entry of that name.
    """
    if not isinstance(content, Mapping) or name not in content:
        held = listed(content) if isinstance(content, Mapping) else ""
        raise ValueError(f"it lacks {name}; it holds {held or type(content).__name__}")
    return content[name]
