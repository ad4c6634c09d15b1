"""Frames to zarr chunks and back.

zarr v3 defines the bytes (metadata, codecs, checksums); which objects exist is decided here. zarr itself
reads an absent chunk as the fill value and leaves out a chunk that equals it, so a frame that was never made
would be a black one. Chunks are therefore encoded and decoded in a dictionary of a few frames, and moved by
:class:`~portrait_core.store.files.Files`: what is not in the dictionary is missing. Plain zarr opens the
result like any other array.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.buffer import cpu
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigParams
from zarr.storage import MemoryStore

ZSTD_LEVEL = 1
_DOCUMENT = "zarr.json"
_CONFIG: ArrayConfigParams = {"write_empty_chunks": True}


@dataclass(frozen=True)
class ArrayInfo:
    """Shape (frames first) and type of a stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def create(shape: Sequence[int], dtype: DTypeLike, keys: Sequence[str]) -> bytes:
    """Make the zarr metadata document of an array ``[T, ...]`` with one chunk a frame.

    Images (uint8, at least ``[T, H, W]``) are compressed; everything carries a CRC32C.
    """
    is_image = np.dtype(dtype) == np.uint8 and len(shape) >= 3
    codecs: list[BytesBytesCodec] = [ZstdCodec(level=ZSTD_LEVEL)] if is_image else []
    objects: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(objects),
        shape=tuple(shape),
        chunks=(1, *shape[1:]),
        dtype=np.dtype(dtype),
        compressors=[*codecs, Crc32cCodec()],
        # One flat folder of chunks: nested ones would cost a folder for every axis of every frame.
        chunk_key_encoding={"name": "default", "separator": "."},
        fill_value=0,
        attributes={"keys": list(keys)},
    )
    return bytes(objects[_DOCUMENT].to_bytes())


def info(document: bytes) -> ArrayInfo:
    """Shape and type from a metadata document."""
    described = json.loads(document)
    return ArrayInfo(tuple(described["shape"]), np.dtype(described["data_type"]))


@lru_cache(maxsize=256)
def is_readable(document: bytes) -> bool:
    """Tell whether a metadata document is whole, so that chunks can be read by it."""
    try:
        info(document)
        _open(document, {})
    except Exception:  # like the codecs, zarr raises whatever the broken document provokes
        return False
    return True


def keys(document: bytes) -> list[str]:
    """Keys of the stages that wrote into the array, oldest first."""
    return list(json.loads(document)["attributes"].get("keys", []))


def with_keys(document: bytes, keys: Sequence[str]) -> bytes:
    """The same array with other keys."""
    return json.dumps({**json.loads(document), "attributes": {"keys": list(keys)}}, indent=2).encode()


def chunk_name(array: ArrayInfo, frame: int) -> str:
    """Name of a frame's chunk inside the array's folder."""
    return ".".join(["c", str(frame), *("0" for _ in array.shape[1:])])


def frame_of(chunk: str) -> int | None:
    """Frame of a chunk's name, or None when it is no chunk."""
    parts = chunk.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[0] == "c" and parts[1].isdecimal() else None


def encode(document: bytes, start: int, values: NDArray[Any]) -> dict[str, bytes]:
    """Encode frames ``[start, start + n)``; give chunk names and bytes."""
    objects: dict[str, Any] = {}
    _open(document, objects)[start : start + len(values)] = values
    return {name: bytes(value.to_bytes()) for name, value in objects.items() if name != _DOCUMENT}


def decode(
    document: bytes, start: int, stop: int, chunks: Mapping[str, bytes]
) -> tuple[NDArray[Any], list[int]]:
    """Decode frames ``[start, stop)``.

    Returns:
        The frames, and which of them are absent or fail their checksum (their pixels mean nothing).
    """
    array = info(document)
    names = {chunk_name(array, frame): frame for frame in range(start, stop)}
    missing = [frame for name, frame in names.items() if name not in chunks]
    objects = {name: cpu.Buffer.from_bytes(value) for name, value in chunks.items()}
    opened = _open(document, objects)
    try:
        return np.asarray(opened[start:stop]), missing
    except Exception:  # zarr's codecs raise whatever the broken bytes provoke; find out which frame it is
        return _decode_singly(opened, start, stop, missing)


def _decode_singly(
    opened: zarr.Array[Any], start: int, stop: int, missing: Sequence[int]
) -> tuple[NDArray[Any], list[int]]:
    values = np.zeros((stop - start, *opened.shape[1:]), dtype=opened.dtype)
    bad = set(missing)
    for frame in range(start, stop):
        try:
            values[frame - start] = opened[frame]
        except Exception:
            bad.add(frame)
    return values, sorted(bad)


def _open(document: bytes, objects: dict[str, Any]) -> zarr.Array[Any]:
    objects[_DOCUMENT] = cpu.Buffer.from_bytes(document)
    return zarr.open_array(MemoryStore(objects), mode="r+", zarr_format=3).with_config(_CONFIG)
