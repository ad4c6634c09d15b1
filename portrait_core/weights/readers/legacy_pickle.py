"""Read published network files (pickles) without running anything they contain.

A pickle can name any function for its reader to call. This reader resolves a short list of names, all to
inert stand-ins or plain constructors of arrays, and refuses everything else. The program text that network
files of the StyleGAN family carry is never read.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from portrait_core.weights.file_checks import open_weights, sha256_of
from portrait_core.weights.readers.array_pickle import ARRAY_NAMES, plain_set
from portrait_core.weights.readers.brief import brief, listed
from portrait_core.weights.readers.pickled_arrays import (
    ArrayRecord,
    DTypeRecord,
    rebuild_parameter,
    rebuild_tensor,
)
from portrait_core.weights.readers.torch_pickles import load_storage
from portrait_core.weights.readers.unpickler import ClassName, DataUnpickler, plain_key

_MAX_MODULES = 100_000
_MAX_DEPTH = 100
_MOST_VALUES = 100_000
"""Most values of what a network says of itself: a published file has some hundreds."""


class ModuleRecord:
    """Content of a pickled ``torch.nn.Module``, as plain data."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        """Name of its class, without the module."""
        self.state: dict[str, Any] = {}
        """Its attributes."""
        self.sha256 = ""
        """Digest of the file, of a network that :func:`read_network` returned."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"the state of a {self.class_name} is a {type(state).__name__}")
        self.state = dict(state)

    def _group(self, name: str) -> dict[str, Any]:
        group = self.state.get(name)
        return group if isinstance(group, dict) else {}

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments of its constructor (empty if not recorded)."""
        return dict(self._group("_init_kwargs"))

    def state_dict(self) -> dict[str, Tensor]:
        """Return parameters and buffers by their full names, in float32 where they are half precision.

        Raises:
            ValueError: its modules contain each other, or are too many.
        """
        tensors: dict[str, Tensor] = {}
        single: dict[int, Tensor] = {}  # by the original's identity: a module may be reached by many names
        waiting = [("", self, 0)]
        for visited, (prefix, module, depth) in enumerate(waiting):  # the list grows meanwhile
            if depth > _MAX_DEPTH or visited > _MAX_MODULES:
                raise ValueError(f"the modules of this {self.class_name} contain each other, or are too many")
            for group in ("_parameters", "_buffers"):
                for name, value in module._group(group).items():
                    if isinstance(value, Tensor):
                        if id(value) not in single:
                            single[id(value)] = value.float() if value.is_floating_point() else value
                        tensors[f"{prefix}{name}"] = single[id(value)]
            for name, child in module._group("_modules").items():
                if isinstance(child, ModuleRecord):
                    waiting.append((f"{prefix}{name}.", child, depth + 1))
        return tensors


class _EasyDict(dict[str, Any]):
    """Stand-in for a dictionary with attribute access."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__(_pairs(items))


def _pairs(items: Any) -> list[tuple[Any, Any]]:
    listed = list(items.items()) if isinstance(items, dict) else list(items)
    return [(plain_key(key), value) for key, value in listed]


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(_pairs(items))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else brief(value)


def _persistent(meta: Any) -> ModuleRecord:
    if not isinstance(meta, dict):
        raise pickle.UnpicklingError(f"a network is described by a {type(meta).__name__}, expected a dict")
    record = ModuleRecord(_text(meta.get("class_name", "")))
    record.__setstate__(meta.get("state", {}))
    return record


_ALLOWED: dict[tuple[str, str], Any] = {
    **ARRAY_NAMES,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch.storage", "_load_from_bytes"): load_storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    **{("torch", name): getattr(torch, name) for name in ("float16", "float32", "float64", "int64", "bool")},
}
_MODULE_PREFIXES = ("torch.nn.modules.", "training.")


class LegacyUnpickler(DataUnpickler):
    """An unpickler that resolves the names above and nothing else."""

    fillable: tuple[type, ...] = (ModuleRecord, DTypeRecord, ArrayRecord)

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, _ALLOWED)

    def stand_in(self, module: str, name: str) -> Any:
        """Return a record of a network's class; refuse any other name."""
        if module.startswith(_MODULE_PREFIXES) and name.isidentifier():
            return ClassName(module, name)
        return super().stand_in(module, name)

    def construct(self, of: ClassName, args: tuple[Any, ...]) -> ModuleRecord:
        """Return an empty record in place of a module."""
        return ModuleRecord(of.name)


def read_legacy_pickle(path: str | Path) -> Any:
    """Read a pickle of arrays, tensors and plain containers.

    Raises:
        ValueError: the file does not exist, is not a pickle, or asks for a name that is not allowed.
    """
    return _read_with_digest(path)[0]


def _read_with_digest(path: str | Path) -> tuple[Any, str]:
    """Return a pickle's content and the SHA-256 of the file, which is opened once for both."""
    try:
        with open_weights(path) as file:
            content = _load(file, path)
            return content, sha256_of(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def _load(file: BinaryIO, path: str | Path) -> Any:
    try:
        return LegacyUnpickler(file).load()
    # a damaged or hostile file can cause many kinds of errors
    except Exception as error:
        own = isinstance(error, pickle.UnpicklingError)
        message = str(error) if own else f"it is no such pickle ({error!r:.200})"
        raise ValueError(
            f"cannot read {path} safely: {message}; expected the published network file, unchanged"
        ) from error


def read_network(path: str | Path, name: str = "G_ema") -> ModuleRecord:
    """Read one network of a StyleGAN-family file; ``G_ema`` is the one for inference.

    Raises:
        ValueError: the file cannot be read safely, or holds no network of that name.
    """
    content, sha256 = _read_with_digest(path)
    record = content.get(name) if isinstance(content, dict) else None
    if not isinstance(record, ModuleRecord):
        held = listed(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds no network {name!r}; it holds {held}")
    record.sha256 = sha256
    return record


def plain_data(value: Any) -> Any:
    """Convert a network file's description of itself to values of JSON.

    numpy values become numbers and lists, and anything else becomes text.

    Raises:
        ValueError: the value is nested too deeply, or is too large.
    """
    return _Plain().data(value, 0)


class _Plain:
    """A conversion that counts the values it makes: a container may hold another one many times."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def data(self, value: Any, depth: int) -> Any:
        """Convert a value at a depth."""
        self._count(1 if depth <= _MAX_DEPTH else self._left + 1)
        if value is None or (
            isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)
        ):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            self._count(value.size)
            return value.tolist()
        if isinstance(value, Tensor):
            self._count(value.numel())
            return value.tolist()
        if isinstance(value, dict):
            return {str(key): self.data(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(item, depth + 1) for item in value]
        if isinstance(value, set | frozenset):
            self._count(len(value))
            return sorted(map(str, value))
        return str(value)

    def _count(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise ValueError(
                "the network's arguments are nested too deeply or too large; expected the published file, "
                "unchanged"
            )
