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

from portrait_core.weights.readers.array_pickle import ARRAY_NAMES, plain_set
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


class ModuleRecord:
    """Content of a pickled ``torch.nn.Module``, as plain data."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        """Name of its class, without the module."""
        self.state: dict[str, Any] = {}
        """Its attributes."""

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
        waiting = [("", self, 0)]
        for visited, (prefix, module, depth) in enumerate(waiting):  # the list grows meanwhile
            if depth > _MAX_DEPTH or visited > _MAX_MODULES:
                raise ValueError(f"the modules of this {self.class_name} contain each other, or are too many")
            for group in ("_parameters", "_buffers"):
                for name, value in module._group(group).items():
                    if isinstance(value, Tensor):
                        tensors[f"{prefix}{name}"] = value.float() if value.is_floating_point() else value
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


def _persistent(meta: Any) -> ModuleRecord:
    if not isinstance(meta, dict):
        raise pickle.UnpicklingError(f"a network is described by a {type(meta).__name__}, expected a dict")
    record = ModuleRecord(str(meta.get("class_name", "")))
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
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; its own errors are told apart from the pickle's
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            return LegacyUnpickler(file).load()
        # a damaged or hostile file can cause many kinds of errors
        except Exception as error:
            message = (
                str(error)
                if isinstance(error, pickle.UnpicklingError)
                else f"it is no such pickle ({error!r})"
            )
            raise ValueError(
                f"cannot read {path} safely: {message}; expected the published network file, unchanged"
            ) from error


def read_network(path: str | Path, name: str = "G_ema") -> ModuleRecord:
    """Read one network of a StyleGAN-family file; ``G_ema`` is the one for inference.

    Raises:
        ValueError: the file cannot be read safely, or holds no network of that name.
    """
    content = read_legacy_pickle(path)
    record = content.get(name) if isinstance(content, dict) else None
    if not isinstance(record, ModuleRecord):
        held = (
            ", ".join(map(str, list(content)[:12])) if isinstance(content, dict) else type(content).__name__
        )
        raise ValueError(f"{path} holds no network {name!r}; it holds {held}")
    return record


def plain_data(value: Any, depth: int = 0) -> Any:
    """Convert a network file's description of itself to values of JSON.

    numpy values become numbers and lists, and anything else becomes text.

    Raises:
        ValueError: the value is nested too deeply.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(
            "the network's arguments are nested too deeply; expected the published file, unchanged"
        )
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain_data(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(str(item) for item in value)
    return str(value)
