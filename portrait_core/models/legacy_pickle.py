"""Read published network files (pickles) without running anything they contain.

A pickle can name any function for its reader to call. This reader resolves a short list of names, all to
inert stand-ins or plain constructors of arrays, and refuses everything else. The program text that network
files of the StyleGAN family carry is never looked at.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class ModuleRecord:
    """What a pickled ``torch.nn.Module`` held, as plain data."""

    class_name = ""
    """Name of its class, without the module."""
    state: dict[str, Any]
    """Its attributes."""

    def __new__(cls, *_: Any, **__: Any) -> ModuleRecord:
        record = super().__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = dict(state)

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments that it was constructed with (empty if not recorded)."""
        return dict(self.state.get("_init_kwargs", {}))

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and buffers by their full names, in float32 where they are half precision."""
        found: dict[str, Tensor] = {}
        for group in ("_parameters", "_buffers"):
            for name, value in self.state.get(group, {}).items():
                if isinstance(value, Tensor):
                    found[prefix + name] = value.float() if value.is_floating_point() else value
        for name, module in self.state.get("_modules", {}).items():
            if isinstance(module, ModuleRecord):
                found.update(module.state_dict(f"{prefix}{name}."))
        return found


class _EasyDict(dict[str, Any]):
    """Stand-in for a dictionary with attribute access."""


def _load_storage(data: bytes) -> Any:
    # the original runs a full unpickler on these bytes; this one resolves tensors only
    return torch.load(io.BytesIO(data), weights_only=True)


def _parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    return data


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.empty((0,), dtype=storage.dtype).set_(
        storage._untyped_storage, offset, torch.Size(size), stride
    )


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    if dtype.hasobject:
        raise pickle.UnpicklingError(f"numpy scalars of {dtype} are not read")
    return np.frombuffer(data, dtype=dtype, count=1)[0]


def _persistent(meta: Mapping[str, Any]) -> ModuleRecord:
    record = _stand_in(str(meta.get("class_name", "")))()
    record.__setstate__(meta.get("state", {}))
    return record


def _stand_in(class_name: str) -> type[ModuleRecord]:
    return type(class_name, (ModuleRecord,), {"class_name": class_name})


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _load_storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
}
_MODULE_PREFIXES = ("torch.nn.modules.", "training.")


class LegacyUnpickler(pickle.Unpickler):
    """An unpickler that resolves the names above, those of ``extra``, and nothing else."""

    def __init__(
        self,
        file: Any,
        *,
        extra: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
        encoding: str = "ASCII",
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._allowed = {**_ALLOWED, **(extra or {})}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed:
            return self._allowed[module, name]
        if module.startswith(_MODULE_PREFIXES) and name.isidentifier():
            return _stand_in(name)
        raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which is not a name known as safe")


def read_legacy_pickle(
    path: str | Path,
    *,
    extra: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
    encoding: str = "ASCII",
) -> Any:
    """Read a pickle of arrays, tensors and plain containers.

    Args:
        extra: further names to resolve, each to an inert constructor.
        encoding: of Python 2 strings; ``latin1`` where they carry array bytes.

    Raises:
        ValueError: if it is no pickle, or asks for a name that is not allowed.
    """
    try:
        with open(path, "rb") as file:
            return LegacyUnpickler(file, extra=extra, encoding=encoding).load()
    except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, KeyError, IndexError) as error:
        raise ValueError(
            f"cannot read {path} safely: {error}; expected the published network file, unchanged"
        ) from error


def read_network(path: str | Path, name: str = "G_ema") -> ModuleRecord:
    """Read one network of a StyleGAN-family file; ``G_ema`` is the one to generate with.

    Raises:
        ValueError: if the file cannot be read safely, or holds no network of that name.
    """
    content = read_legacy_pickle(path)
    record = content.get(name) if isinstance(content, dict) else None
    if not isinstance(record, ModuleRecord):
        held = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path} holds no network {name!r}; it holds {held}")
    return record
