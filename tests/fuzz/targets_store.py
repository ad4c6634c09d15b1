"""Readers of a store that may be a stranger's: records, arrays, markers and tables.

Each target puts the mutated bytes in the place of one file of a sound store, and reads it as the commands do:
nothing is raised but a store's documented errors, and what is damaged reads as absent.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

import tasks.pipelines  # noqa: F401 - registers the pipelines
from portrait_core.errors import InputError, MissingChunk, StoreError
from portrait_core.pipeline import Job, find_pipeline
from portrait_core.pipeline.history import parse_cost
from portrait_core.pipeline.job import make_stage_keys
from portrait_core.pipeline.ledger import Ledger
from portrait_core.pipeline.state import (
    read_job,
    read_state,
    read_states,
    record_state,
    save_job,
    update_states,
)
from portrait_core.settings import load_settings
from portrait_core.store import Declared, Holder, Store, done_mask, read_holder, verify_unit
from portrait_core.store.contents import parse_contents
from portrait_core.store.failures import Failure, make_table
from tests.fuzz.harness import Target

_SETTINGS = load_settings("embedded")
_JSON = (
    b"null", b"true", b"[", b"]", b"{", b"}", b"[[[[[[[[", b'{"a":', b"1e999", b"-1", b"NaN", b"Infinity",
    b'"\\ud800"',
    b'"\\u0000"', b"9" * 400, b"0.1", b'""', b'"..\\/.."', b'"[/nope]"', b'"1/0"', b'"1e999999999"', b"\xff",
)  # fmt: skip
_ZARR = (
    b'"zstd"', b'"blosc"', b'"gzip"', b'"crc32c"', b'"bytes"', b'"sharding_indexed"', b'"transpose"',
    b'"uint8"',
    b'"float64"', b'"complex128"', b'"r8000000"', b'"fixed_length_utf32"', b'"object"', b"[]", b"0", *_JSON,
)  # fmt: skip


class _Digests(dict[str, str]):
    """A digest for any name."""

    def __missing__(self, name: str) -> str:
        return f"{abs(hash(name)):016x}" * 4


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="portrait-fuzz-store-")


@cache
def _store() -> Store:
    """Make a store with an unfinished job, and a unit with arrays of every form and all else."""
    store = Store(Path(_folder().name) / "store")
    store.check_format(write=True)
    save_job(_job(store))
    record_state(_job(store))
    unit = store.unit("video", "a" * 16)
    output = unit.output("fit", "00aa")
    output.describe({"stage": "fit"})
    for name, packed in (("plain", False), ("packed", True)):
        output.ensure_array(name, (4, 8, 8), "uint8")
        for frame in range(4):
            output.write(name, frame, np.full((1, 8, 8), frame, np.uint8))
        output.commit(range(4))
        if packed:
            output.pack(Declared(per_frame=(name,)))
    output.write_whole({"whole": np.arange(12.0).reshape(3, 4)})
    output.put_bytes("clip.mp4", b"content")
    output.write_note("cost", {"seconds": 1.0, "task_seconds": 2.0, "work": 3.0})
    unit.write_label("a clip")
    unit.record_failures([Failure("fit", 1, "input", "no face", key="00aa")])
    return store


@cache
def _sound() -> Path:
    _store()
    copy = Path(_folder().name) / "sound"
    shutil.copytree(Path(_folder().name) / "store", copy)
    return copy


def _job(store: Store) -> Job:
    pipeline, digests = find_pipeline("clip"), {"portrait": "ab" * 32, "video": "cd" * 32}
    weights = dict.fromkeys(("generator", "head", "landmarks", "detector", "iris", "mesh", "segmentation",
    "features", "perceptual", "identity", "attention"), "ef" * 32)  # fmt: skip
    used = _Digests(weights)
    return Job(
        store=store.url, label="a--b", portrait="/a.png", video="/b.mp4", frames=4, frame_rate="25",
        inputs=digests,
        stage_keys=make_stage_keys(pipeline, digests, 4, _SETTINGS, used), weights=dict(used),
        settings=_SETTINGS,
    )  # fmt: skip


def _root() -> Path:
    return Path(_folder().name) / "store"


def _one(pattern: str) -> Path:
    _sound()
    return sorted(_root().glob(pattern))[0]


def _seed(pattern: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [(_sound() / _one(pattern).relative_to(_root())).read_bytes()]


def _placed(
    pattern: str, read: Callable[[], object], wrap: Callable[[bytes], bytes] = bytes
) -> Callable[[bytes], object]:
    """Return a reader of bytes that puts them in a file's place, reads, and puts the sound file back."""

    def read_bytes(data: bytes) -> object:
        path = _one(pattern)
        path.write_bytes(wrap(data))
        try:
            return read()
        finally:
            shutil.copyfile(_sound() / path.relative_to(_root()), path)

    return read_bytes


def _unit() -> Any:
    return Store(_store().url).unit("video", "a" * 16)


def _status() -> object:
    store = Store(_store().url)
    states = read_states(store)
    read_state(store, states[0].id)
    return update_states(store, states, _SETTINGS)


def _job_again() -> object:
    store = Store(_store().url)
    job = read_job(store, store.record_names("jobs")[0], _SETTINGS)
    return None if job is None else [Ledger(job).frames_to_do(), _status()]


