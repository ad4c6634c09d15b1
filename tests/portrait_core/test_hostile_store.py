"""Records, arrays, files and tables of a store with which a stranger wants to take memory or time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from portrait_core.errors import InputError, MissingChunk, StoreError
from portrait_core.runtime.whole_files import partial_file, write_whole
from portrait_core.settings.limits import Limits, use_limits
from portrait_core.store import Declared, Failure, Output, Store, Unit, arrays, read_holder, verify_unit
from portrait_core.store.documents import parse_json
from portrait_core.store.files import Files
from portrait_core.store.parquet import read_parquet_bounded

KEY = "00aa"
MIB = 1 << 20


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(f"{request.param}://{tmp_path}/s")


@pytest.fixture
def limits() -> Any:
    yield lambda **fields: use_limits(Limits(**fields))
    use_limits(Limits())


def _put(store: Store, name: str, value: bytes) -> None:
    store._files.put({name: value})


def _filled(store: Store) -> tuple[Unit, Output]:
    """A unit with three frames of an image and of numbers, marked as done."""
    unit = store.unit("video", "a")
    output = unit.output("track", KEY)
    output.ensure_array("picture", (3, 8, 8, 3), "uint8")
    output.ensure_array("latents", (3, 4), "float32")
    output.write("picture", 0, np.full((3, 8, 8, 3), 7, np.uint8))
    output.write("latents", 0, np.ones((3, 4), np.float32))
    output.commit(range(3))
    return unit, output


def _peak_bytes(code: str, *arguments: object) -> int:
    """Memory that a few lines take in a process of their own, beyond what their imports take."""
    begin = "import resource, sys\ndef peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    parts = code.split("---")
    whole = begin + parts[0] + "\nbefore = peak()\n" + parts[1] + "\nprint(1024 * (peak() - before))"
    ended = subprocess.run(
        [sys.executable, "-c", whole, *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return int(ended.stdout.split()[-1])


# JSON

DAMAGED = {
    "nested": b"[" * 100_000,
    "nested and whole": b"[" * 200 + b"]" * 200,
    "nested objects": b'{"a":' * 300 + b"1" + b"}" * 300,
    "a million digits": b"1" * 1_000_000,
    "a huge exponent": b"[1e999999]",
    "NaN": b'{"a": NaN}',
    "Infinity": b"[-Infinity]",
    "a name twice": b'{"a": 1, "a": 2}',
    "half a character": rb'"\ud800"',
    "bytes of half a character": b'"\xed\xa0\x80"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "many values": b"[" + b"[]," * 3_000_000 + b"[]]",
    "nothing": b"",
}


@pytest.mark.parametrize("damaged", DAMAGED)
def test_json_of_no_record_reads_as_absent(damaged: str) -> None:
    assert parse_json(DAMAGED[damaged]) is None


def test_json_of_records_is_read() -> None:
    record = {"label": "Zoë 😀", "pairs": [[1, 2.5], [None, True]], "deep": {"a": {"b": {"c": {}}}}}
    assert parse_json(json.dumps(record).encode()) == record
    assert parse_json(json.dumps(record, ensure_ascii=False).encode()) == record


def test_a_record_larger_than_the_limit_is_absent_and_no_more_of_it_is_read(
    any_store: Store, limits: Callable[..., None]
) -> None:
    limits(record_bytes=1000)
    _put(any_store, "states/large.json", b'"' + b"x" * 5000 + b'"')
    _put(any_store, "states/small.json", b"1")
    assert any_store.read_records("states") == {"small": 1}
    assert any_store.read_record("states", "large") is None
    assert len(any_store._files.get_one("states/large.json") or b"") == 1001
    unit, output = _filled(any_store)
    _put(any_store, f"{output.path}/notes/info.json", b'"' + b"x" * 5000 + b'"')
    report = verify_unit(unit, {})
    said = {finding.where: finding.message for finding in report.findings}
    assert "more than the 1,000 bytes that limits.record_bytes allows" in said[f"track.{KEY}/notes/info.json"]


@pytest.mark.slow
@pytest.mark.each_change
def test_many_large_records_are_read_without_holding_them_all(tmp_path: Path) -> None:
    for kind, text in (("states", b"\0"), ("jobs", b'"' + b"x" * 3_000_000 + b'"')):
        (tmp_path / kind).mkdir(parents=True)
        (tmp_path / kind / "0.json").write_bytes(text)
        if kind == "states":
            os.truncate(tmp_path / kind / "0.json", 60_000_000)
        for number in range(1, 150):
            os.link(tmp_path / kind / "0.json", tmp_path / kind / f"{number}.json")
    code = (
        "from concurrent.futures import ThreadPoolExecutor\nfrom portrait_core.store import Store\n---\n"
        "store = Store(sys.argv[1])\n"
        "assert not list(store.each_record('states', store.record_names('states')))\n"
        "assert sum(1 for _ in store.each_record('jobs', store.record_names('jobs'))) == 150\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    assert not any(pool.map(lambda one: store.read_record('states', str(one)), range(150)))"
    )
    assert _peak_bytes(code, tmp_path) < 100 * MIB


@pytest.mark.slow
@pytest.mark.each_change
def test_notes_that_are_large_are_parsed_one_after_another(tmp_path: Path) -> None:
    _, output = _filled(Store(tmp_path))
    folder = tmp_path / output.path / "notes"
    folder.mkdir(exist_ok=True)
    (folder / "0.json").write_bytes(b'"' + b"x" * 30_000_000 + b'"')
    for number in range(1, 40):
        os.link(folder / "0.json", folder / f"{number}.json")
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from portrait_core.store import Store, verify_unit\n---\n"
        "unit = Store(sys.argv[1]).unit('video', 'a')\noutput = unit.output('track', '00aa')\n"
        "assert verify_unit(unit, {}).findings == []\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    said = pool.map(lambda number: len(output.read_note(str(number))), range(40))\n"
        "    assert set(said) == {30_000_000}"
    )
    assert _peak_bytes(code, tmp_path) < 400 * MIB


def test_an_array_of_rows_that_are_not_there_takes_no_memory_for_them(tmp_path: Path) -> None:
    rows = (1 << 30) - 8
    _, output = _filled(Store(tmp_path))
    folder = tmp_path / output.path / "more"
    folder.mkdir()
    (folder / "zarr.json").write_bytes(arrays.create_document((rows,), "uint8", whole=True))
    (folder / "c.0").write_bytes(b"xxxxx")
    code = (
        "from portrait_core.errors import MissingChunk\n"
        "from portrait_core.store import Store, verify_unit\n---\n"
        "unit = Store(sys.argv[1]).unit('video', 'a')\n"
        "assert [f.where for f in verify_unit(unit, {}).findings] == ['track.00aa/more']\n"
        "try:\n    unit.output('track', '00aa').read('more')\n"
        "except MissingChunk as error:\n    assert len(error.frames) == 2**30 - 8\n"
        "else:\n    raise AssertionError('read')"
    )
    assert _peak_bytes(code, tmp_path) < 200 * MIB


# Arrays

DOCUMENTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a trillion frames": lambda d: d.update(shape=[10**12, 8, 8, 3]),
    "a negative side": lambda d: d.update(shape=[3, -8, 8, 3]),
    "a fraction": lambda d: d.update(shape=[3.0, 8, 8, 3]),
    "truth values": lambda d: d.update(shape=[True, 8, 8, 3]),
    "no sides": lambda d: d.update(shape=[]),
    "a thousand codecs": lambda d: d.update(codecs=d["codecs"] * 1000),
    "chunks of two frames": lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[2, 8, 8, 3]),
    "a type of objects": lambda d: d.update(data_type="object"),
    "a type of a gigabyte": lambda d: d.update(data_type="S1000000000"),
    "compressed twice": lambda d: d["codecs"].insert(1, d["codecs"][1]),
    "codecs in another order": lambda d: d["codecs"].append(d["codecs"].pop(1)),
    "another codec": lambda d: d["codecs"].insert(1, {"name": "gzip", "configuration": {"level": 5}}),
    "codecs that are text": lambda d: d.update(codecs="zstd"),
    "a grid that is a list": lambda d: d.update(chunk_grid=[]),
}


@pytest.mark.parametrize("change", DOCUMENTS)
def test_an_array_that_this_program_does_not_write_is_missing(any_store: Store, change: str) -> None:
    unit, output = _filled(any_store)
    path = f"{output.path}/picture/zarr.json"
    document = json.loads(any_store._files.get_one(path) or b"")
    DOCUMENTS[change](document)
    _put(any_store, path, json.dumps(document).encode())
    with pytest.raises(MissingChunk):
        unit.output("track", KEY).read("picture")
    report = verify_unit(unit, {("track", KEY): Declared(("picture", "latents"))})
    assert [(f.where, f.kind) for f in report.damaged] == [(f"track.{KEY}/picture", "corrupt")]


def _many_frames(store: Store, frames: int) -> Output:
    """An array whose document speaks of many frames, three of which are there."""
    _, output = _filled(store)
    path = f"{output.path}/latents/zarr.json"
    document = json.loads(store._files.get_one(path) or b"")
    document["shape"][0] = frames
    _put(store, path, json.dumps(document).encode())
    return store.unit("video", "a").output("track", KEY)


def test_frames_are_counted_from_what_is_stored(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    output = _many_frames(any_store, 300_000)
    asked = 0
    get = Files.get

    def counted(self: Files, names: Any, most: int | None = None) -> dict[str, bytes]:
        nonlocal asked
        names = list(names)
        asked += len(names)
        return get(self, names, most)

    monkeypatch.setattr(Files, "get", counted)
    with pytest.raises(MissingChunk):
        output.read("latents")
    assert output.read("latents", 0, 3).all()
    output.digest(["latents"])
    output.pack(Declared(("latents",)))
    output.unpack("latents")
    assert asked < 200
    assert output.read("latents", 0, 3).all()


def test_the_limit_of_a_chunk_is_named(any_store: Store, limits: Callable[..., None]) -> None:
    unit, output = _filled(any_store)
    limits(chunk_bytes=100)
    with pytest.raises(MissingChunk):
        unit.output("track", KEY).read("picture")
    (found,) = verify_unit(unit, {}).damaged
    assert "holds 192 bytes, more than the 100 that limits.chunk_bytes allows" in found.message
    limits(chunk_bytes=500)
    assert output.read("picture", 0, 1).all()
    with pytest.raises(InputError, match="a range of 3 frames holds 576 bytes, more than the 500"):
        unit.output("track", KEY).read("picture")


def _chunk(content: bytes) -> bytes:
    return content + struct.pack("<I", google_crc32c.value(content))


def _zeros_frame(size: int, said: int | None) -> bytes:
    """A zstd frame of zeros, 4 bytes for every 128 KiB, that states a size, or none."""
    blocks, left = [], size
    while left > 0:
        count = min(left, 1 << 17)
        left -= count
        blocks.append(struct.pack("<I", count << 3 | 1 << 1 | (left == 0))[:3] + b"\0")
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x88" if said is None else b"\xe0" + struct.pack("<Q", said))
    return head + b"".join(blocks)


def test_what_decodes_to_gigabytes_or_is_all_holes_takes_no_memory(tmp_path: Path) -> None:
    assert numcodecs.Zstd().decode(_zeros_frame(1 << 18, 1 << 18)) == bytes(1 << 18)
    _, output = _filled(Store(tmp_path))
    for frame, said in enumerate((3 << 30, 192, None)):  # the true size, the expected one, none
        bomb = _chunk(_zeros_frame(3 << 30, said))
        assert len(bomb) < 100_000
        (tmp_path / output.path / "picture" / f"c.{frame}.0.0.0").write_bytes(bomb)
    output.put_bytes("clip.mp4", b"clip")
    for path, size in {
        tmp_path / "jobs" / "holes.json": 1 << 40,
        tmp_path / output.path / "files" / f"sheet.{'0' * 32}.png": 1 << 28,
        tmp_path / output.path / "latents" / "c.1.0": 1 << 40,
    }.items():
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
    code = (
        "from portrait_core.store import Declared, Store, verify_unit\n---\n"
        "store = Store(sys.argv[1])\nunit = store.unit('video', 'a')\noutput = unit.output('track', '00aa')\n"
        "report = verify_unit(unit, {('track', '00aa'): Declared(('picture', 'latents'))})\n"
        "assert [f.frames for f in report.damaged] == [(1,), (0, 1, 2), ()], report\n"
        "assert store.read_records('jobs') == {}\n"
        "assert output.get_bytes('sheet.png') is None and output.get_bytes('clip.mp4') == b'clip'"
    )
    assert _peak_bytes(code, tmp_path) < 300 * MIB


def test_the_index_of_a_packed_array_cannot_lead_elsewhere(tmp_path: Path) -> None:
    unit, output = _filled(Store(tmp_path))
    output.pack(Declared(("picture", "latents")))
    path = tmp_path / output.path / "picture" / "c" / "0" / "0" / "0" / "0"
    data = path.read_bytes()
    index = np.frombuffer(data[:48], "<u8").reshape(3, 2).copy()
    index[1, 1] = 1 << 40
    listed = index.tobytes()
    path.write_bytes(listed + struct.pack("<I", google_crc32c.value(listed)) + data[52:])
    with pytest.raises(MissingChunk):
        unit.output("track", KEY).read("picture")
    report = verify_unit(unit, {("track", KEY): Declared(("picture", "latents"))})
    assert [f.frames for f in report.damaged] == [(0, 1, 2)]


def test_markers_of_millions_of_frames_take_no_memory_and_no_time(tmp_path: Path) -> None:
    _, output = _filled(Store(tmp_path))
    folder = tmp_path / output.path / "done"
    for number in range(300):
        (folder / f"{number:08d}-{999_000:08d}").touch()
        (folder / f"{number:08d}-{10**11:012d}").touch()
    began = time.process_time()
    assert output.contents().done == set(range(999_001))
    assert time.process_time() - began < 20


# Files


def test_a_file_larger_than_the_limit_counts_as_missing(
    any_store: Store, limits: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    unit, output = _filled(any_store)
    output.put_bytes("clip.mp4", b"x" * 100)
    output.put_bytes("empty", b"")
    assert output.get_bytes("empty") == b""
    limits(object_bytes=99)
    assert output.get_bytes("clip.mp4") is None
    assert "limits.object_bytes" in caplog.text
    limits(object_bytes=100)
    assert output.get_bytes("clip.mp4") == b"x" * 100
    assert verify_unit(unit, {}).damaged == []


# Tables of failures


def _parquet(table: pa.Table, **options: Any) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content, **options)
    return content.getvalue()


LONG = "x" * 1_000_000
BOMBS: dict[str, Callable[[], bytes]] = {
    "one text for many rows": lambda: _parquet(
        pa.table({"a": pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array([LONG]))})
    ),
    "pages of one letter": lambda: _parquet(
        pa.table({"a": [LONG] * 20}), use_dictionary=False, compression="zstd"
    ),
    "many rows": lambda: _parquet(pa.table({"a": pa.nulls(2_000_000, pa.string())})),
    "many columns": lambda: _parquet(pa.table({f"a{i}": pa.nulls(900_000, pa.int64()) for i in range(2)})),
    "shared beginnings": lambda: _parquet(
        pa.table({"a": [LONG] * 20}), use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}
    ),
    "a list": lambda: _parquet(pa.table({"a": [[0] * 1000] * 3})),
    "a structure": lambda: _parquet(pa.table({"a": [{"b": 1}] * 3})),
    "long values of one length": lambda: _parquet(
        pa.table({"a": pa.array([b"x" * 10_000], pa.binary(10_000))})
    ),
    "no footer": lambda: b"PAR1" + b"\xff" * 100 + b"PAR1",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_table_is_refused_before_it_is_decoded(bomb: str, limits: Callable[..., None]) -> None:
    limits(table_bytes=10 * MIB)
    data = BOMBS[bomb]()
    before = pa.total_allocated_bytes()
    with pytest.raises(InputError, match=r"^(holds|is not readable Parquet)"):
        read_parquet_bounded(data)
    assert pa.total_allocated_bytes() - before < 10 * MIB


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": None, "use_dictionary": False},
        {"row_group_size": 100, "data_page_size": 200},
        {"use_dictionary": False, "column_encoding": {"number": "DELTA_BINARY_PACKED"}},
        {"store_schema": False},
    ],
    ids=range(6),
)
def test_ordinary_tables_are_read(options: dict[str, Any]) -> None:
    count = 2000
    table = pa.table(
        {
            "name": [f"clip {number}" for number in range(count)],
            "same": ["a"] * count,
            "gaps": [None if number % 3 else "here" for number in range(count)],
            "number": list(range(count)),
            "time": pa.array([0] * count, pa.timestamp("us", "UTC")),
            "none": pa.nulls(count),
        }
    )
    assert read_parquet_bounded(_parquet(table, **options)).to_pylist() == table.to_pylist()
    assert read_parquet_bounded(_parquet(table.slice(0, 0), **options)).num_rows == 0


def test_tables_take_no_memory_and_broken_ones_end_no_process(tmp_path: Path) -> None:
    """Arrow ends the process where it is asked for some columns of a broken footer."""
    path = tmp_path / "bomb.parquet"
    path.write_bytes(BOMBS["one text for many rows"]())
    assert path.stat().st_size < 60_000
    code = (
        "import io, random\nimport pyarrow as pa, pyarrow.parquet as pq, pyarrow.compute, pandas\n"
        "from portrait_core.store.parquet import read_parquet_bounded\n---\n"
        "try: read_parquet_bounded(open(sys.argv[1], 'rb').read())\n"
        "except ValueError as error: assert 'limits.table_bytes' in str(error), error\n"
        "else: raise SystemExit('it was read')\n"
        "content = io.BytesIO()\n"
        "pq.write_table(pa.table({'a': ['b'] * 50, 'n': list(range(50)), 's': pa.nulls(50)}), content)\n"
        "whole, draw = content.getvalue(), random.Random(0)\n"
        "for _ in range(800):\n"
        "    data = bytearray(whole)\n"
        "    for _ in range(draw.choice((1, 2, 4))): data[draw.randrange(len(data))] = draw.randrange(256)\n"
        "    try: read_parquet_bounded(bytes(data))\n"
        "    except ValueError: pass\n"
    )
    assert _peak_bytes(code, path) < 200 * MIB


def test_failures_of_a_stranger_are_rows_that_can_be(any_store: Store, limits: Callable[..., None]) -> None:
    unit, _ = _filled(any_store)
    unit.record_failures([Failure("track", 1, "input", "no face")])
    (name,) = unit.failure_tables()
    sound = pq.read_table(io.BytesIO(any_store._files.get_one(f"video/a/failures/{name}") or b""))
    rows = sound.to_pylist()
    odd = [
        rows[0] | {"frame": 10**18},
        rows[0] | {"frame": -5},
        rows[0] | {"cls": "[/nope]"},
        rows[0] | {"time_utc": None},
        rows[0] | {"message": LONG, "stage": None, "key": None},
    ]
    _put(any_store, "video/a/failures/odd.parquet", _parquet(pa.Table.from_pylist(odd, sound.schema)))
    _put(any_store, "video/a/failures/types.parquet", _parquet(pa.table({"stage": [1], "frame": ["x"]})))
    _put(any_store, "video/a/failures/bomb.parquet", BOMBS["one text for many rows"]())
    found = unit.failures()
    assert list(found["frame"]) == [1, 1]
    assert max(found["message"].str.len()) == 10_000
    unreadable = {f.where for f in verify_unit(unit, {}).findings}
    assert unreadable == {"failures/types.parquet", "failures/bomb.parquet"}
    limits(table_rows=1)
    assert len(unit.failures()) == 1


# Leases, labels, names and what is no file

LEASE = {"owner": "a", "host": "b", "pid": 1, "process_started": 0, "stage": "", "beat": 0}
LEASE["time_utc"] = "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 2**40},
        {"pid": -1},
        {"pid": "1"},
        {"pid": 1.5},
        {"host": ["x"]},
        {"host": "x" * 1000},
        {"time_utc": "soon"},
        {"time_utc": "2026-01-01T00:00:00"},
        {"beat": None},
    ],
    ids=str,
)
def test_a_lease_of_nobody_is_none(any_store: Store, change: dict[str, Any]) -> None:
    unit, _ = _filled(any_store)
    _put(any_store, "video/a/lease.json", json.dumps(LEASE).encode())
    assert read_holder(unit) is not None
    _put(any_store, "video/a/lease.json", json.dumps(LEASE | change).encode())
    assert read_holder(unit) is None


def test_a_label_is_text_of_some_length(any_store: Store) -> None:
    unit, _ = _filled(any_store)
    for label, shown in ((5, "a"), (["x"], "a"), ("x" * 10_000, "x" * 1000)):
        _put(any_store, "video/a/label.json", json.dumps({"label": label}).encode())
        assert unit.read_label() == shown


@pytest.mark.timeout(30)
def test_what_is_no_file_is_named_by_verify_and_left_alone(tmp_path: Path) -> None:
    unit, output = _filled(Store(tmp_path))
    folder = tmp_path / output.path
    (folder / "notes").mkdir()
    (tmp_path / "outside").write_bytes(b"mine")
    os.mkfifo(folder / "done" / "00000099")
    os.mkfifo(folder / "latents" / "c.9.0")
    (folder / "latents" / "c.1.0").unlink()
    (folder / "latents" / "c.1.0").symlink_to(tmp_path / "outside")
    (folder / "notes" / "cost.json").mkdir()
    deep = folder / "picture"
    for _ in range(60):
        deep /= "d"
    deep.mkdir(parents=True)
    report = verify_unit(unit, {("track", KEY): Declared(("picture", "latents"))})
    said = {finding.where: finding.message for finding in report.findings}
    assert "it is a pipe" in said[f"track.{KEY}/done/00000099"]
    assert "it is a pipe" in said[f"track.{KEY}/latents/c.9.0"]
    assert "it is a link" in said[f"track.{KEY}/latents/c.1.0"]
    assert any("nested too deeply" in message for message in said.values())
    assert [f.frames for f in report.damaged] == [(1,)]
    assert output.contents().done == {0, 1, 2}
    with pytest.raises(StoreError, match="is not deleted"):
        output.drop()
    assert (tmp_path / "outside").read_bytes() == b"mine"


def test_names_of_others_are_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _filled(store)
    store.write_record("jobs", "sound", 1)
    odd = ["lost+found", ".DS_Store", "@eaDir", "jobs/Thumbs.db", "jobs/a b.json", "states", "video/.nfs0001"]
    for name in odd:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "jobs" / "line\nbreak.json").touch()
    with open(os.fsencode(tmp_path) + b"/jobs/\xff\xfe.json", "wb"):
        pass
    expected = {*odd, "jobs/line\nbreak.json", "jobs/\udcff\udcfe.json"} - {"states"}
    assert set(store.odd_names()) == expected
    assert set(store.odd_names(("jobs",))) == expected - {"video/.nfs0001"}
    assert store.read_records("jobs") == {"sound": 1}
    (tmp_path / "video" / "a" / ".DS_Store").touch()
    assert store.unit("video", "a").odd_names() == [".DS_Store"]


# Files that are written


def test_a_file_is_written_whole_and_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "clip.mp4").symlink_to(tmp_path / "outside")
    write_whole(tmp_path / "out" / "clip.mp4", b"clip")
    assert (tmp_path / "outside").read_bytes() == b"mine"
    assert not (tmp_path / "out" / "clip.mp4").is_symlink()
    with pytest.raises(FileNotFoundError), partial_file(tmp_path / "out" / "clip.mp4") as partial:
        partial.unlink()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["clip.mp4"]
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == b"clip"


def test_names_of_partial_files_cannot_be_guessed(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with partial_file(tmp_path / "a") as partial:
            names.add(partial.name)
    assert len(names) == 3
    assert not any(str(os.getpid()) == name.split(".")[1] for name in names)


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o007, 0o660)])
def test_a_file_has_the_mode_of_the_process_whoever_makes_it(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "a", b"1")
        with partial_file(tmp_path / "b") as partial:  # as safetensors does
            other = tmp_path / "made elsewhere"
            other.write_bytes(b"2")
            other.chmod(0o644)
            other.replace(partial)
        Store(tmp_path / "s").write_record("jobs", "a", 1)
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()} == {
        "a": mode,
        "b": mode,
    }
    assert (tmp_path / "s" / "jobs" / "a.json").stat().st_mode & 0o777 == mode
    assert (tmp_path / "s" / "jobs").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_digest_is_that_of_all_pieces(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portrait_core.store.files._PIECE", 10)
    for size in (0, 9, 10, 11, 35):
        content = os.urandom(size)
        _put(any_store, "states/a.json", content)
        assert any_store._files.digest("states/a.json") == (hashlib.sha256(content).hexdigest(), size)
    assert any_store._files.digest("states/none.json") is None
