"""Finished stores, tampered with by hand."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

SECOND = "0123456789abcdef"
"""Name of the records that are added."""


def record(store: Path, kind: str) -> Path:
    """Return the path of the store's one record of a kind."""
    return max((store / kind).glob("*.json"), key=lambda path: 0 < path.stat().st_size < 1 << 20)


def change_record(store: Path, kind: str, change: Callable[[dict[str, Any]], None], name: str = "") -> Path:
    """Change a record, or with a name a copy of it; return its path."""
    path = record(store, kind)
    value = json.loads(path.read_text())
    change(value)
    target = path.with_name(f"{name}.json") if name else path
    target.write_text(json.dumps(value))
    return target


def add_job(
    store: Path, job: Callable[[dict[str, Any]], None], state: Callable[[dict[str, Any]], object]
) -> None:
    """Add a second job and its state."""
    change_record(store, "jobs", job, SECOND)

    def named(value: dict[str, Any]) -> None:
        value["id"] = SECOND
        state(value)

    change_record(store, "states", named, SECOND)


def unfinished(value: dict[str, Any]) -> None:
    """Make a state one that is looked up in the units."""
    value["state"] = "unfinished"


def stage(store: Path, name: str) -> Path:
    """Return the folder of a stage."""
    (path,) = store.glob(f"*/*/{name}.*")
    return path


def sparse(path: Path, size: int) -> Path:
    """Write a file that announces a size and takes no room."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)
    return path


def document(
    shape: list[int], kind: str, codecs: list[dict[str, Any]], chunk: list[int] | None = None
) -> str:
    """Return an array's document of any shape, type and codecs."""
    return json.dumps(
        {
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": kind,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk or [1, *shape[1:]]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0, "codecs": codecs, "attributes": {}, "storage_transformers": [],
        }
    )  # fmt: skip


BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
PLAIN: dict[str, Any] = {"name": "bytes"}
ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
CRC: dict[str, Any] = {"name": "crc32c"}


def crc32c(data: bytes) -> bytes:
    """Return the sum that zarr puts behind a chunk."""
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def zstd_of_zeros(size: int, announced: int | None = None) -> bytes:
    """Return a zstd frame of zeros, made of repeated blocks, that announces a size in its head."""
    announced = size if announced is None else announced
    head = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + announced.to_bytes(8, "little")  # one segment, 8 bytes
    block = 128 << 10
    blocks = []
    while size > 0:
        length = min(block, size)
        size -= length
        blocks.append(((length << 3) | (1 << 1) | (not size)).to_bytes(3, "little") + b"\0")
    return head + b"".join(blocks)


def zstd_of(data: bytes) -> bytes:
    """Wrap bytes as a zstd frame without compressing them."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + len(data).to_bytes(8, "little")
    step = 100_000
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    parts = [
        ((len(block) << 3) | (i == len(blocks) - 1)).to_bytes(3, "little") + block
        for i, block in enumerate(blocks)
    ]
    return head + b"".join(parts)


def failures(frames: list[int | None], stage_name: str, key: str, message: str = "no face") -> bytes:
    """Return a table of failures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(frames)
    columns = {
        "stage": pa.array([stage_name] * count), "frame": pa.array(frames, pa.int64()),
        "cls": pa.array(["input"] * count), "message": pa.array([message] * count),
        "attempt": pa.array([1] * count, pa.int64()), "host": pa.array(["h"] * count),
        "time_utc": pa.array([1_700_000_000_000_000] * count, pa.timestamp("us", "UTC")),
        "key": pa.array([key] * count),
    }  # fmt: skip
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target)
    return target.getvalue()


def failures_of_one(rows: int, stage_name: str, key: str, message: str) -> bytes:
    """Return a small table of so many equal failures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def same(text: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))

    whole = pa.array(np.ones(rows, np.int64))
    columns = {
        "stage": same(stage_name), "frame": whole, "cls": same("input"), "message": same(message),
        "attempt": whole, "host": same("h"), "time_utc": whole.cast(pa.timestamp("us", "UTC")),
        "key": same(key),
    }  # fmt: skip
    target = io.BytesIO()
    pq.write_table(pa.table(columns), target, compression="zstd")
    return target.getvalue()


def parquet_of_equal_cells(rows: int, cell: str, columns: tuple[str, ...] = ("portrait", "video")) -> bytes:
    """Return a small Parquet file of many rows with the same long text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = pa.array(np.zeros(rows, np.int32))
    cells = pa.DictionaryArray.from_arrays(index, pa.array([cell]))
    target = io.BytesIO()
    pq.write_table(pa.table(dict.fromkeys(columns, cells)), target, compression="zstd")
    return target.getvalue()
