"""Frames to zarr chunks and back.

zarr v3 defines the bytes (metadata, codecs, checksums); this module decides which objects exist. zarr itself
reads an absent chunk as the fill value and omits a chunk that equals it, so that a frame that was never made
would be a black one. Chunks are therefore encoded and decoded in a dictionary of a few frames, and moved by
:class:`~portrait_core.store.files.Files`: a chunk that is not in the dictionary is missing. Plain zarr opens
the result like any other array.

An array has one of three forms. While a clip is at work, an array of frames has one object per frame; an
array that is written at once has a single object. When a clip is finished, the objects of an array of frames
are concatenated into one object, which zarr calls a shard, without decoding them.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.abc.codec import BytesBytesCodec
from zarr.buffer import cpu
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigParams
from zarr.storage import MemoryStore

from portrait_core.settings.limits import over_limit, refuse_beyond
from portrait_core.store.documents import parse_json

RANGE = 16
"""Number of frames that are read together when all frames of an array are read."""
_TOGETHER_BYTES = 1 << 28
"""Bytes of decoded chunks that are read together at most, unless one has more."""
ZSTD_LEVEL = 1
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_DOCUMENT = "zarr.json"
_CONFIG: ArrayConfigParams = {"write_empty_chunks": True}
_FLAT = {"name": "default", "configuration": {"separator": "."}}
"""Chunk names of an array that is not packed. One flat folder: nested ones would cost a folder for every axis
of every frame."""
_NESTED = {"name": "default", "configuration": {"separator": "/"}}
"""Chunk names of a packed array. They differ from :data:`_FLAT`'s, so that both forms can lie side by side
while one replaces the other."""
_SHARDING = "sharding_indexed"
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_ABSENT = 2**64 - 1
"""Offset and length that zarr's specification gives to a chunk that a shard does not contain."""
_CODECS = (["bytes", "crc32c"], ["bytes", "zstd", "crc32c"])
"""Codecs that :func:`create_document` uses, in their order; a document with others is not this program's."""
_TYPES = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
"""Types of arrays in documents."""
_MAX_AXES = 8
DOCUMENT_BYTES = 1 << 16
"""Bound for the document of a stranger: its bytes, of which this program's have less than a thousand."""
MAX_CHUNKS = 1 << 22
"""Bound for the document of a stranger: chunks of an array (as frames, 38 hours at 30 per second)."""


