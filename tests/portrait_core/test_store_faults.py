"""What kills, bit rot and rivals do to the store: nothing that is not noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import Zstd

from portrait_core.errors import MissingChunk
from portrait_core.store import Declared, Failure, Output, Store, verify_unit
from tests.portrait_core.watched_files import Ends, Killed, WatchedFiles

KEY, TOTAL, SIZE = "00aa", 400, 128

WRITER = f"""
import sys
import numpy as np
from portrait_core.store import Store
output = Store(sys.argv[1]).unit("video", "a").output("track", "{KEY}")
output.ensure_array("frames", ({TOTAL}, {SIZE}, {SIZE}, 3), "uint8")
for frame in np.flatnonzero(~output.done({TOTAL})):
    values = np.random.default_rng(int(frame)).integers(0, 255, (1, {SIZE}, {SIZE}, 3), dtype=np.uint8)
    output.write("frames", int(frame), values)
    output.commit([frame])
    print(frame, flush=True)
"""


def _expected(frame: int) -> np.ndarray:
    return np.random.default_rng(frame).integers(0, 255, (1, SIZE, SIZE, 3), dtype=np.uint8)


def _start(store: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(store)], stdout=subprocess.PIPE, text=True)


def _kill_after(process: subprocess.Popen[str], frames: int, delay_s: float) -> list[int]:
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(frames)]
    time.sleep(delay_s)
    process.kill()
    said += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.wait()
    process.stdout.close()
    return said


def test_killed_writer_loses_nothing_and_lies_about_nothing(tmp_path: Path) -> None:
    said: list[int] = []
    for round_, delay_s in enumerate((0.0, 0.0031)):
        new = _kill_after(_start(tmp_path), 20, delay_s)
        assert new[0] >= 20 * round_  # it went on where the one before was killed
        assert not set(new[:-1]) & set(said)  # and did nothing twice
        said += new
        output = Store(tmp_path).unit("video", "a").output("track", KEY)
        done = np.flatnonzero(output.done(TOTAL))
        assert set(said) <= set(done.tolist())
        for frame in done:
            np.testing.assert_array_equal(
                output.read("frames", int(frame), int(frame) + 1), _expected(int(frame))
            )
    (tmp_path / "video/a/track.00aa/frames/c.3.0.0.0.1-aa.partial").write_bytes(b"half")
    Store(tmp_path).sweep(older_than_s=0)
    assert not list(tmp_path.rglob("*.partial"))


def test_sweep_spares_what_may_still_be_written(tmp_path: Path) -> None:
    for name, age_s in (("old.partial", 7200), ("new.partial", 0), ("old", 7200)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    assert Store(tmp_path).sweep() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.partial", "old"]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Store(tmp_path).unit("video", "a").output("track", KEY)
    for name, shape, dtype in (("frames", (5, 16, 16, 3), "uint8"), ("latents", (5, 14), "float32")):
        output.ensure_array(name, shape, dtype)
        output.write(name, 0, np.random.default_rng(0).integers(0, 255, shape).astype(dtype))
    return output


@pytest.mark.parametrize("array", ["frames", "latents"])
def test_any_flipped_bit_makes_the_frame_missing(tmp_path: Path, output: Output, array: str) -> None:
    chunk = next((tmp_path / output.path / array).glob("c.2.*"))
    sound = chunk.read_bytes()
    for position in np.linspace(0, len(sound) - 1, 12).astype(int):
        broken = bytearray(sound)
        broken[position] ^= 1 << int(position % 8)
        chunk.write_bytes(broken)
        with pytest.raises(MissingChunk) as caught:
            output.read(array, 0, 5)
        assert caught.value.frames == (2,)
    for cut in (0, 3, len(sound) - 1):
        chunk.write_bytes(sound[:cut])
        with pytest.raises(MissingChunk):
            output.read(array, 2, 3)
    chunk.write_bytes(sound)
    assert len(output.read(array, 0, 5)) == 5


def test_several_bad_frames_are_all_named(tmp_path: Path, output: Output) -> None:
    folder = tmp_path / output.path / "latents"
    (folder / "c.1.0").unlink()
    (folder / "c.3.0").write_bytes(b"")
    (folder / "c.4.0").write_bytes(b"\0" * 60)
    with pytest.raises(MissingChunk) as caught:
        output.read("latents", 0, 5)
    assert caught.value.frames == (1, 3, 4)


def test_damaged_files_and_documents_count_as_missing(tmp_path: Path, output: Output) -> None:
    output.put_bytes("w.bin", b"content")
    output.write_note("info", {"a": 1})
    (path,) = (tmp_path / output.path / "files").iterdir()
    path.write_bytes(b"c0ntent")
    (tmp_path / output.path / "notes/info.json").write_text('{"a":')
    assert output.get_bytes("w.bin") is None
    assert output.read_note("info") is None


def test_a_damaged_version_of_a_file_hides_no_sound_one(tmp_path: Path, output: Output) -> None:
    output.put_bytes("w.bin", b"content")
    for digest in ("0" * 32, "f" * 32):
        (tmp_path / output.path / f"files/w.{digest}.bin").write_bytes(b"torn")
    assert output.get_bytes("w.bin") == b"content"


def test_unreadable_failure_table_hides_no_other(tmp_path: Path) -> None:
    unit = Store(tmp_path).unit("video", "a")
    unit.record_failures([Failure("track", 1, "input", "no face")])
    (tmp_path / "video/a/failures/zzz.parquet").write_bytes(b"PAR1 torn")
    assert unit.failures()["frame"].tolist() == [1]


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_rivals_lose_nothing(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}"

    def work(worker: int) -> None:
        unit = Store(url).unit("video", "a")
        output = unit.output("invert", KEY)
        output.ensure_array("latents", (40, 14), "float32")
        for frame in range(worker % 2, 40, 2):  # two workers for every frame
            output.write("latents", frame, np.full((1, 14), frame, dtype=np.float32))
            output.commit([frame])
            unit.record_failures([Failure("invert", frame, "transient", str(worker))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    unit = Store(url).unit("video", "a")
    output = unit.output("invert", KEY)
    assert output.done(40, Declared(("latents",))).all()
    np.testing.assert_array_equal(output.read("latents", 0, 40)[:, 0], np.arange(40))
    assert len(unit.failures()) == 80


def test_kill_while_an_array_is_dropped_leaves_missing_frames(tmp_path: Path, output: Output) -> None:
    output.commit(range(5))
    killed = Output(WatchedFiles(str(tmp_path), Ends(1)), "video/a", "track", KEY)
    with pytest.raises(Killed):
        killed.drop_array("latents")
    assert list((tmp_path / output.path / "latents").glob("c.*"))
    for reader in (killed, Store(tmp_path).unit("video", "a").output("track", KEY)):
        with pytest.raises(MissingChunk) as caught:
            reader.read("latents", 0, 5)
        assert caught.value.frames == (0, 1, 2, 3, 4)
        assert not reader.done(5, Declared(("latents",))).any()
    output.describe({})
    group = zarr.open_group(str(tmp_path / output.path), mode="r")
    assert list(group.array_keys()) == ["frames"]  # nor zeros by zarr
    output.drop_array("latents")
    assert "latents" not in output.contents().chunks


def test_killed_while_everything_is_dropped_nothing_is_done(tmp_path: Path, output: Output) -> None:
    output.commit(range(5))
    with pytest.raises(Killed):
        Output(WatchedFiles(str(tmp_path), Ends(5)), "video/a", "track", KEY).drop()
    assert not output.done(5).any()


def test_damaged_array_document_counts_as_no_array(tmp_path: Path, output: Output) -> None:
    document = tmp_path / output.path / "latents/zarr.json"
    sound = document.read_bytes()
    output.commit(range(5))
    others = (b"float32", b"floot32"), (b'"bytes"', b'"blosc"'), (b"crc32c", b"crc32d"), (b'"."', b'"/"')
    for broken in (b"", sound[:100], *(sound.replace(*other) for other in others), b"[]", b"5"):
        assert broken != sound
        document.write_bytes(broken)
        reader = Store(tmp_path).unit("video", "a").output("track", KEY)
        assert reader.array_info("latents") is None
        with pytest.raises(MissingChunk):
            reader.read("latents", 0, 5)
    reader.ensure_array("latents", (5, 14), "float32")
    assert len(reader.read("latents", 0, 5)) == 5  # what was stored is whole again


@pytest.mark.parametrize(
    ("name", "shape", "chunk"),
    [
        ("many", [10**12, 14], [1, 14]),
        ("large", [5, 10**6, 10**6], [1, 10**6, 10**6]),
        ("split", [5, 14], [1, 7]),  # the rest of a frame would read as zeros
        ("wide", [5, 14], [2, 28]),
    ],
)
def test_a_strangers_array_of_another_make_counts_as_none(
    tmp_path: Path, output: Output, name: str, shape: list[int], chunk: list[int]
) -> None:
    path = tmp_path / output.path / "latents/zarr.json"
    document = json.loads(path.read_bytes())
    document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunk
    path.write_text(json.dumps(document))
    reader = Store(tmp_path).unit("video", "a").output("track", KEY)
    assert reader.array_info("latents") is None
    with pytest.raises(MissingChunk):
        reader.read("latents")
    verify_unit(Store(tmp_path).unit("video", "a"), {})


def test_a_chunk_that_would_grow_out_of_proportion_is_missing(tmp_path: Path, output: Output) -> None:
    """It is sound by its checksum, but decompresses to 128 MiB, or does not say to how much."""
    path = tmp_path / output.path / "frames/c.2.0.0.0"
    large = bytes(Zstd(level=1).encode(bytes(1 << 27)))
    assert len(large) < 100_000
    content = bytes(16 * 16 * 3)
    unsaid = b"\x28\xb5\x2f\xfd\0\0" + (len(content) << 3 | 1).to_bytes(3, "little") + content
    assert bytes(Zstd().decode(unsaid)) == content
    tracemalloc.start()
    for hostile in (large, unsaid, b""):
        path.write_bytes(hostile + int(google_crc32c.value(hostile)).to_bytes(4, "little"))
        with pytest.raises(MissingChunk) as caught:
            output.read("frames")
        assert caught.value.frames == (2,)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000