def _verify() -> object:
    return verify_unit(_unit(), {})


def _arrays() -> object:
    output = _unit().output("fit", "00aa")
    for name in ("plain", "packed", "whole"):
        try:
            output.array_info(name)
            output.read(name, 0, 1)
            output.read(name)
        except MissingChunk:
            pass
    return output.contents(), _verify()


def _holder() -> object:
    holder = read_holder(_unit())
    return None if holder is None else (str(holder), holder.age_s, holder.is_dead_here())


def _lease(data: bytes) -> object:
    path = _root() / "video" / ("a" * 16) / "lease.json"
    _store()
    path.write_bytes(data)
    try:
        return _holder(), _verify()
    finally:
        path.unlink()


def _leases() -> Sequence[bytes]:
    holder = Holder("ab" * 8, "host", 12, 345, "fit", 7, "2026-11-30T12:00:00.000+00:00")
    return (json.dumps(asdict(holder)).encode(),)


def _notes() -> object:
    output = _unit().output("fit", "00aa")
    return parse_cost(output.read_note("cost")), output.recipe(), _unit().read_label(), _verify()


def _failures() -> object:
    return len(_unit().failures()), _verify()


def _tables() -> Sequence[bytes]:
    rows = [Failure("fit", frame, "input", "no face" * frame, key="00aa") for frame in range(1, 9)]
    return (make_table(rows)[1], make_table([Failure("fit", None, "poison", "x")])[1])


def _names() -> Sequence[bytes]:
    return (
        b"done/00000000\ndone/00000001-00000009\nfiles/clip."
        + b"0" * 32
        + b".mp4\nnotes/cost.json\nfit/zarr.json\n"
        b"fit/c.0.0.0\nfit/c/0/0\nfit/c.12.0\nzarr.json\n",
    )


def _listed(data: bytes) -> object:
    names = data.decode("utf-8", "surrogateescape").split("\n")[:500]
    contents = parse_contents(dict.fromkeys((name[:255] for name in names), 1))
    return done_mask(contents, 10, Declared(per_frame=("fit",), files=("clip.mp4",), notes=("cost",)))


def _with_sum(data: bytes) -> bytes:
    return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _with_index_sum(data: bytes) -> bytes:
    """Mend the sum of the index of a packed array of four chunks, so that its numbers count."""
    index, rest = data[:64], data[68:]
    return _with_sum(index) + rest


def _inner(pattern: str) -> Callable[[], Sequence[bytes]]:
    return lambda: [data[:-4] for data in _seed(pattern)()]


_FIT = f"video/{'a' * 16}/fit.00aa"
_ERRORS = (InputError, StoreError)
_ZSTD = (b"\x28\xb5\x2f\xfd", b"\xe0", b"\xff" * 8, b"\x02\0\x40", b"\x03\0\x40\0", b"\0" * 64)
_MARKS = (
    b"done/00000000-99999999\n", b"done/999999999999\n", b"c.99999999999\n", b"c.\xd9\xa3\n",
    b"c/0/0/0/0\n", b"/../",
    b"\0", b".partial", b"fit/c.-1\n", b"//", b"done/00000000-00999999\n",
)  # fmt: skip

TARGETS = (
    Target("store-state", _seed("states/*.json"), _placed("states/*.json", _status), _ERRORS, _JSON,
    examples=40),
    Target("store-job", _seed("jobs/*.json"), _placed("jobs/*.json", _job_again), _ERRORS, _JSON,
    examples=25),
    Target("store-format", _seed("store.json"), _placed("store.json", _status), _ERRORS, _JSON, examples=40),
    Target("store-lease", _leases, _lease, _ERRORS, _JSON, examples=40),
    Target(
        "store-note", _seed(f"{_FIT}/notes/cost.json"), _placed(f"{_FIT}/notes/cost.json", _notes), _ERRORS,
        _JSON,
        examples=40,
    ),
    Target(
        "store-recipe", _seed(f"{_FIT}/zarr.json"), _placed(f"{_FIT}/zarr.json", _notes), _ERRORS, _JSON,
        examples=40
    ),
    *(
        Target(
            f"store-document-{name}", _seed(f"{_FIT}/{name}/zarr.json"), _placed(f"{_FIT}/{name}/zarr.json",
            _arrays),
            _ERRORS, _ZARR, examples=25,
        )
        for name in ("plain", "packed", "whole")
    ),
    Target(
        "store-chunk", _inner(f"{_FIT}/plain/c.0*"), _placed(f"{_FIT}/plain/c.0*", _arrays, _with_sum),
        _ERRORS, _ZSTD,
        examples=25,
    ),
    Target(
        "store-packed", _seed(f"{_FIT}/packed/c/0/0/0"),
        _placed(f"{_FIT}/packed/c/0/0/0", _arrays, _with_index_sum), _ERRORS, (*_ZSTD, b"\xff" * 16),
        examples=25,
    ),
    Target("store-failures", _tables, _placed(f"video/{'a' * 16}/failures/*", _failures), _ERRORS,
    (b"PAR1",), examples=25),
    Target("store-names", _names, _listed, _ERRORS, _MARKS, examples=100),
)  # fmt: skip
"""Targets of this module."""