@dataclass(frozen=True)
class ArrayInfo:
    """Shape and type of a stored array."""

    shape: tuple[int, ...]
    """Shape of the array; the first axis of an array of frames is its frames."""
    dtype: np.dtype[Any]
    rows: int
    """Number of entries of the first axis in one chunk: 1 in an array of frames."""
    packed: bool = False
    """True if all chunks lie in one object."""

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.shape[0] // self.rows)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return self.rows * math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def stored_chunk_bytes(self) -> int:
        """Bytes that an encoded chunk may have at most: zstd's most, and the checksum."""
        return self.chunk_bytes + self.chunk_bytes // 128 + 1024

    @property
    def chunks_together(self) -> int:
        """Number of chunks that are read together where all are: those of 16 frames, of large ones fewer."""
        return max(1, min(RANGE, _TOGETHER_BYTES // max(1, self.chunk_bytes)))


def create_document(shape: Sequence[int], dtype: DTypeLike, whole: bool = False) -> bytes:
    """Create the zarr metadata document of an array ``[T, ...]`` with one chunk per frame.

    Images (uint8, at least ``[T, H, W]``) are compressed; every chunk carries a CRC32C.

    Args:
        shape: shape of the array.
        dtype: numpy type of the array.
        whole: make the array one chunk.
    """
    is_image = np.dtype(dtype) == np.uint8 and len(shape) >= 3
    codecs: list[BytesBytesCodec] = [ZstdCodec(level=ZSTD_LEVEL)] if is_image else []
    objects: dict[str, Any] = {}
    zarr.create_array(
        MemoryStore(objects),
        shape=tuple(shape),
        chunks=tuple(shape) if whole else (1, *shape[1:]),
        dtype=np.dtype(dtype),
        compressors=[*codecs, Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        fill_value=0,
    )
    return bytes(objects[_DOCUMENT].to_bytes())


def read_info(document: bytes) -> ArrayInfo:
    """Read shape, type and form from a metadata document."""
    described = json.loads(document)
    grid = described["chunk_grid"]["configuration"]["chunk_shape"]
    first = described["codecs"][0]
    packed = first["name"] == _SHARDING
    rows = first["configuration"]["chunk_shape"][0] if packed else grid[0]
    return ArrayInfo(tuple(described["shape"]), np.dtype(described["data_type"]), int(rows), packed)


def problem_of(document: bytes) -> str:
    """Return why chunks cannot be read by a metadata document, in words that follow its name, else nothing.

    A document with codecs or sizes that this program never writes counts as damaged: a store may be a
    stranger's. So does one whose chunks exceed ``limits.chunk_bytes``, which the words then say.
    """
    array = _checked_info(document) if len(document) <= DOCUMENT_BYTES else None
    return "is damaged" if array is None else over_limit("chunk_bytes", array.chunk_bytes)


@lru_cache(maxsize=256)
def _checked_info(document: bytes) -> ArrayInfo | None:
    """Read shape, type and form from a document that this program may have written; None for others."""
    try:
        described: Any = parse_json(document, DOCUMENT_BYTES)
        if not (_are_sides(described["shape"]) and _TYPES.fullmatch(described["data_type"])):
            return None
        array, plain = read_info(document), json.loads(plain_document(document))
        form = described["chunk_grid"]["configuration"]["chunk_shape"], plain["chunk_key_encoding"]
        chunk = [array.rows, *array.shape[1:]]
        if (
            [codec["name"] for codec in plain["codecs"]] not in _CODECS
            or form != (list(array.shape) if array.packed else chunk, _FLAT)
            or plain["chunk_grid"]["configuration"]["chunk_shape"] != chunk
            or array.rows not in (1, array.shape[0])
            or array.chunks > MAX_CHUNKS
        ):
            return None
        _open(document, {})
    except Exception:  # zarr and its codecs raise many kinds of errors for a broken document
        return None
    return array


def _are_sides(shape: Any) -> bool:
    """Tell whether a document's shape is one: whole numbers that are no truth values, each at least 1."""
    return (
        isinstance(shape, list)
        and 0 < len(shape) <= _MAX_AXES
        and all(type(side) is int and side > 0 for side in shape)
    )


def chunk_name(array: ArrayInfo, chunk: int) -> str:
    """Return the name of a chunk's object in the folder of an array that is not packed."""
    return ".".join(["c", str(chunk), *("0" for _ in array.shape[1:])])


def chunk_number(name: str) -> int | None:
    """Return the number of a chunk from its object's name; None for another object."""
    parts = name.split(".")
    return int(parts[1]) if len(parts) > 1 and parts[0] == "c" and parts[1].isdecimal() else None


def encode(document: bytes, start: int, values: NDArray[Any]) -> dict[str, bytes]:
    """Encode frames ``[start, start + n)``; return the bytes of chunks by name."""
    objects: dict[str, Any] = {}
    _open(document, objects)[start : start + len(values)] = values
    return {name: bytes(value.to_bytes()) for name, value in objects.items() if name != _DOCUMENT}


def decode(
    document: bytes, start: int, stop: int, chunks: Mapping[str, bytes]
) -> tuple[NDArray[Any] | None, Sequence[int]]:
    """Decode frames ``[start, stop)`` of an array that is not packed.

    Returns:
        The frames, and the numbers of those that are absent or fail their checksum, as a range for an array
        that is one chunk. Where there are such, None in place of the frames: a stranger's document cannot
        take memory for what is not there.

    Raises:
        InputError: so many frames of so few bytes are asked for together that they exceed
            ``limits.chunk_bytes``.
    """
    array = read_info(document)
    compressed = any(codec["name"] == "zstd" for codec in json.loads(document)["codecs"])
    numbers = range(start // array.rows, -(-stop // array.rows))
    if compressed and len(numbers) > 1:
        refuse_beyond("chunk_bytes", len(numbers) * array.chunk_bytes, f"a range of {len(numbers)} frames")
    sound = {
        number: chunk
        for name, chunk in chunks.items()
        if (number := chunk_number(name)) is not None
        and number in numbers
        and (not compressed or _decompressed_bytes(chunk) == array.chunk_bytes)
    }
    objects = {chunk_name(array, number): cpu.Buffer.from_bytes(value) for number, value in sound.items()}
    opened = _open(document, objects)
    if len(sound) == len(numbers):
        # zarr's codecs raise many kinds of errors for broken bytes; then the chunks are decoded singly.
        with contextlib.suppress(Exception):
            return np.asarray(opened[start:stop]), []
    if array.rows > 1:
        return None, range(start, stop)
    missing = set(numbers)
    for number in sound:
        with contextlib.suppress(Exception):
            _ = opened[number : number + 1]
            missing.remove(number)
    return None, sorted(missing)


def _decompressed_bytes(chunk: bytes) -> int | None:
    """Return the length of the content that the head of a zstd frame states; None when it states none.

    The codec would allocate as much memory as the frame asks for, or go on until the frame ends.
    """
    if chunk[:4] != _ZSTD_MAGIC or len(chunk) < 6:
        return None
    flags = chunk[4]
    single = flags & 32
    begin = 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    length = (1 if single else 0, 2, 4, 8)[flags >> 6]
    if not length:
        return None
    return int.from_bytes(chunk[begin : begin + length], "little") + (256 if length == 2 else 0)


def _open(document: bytes, objects: dict[str, Any]) -> zarr.Array[Any]:
    objects[_DOCUMENT] = cpu.Buffer.from_bytes(document)
    return zarr.open_array(MemoryStore(objects), mode="r+", zarr_format=3).with_config(_CONFIG)


# Packed arrays


def packed_name(array: ArrayInfo) -> str:
    """Return the name of a packed array's one object in the array's folder."""
    return "/".join(["c", *("0" for _ in array.shape)])


def packed_document(document: bytes) -> bytes:
    """Return the metadata document of an array of frames in its packed form."""
    plain = json.loads(document)
    sharding = {
        "chunk_shape": plain["chunk_grid"]["configuration"]["chunk_shape"],
        "codecs": plain["codecs"],
        "index_codecs": _INDEX_CODECS,
        "index_location": "start",
    }
    packed = {
        **plain,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": plain["shape"]}},
        "codecs": [{"name": _SHARDING, "configuration": sharding}],
        "chunk_key_encoding": _NESTED,
    }
    return json.dumps(packed, indent=2).encode()


def plain_document(document: bytes) -> bytes:
    """Return a packed array's document as it was before :func:`packed_document`; others unchanged."""
    packed = json.loads(document)
    if packed["codecs"][0]["name"] != _SHARDING:
        return document
    sharding = packed["codecs"][0]["configuration"]
    plain = {
        **packed,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": sharding["chunk_shape"]}},
        "codecs": sharding["codecs"],
        "chunk_key_encoding": _FLAT,
    }
    return json.dumps(plain, indent=2).encode()


def pack(chunks: Mapping[int, bytes], count: int) -> bytes:
    """Concatenate chunks by number into one object of ``count`` chunks: zarr's shard, its index first."""
    offset = index_bytes(count)
    index = np.full((count, 2), _ABSENT, "<u8")
    for number, chunk in sorted(chunks.items()):
        index[number] = offset, len(chunk)
        offset += len(chunk)
    listed = index.tobytes()
    return b"".join([listed, _crc32c(listed), *(chunks[number] for number in sorted(chunks))])


def index_bytes(count: int) -> int:
    """Return the length in bytes of the index at the beginning of a packed array of ``count`` chunks."""
    return 16 * count + 4


def read_index(head: bytes, array: ArrayInfo, numbers: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Read where chunks begin and end in the object of a packed array.

    Chunks that the object does not contain are left out.

    Args:
        head: beginning of the object, at least :func:`index_bytes` of it.
        array: shape and type of the array.
        numbers: numbers of the requested chunks.

    Returns:
        Begin and end in bytes, by the chunk's number.

    Raises:
        ValueError: the index is cut off, fails its checksum, or was not made by :func:`pack`.
    """
    length = index_bytes(array.chunks)
    if len(head) < length or _crc32c(head[: length - 4]) != head[length - 4 : length]:
        raise ValueError("the index of a packed array is damaged")
    index = np.frombuffer(head[: length - 4], "<u8").reshape(array.chunks, 2)
    begins, sizes = index[index[:, 0] != _ABSENT].T
    max_bytes = array.stored_chunk_bytes
    ends = length + np.cumsum(np.minimum(sizes, max_bytes))
    if (sizes > max_bytes).any() or not np.array_equal(begins, ends - sizes):
        raise ValueError("the chunks in the index of a packed array do not follow each other")
    return {
        number: (int(index[number, 0]), int(index[number].sum()))
        for number in numbers
        if index[number, 0] != _ABSENT
    }


def _crc32c(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")
