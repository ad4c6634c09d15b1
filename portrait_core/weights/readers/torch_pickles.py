"""The two formats of ``torch.save``: a zip archive of a pickle and its storages, or pickles before storages.

Only tensors, numpy's arrays and plain containers are made. A storage has as many values as the file holds for
it, and a tensor is a view of one, so that a file never takes much more memory than it has bytes.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import torch
from torch import Tensor

from portrait_core.weights.readers.archives import Archive
from portrait_core.weights.readers.array_pickle import ARRAY_NAMES, plain_set
from portrait_core.weights.readers.brief import brief
from portrait_core.weights.readers.pickled_arrays import (
    STORAGES,
    ArrayRecord,
    DTypeRecord,
    Storage,
    is_count,
    rebuild_parameter,
    rebuild_view,
)
from portrait_core.weights.readers.unpickler import DataUnpickler, Handlers, Names, plain_key

_MAGIC = 0x1950A86A20F9469CFC6C  # marks torch's format before its zip files
_FORMAT = 1001
_HEADER = 8  # bytes before a storage's values, which hold their number
_ZIP = b"PK\3\4"
_PICKLE = "data.pkl"
_KEY = re.compile(r"[\w.-]{1,64}")


def _empty(dtype: torch.dtype) -> Callable[[], Tensor]:
    """Return a constructor of tensors as torch 0.1 begins them; BUILD makes them views of storages."""
    return lambda: torch.empty(0, dtype=dtype)


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((plain_key(key), value) for key, value in items)


def _rebuild_first(storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
    """Return a tensor as torch before 0.4 describes it."""
    return rebuild_view(storage, offset, size, stride)


def _other_kind(*_: Any) -> Tensor:
    """Return an empty sparse tensor in place of a sparse or quantised one, which no network here has."""
    return torch.empty(0).to_sparse()


_QUANTISED = {"QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8, "QInt32Storage": torch.int32}
_SCHEMES = ("per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric")
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool")
_NAMES: Names = {
    **ARRAY_NAMES,
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "set"): plain_set,
    ("__builtin__", "set"): plain_set,
    ("torch", "Size"): tuple,
    ("torch", "device"): brief,
    ("torch._utils", "_rebuild_tensor"): _rebuild_first,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_view,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_sparse_tensor"): _other_kind,
    ("torch._utils", "_rebuild_qtensor"): _other_kind,
    ("torch.serialization", "_get_layout"): brief,
    **dict.fromkeys([("torch", name) for name in _SCHEMES]),
    **{("torch", name): dtype for name, dtype in (STORAGES | _QUANTISED).items()},
    **{("torch", name.replace("Storage", "Tensor")): _empty(dtype) for name, dtype in STORAGES.items()},
    **{("torch", name): getattr(torch, name) for name in _DTYPES},
}


def read_checkpoint(file: BinaryIO) -> Any:
    """Read the content of a file of ``torch.save`` from its beginning, on the CPU.

    Raises:
        ValueError: the archive is damaged, or not one of torch's.
        pickle.UnpicklingError: it is no checkpoint, or asks for what is not known as safe.
    """
    file.seek(0)
    start = file.read(len(_ZIP))
    file.seek(0)
    return _read_archive(file) if start == _ZIP else read_older(file)


def read_older(file: BinaryIO) -> Any:
    """Read torch's older format from the current position: five pickles, then the storages' values.

    Raises:
        pickle.UnpicklingError: it is anything else.
    """
    magic, version, system = (DataUnpickler(file, {}).load() for _ in range(3))
    if magic != _MAGIC or version != _FORMAT or not isinstance(system, dict):
        raise pickle.UnpicklingError("a tensor's storage is not in torch's older format")
    if not system.get("little_endian", True):
        raise pickle.UnpicklingError("a tensor's storage was written on a big-endian machine")
    reader = _OlderUnpickler(file)
    content = reader.load()
    reader.fill(DataUnpickler(file, {}).load())
    return content


def load_storage(data: Any) -> Storage:
    """Read one storage in torch's older format.

    Raises:
        pickle.UnpicklingError: it is anything else.
    """
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError(f"a tensor's storage is a {type(data).__name__}, expected bytes")
    storage = read_older(io.BytesIO(data))
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("expected one storage where a tensor keeps its values")
    return storage


def _read_archive(file: BinaryIO) -> Any:
    archive = Archive(file, compressed=False)
    found = [name for name in archive.members if name.partition("/")[2] == _PICKLE]
    if len(found) != 1:
        raise ValueError(f"the archive holds {len(found)} times {_PICKLE}, expected one checkpoint")
    folder = found[0].removesuffix(_PICKLE)
    order = f"{folder}byteorder"
    if order in archive.members and archive.read(order) != b"little":
        raise ValueError("the archive was written on a big-endian machine")
    return _ArchiveUnpickler(archive, folder).load()


class _TorchUnpickler(DataUnpickler, ABC):
    """Resolves the names above, and references to storages."""

    fillable: tuple[type, ...] = (ArrayRecord, DTypeRecord)
    counts_views = False  # nothing is copied before its shape has been compared with a network's

    def __init__(self, file: BinaryIO, size: int | None = None) -> None:
        super().__init__(file, _NAMES, encoding="utf-8", size=size)
        self._storages: dict[str, Storage] = {}

    @abstractmethod
    def new_storage(self, key: str, dtype: torch.dtype, count: int) -> Storage:
        """Return a storage that is referred to for the first time."""

    def _reference(self) -> None:
        """Replace ``('storage', type, key, device, count)`` by a storage on the CPU.

        The older format adds None, or the key, offset and length of a view, which torch 0.1 wrote.
        """
        reference = self.stack.pop()
        if not isinstance(reference, tuple) or not 5 <= len(reference) <= 6 or reference[0] != "storage":
            raise pickle.UnpicklingError("expected a reference to a storage")
        _, dtype, key, _, count, *view = reference
        if not isinstance(dtype, torch.dtype) or not is_count(count) or not isinstance(key, str):
            raise pickle.UnpicklingError("a reference to a storage has no type or no size")
        if key not in self._storages:
            self._storages[key] = self.new_storage(key, dtype, count)
        whole = self._storages[key]
        self.stack.append(whole if view in ([], [None]) else _view(whole, view[0]))

    def _build(self) -> None:
        if len(self.stack) > 1 and type(self.stack[-2]) is Tensor:
            view = self._call(rebuild_view, self.stack.pop())
            self.stack[-1].set_(view)
        else:
            super()._build()


def _view(whole: Storage, described: Any) -> Storage:
    """Return a part of a storage."""
    if not isinstance(described, tuple) or len(described) != 3 or not all(map(is_count, described[1:])):
        raise pickle.UnpicklingError("a part of a storage has no offset or no size")
    _, offset, count = described
    if whole.values is None or offset + count > whole.count:
        raise pickle.UnpicklingError(f"a part of a storage of {whole.count} values ends at {offset + count}")
    part = Storage(whole.dtype, count)
    part.values = whole.values[offset : offset + count]
    return part


_HANDLERS: Handlers = {
    **DataUnpickler.dispatch,
    pickle.BINPERSID[0]: _TorchUnpickler._reference,
    pickle.BUILD[0]: _TorchUnpickler._build,
}
_TorchUnpickler.dispatch = _HANDLERS


class _ArchiveUnpickler(_TorchUnpickler):
    """Reads the pickle in an archive, with the storages beside it."""

    def __init__(self, archive: Archive, folder: str) -> None:
        size = sum(info.file_size for info in archive.members.values())
        super().__init__(io.BytesIO(archive.read(f"{folder}{_PICKLE}")), size)
        self._archive, self._folder = archive, folder

    def new_storage(self, key: str, dtype: torch.dtype, count: int) -> Storage:
        """Read a storage from its member, which must have its size."""
        name = f"{self._folder}data/{key}" if _KEY.fullmatch(key) else ""
        held, needed = self._archive.members.get(name), count * dtype.itemsize
        if held is None or held.file_size != needed:
            has = "none" if held is None else str(held.file_size)
            raise pickle.UnpicklingError(f"a storage of {needed} bytes has {has}")
        raw = torch.empty(needed, dtype=torch.uint8)
        self._archive.read_into(name, raw.numpy())
        storage = Storage(dtype, count)
        storage.values = raw.view(dtype)
        return storage


class _OlderUnpickler(_TorchUnpickler):
    """Reads the pickle of the older format; the storages' values follow all pickles."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._file = file
        self._unclaimed = self._input.size

    def new_storage(self, key: str, dtype: torch.dtype, count: int) -> Storage:
        """Make room for a storage, as far as the file is long enough for all of them."""
        storage, needed = Storage(dtype, count), count * dtype.itemsize
        if needed > self._unclaimed:
            raise pickle.UnpicklingError(f"a storage of {needed} bytes has {self._unclaimed}")
        self._unclaimed -= needed
        storage.values = torch.empty(needed, dtype=torch.uint8).view(dtype)
        return storage

    def fill(self, keys: Any) -> None:
        """Read the values of all storages, which follow in the order of the keys.

        Raises:
            pickle.UnpicklingError: they are others than the pickle referred to, or have other sizes.
        """
        if not isinstance(keys, list) or sorted(map(brief, keys)) != sorted(map(brief, self._storages)):
            raise pickle.UnpicklingError("other storages follow than the tensors refer to")
        for key in keys:
            storage = self._storages[key]
            if int.from_bytes(self._file.read(_HEADER), "little", signed=True) != storage.count:
                raise pickle.UnpicklingError(
                    f"a storage of {storage.count} values states another number in its header"
                )
            assert storage.values is not None
            raw = storage.values.view(torch.uint8).numpy()
            left = self._file.seek(0, os.SEEK_CUR)
            if self._file.readinto(raw) != raw.nbytes:  # type: ignore[attr-defined]  # of all binary files
                left = self._file.seek(0, os.SEEK_END) - left
                raise pickle.UnpicklingError(f"a storage of {raw.nbytes} bytes has {left}")
