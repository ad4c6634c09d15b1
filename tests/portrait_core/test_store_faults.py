"""What kills, bit rot and rivals do to the store: nothing that is not noticed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr

from portrait_core.errors import MissingChunk
from portrait_core.store import Failure, Store, Unit
from portrait_core.store.files import Files

KEY, TOTAL, SIZE = "00aa", 400, 128

WRITER = f"""
import sys
import numpy as np
from portrait_core.store import Store
unit = Store(sys.argv[1]).unit("video", "a")
unit.ensure_array("frames", ({TOTAL}, {SIZE}, {SIZE}, 3), "uint8", "{KEY}")
for frame in np.flatnonzero(~unit.done("track", "{KEY}", {TOTAL})):
    values = np.random.default_rng(int(frame)).integers(0, 255, (1, {SIZE}, {SIZE}, 3), dtype=np.uint8)
    with unit.overwriting("track", [frame], "{KEY}"):
        unit.write("frames", int(frame), values)
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
        unit = Store(tmp_path).unit("video", "a")
        done = np.flatnonzero(unit.done("track", KEY, TOTAL))
        assert set(said) <= set(done.tolist())
        for frame in done:
            np.testing.assert_array_equal(
                unit.read("frames", int(frame), int(frame) + 1), _expected(int(frame))
            )
    (tmp_path / "video" / "a" / "frames" / f"c.3.0.0.0.1-aa{'.partial'}").write_bytes(b"half")
    Store(tmp_path).sweep(older_than_s=0)
    assert not list(tmp_path.rglob("*.partial"))


def test_sweep_spares_what_may_still_be_written(tmp_path: Path) -> None:
    for name, age_s in (("old.partial", 7200), ("new.partial", 0), ("old", 7200)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    assert Store(tmp_path).sweep() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.partial", "old"]


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    unit = Store(tmp_path).unit("video", "a")
    for name, shape, dtype in (("frames", (5, 16, 16, 3), "uint8"), ("latents", (5, 14), "float32")):
        unit.ensure_array(name, shape, dtype, KEY)
        unit.write(name, 0, np.random.default_rng(0).integers(0, 255, shape).astype(dtype))
    return unit


@pytest.mark.parametrize("array", ["frames", "latents"])
def test_any_flipped_bit_makes_the_frame_missing(tmp_path: Path, unit: Unit, array: str) -> None:
    chunk = next((tmp_path / "video" / "a" / array).glob("c.2.*"))
    sound = chunk.read_bytes()
    for position in np.linspace(0, len(sound) - 1, 12).astype(int):
        broken = bytearray(sound)
        broken[position] ^= 1 << int(position % 8)
        chunk.write_bytes(broken)
        with pytest.raises(MissingChunk) as caught:
            unit.read(array, 0, 5)
        assert caught.value.frames == (2,)
    for cut in (0, 3, len(sound) - 1):
        chunk.write_bytes(sound[:cut])
        with pytest.raises(MissingChunk):
            unit.read(array, 2, 3)
    chunk.write_bytes(sound)
    assert len(unit.read(array, 0, 5)) == 5


def test_several_bad_frames_are_all_named(tmp_path: Path, unit: Unit) -> None:
    folder = tmp_path / "video" / "a" / "latents"
    (folder / "c.1.0").unlink()
    (folder / "c.3.0").write_bytes(b"")
    (folder / "c.4.0").write_bytes(b"\0" * 60)
    with pytest.raises(MissingChunk) as caught:
        unit.read("latents", 0, 5)
    assert caught.value.frames == (1, 3, 4)


def test_damaged_files_and_documents_count_as_missing(tmp_path: Path, unit: Unit) -> None:
    unit.put_bytes("w.bin", b"content")
    unit.write_meta("info", {"a": 1})
    base = tmp_path / "video" / "a"
    (base / "files" / "w.bin").write_bytes(b"c0ntent")
    (base / "records" / "meta" / "info.json").write_text('{"a":')
    assert unit.get_bytes("w.bin") is None
    assert unit.read_meta("info") is None


def test_kill_between_digest_and_file_keeps_the_older_file(tmp_path: Path, unit: Unit) -> None:
    path = tmp_path / "video" / "a" / "files" / "check.bin"
    unit.put_bytes("check.bin", b"step 1")
    for _ in range(3):  # killed three times in a row: the digest is new, the file is not
        unit.put_bytes("check.bin", b"step 2")
        path.write_bytes(b"step 1")
        assert unit.get_bytes("check.bin") == b"step 1"


def test_unreadable_failure_table_hides_no_other(tmp_path: Path, unit: Unit) -> None:
    unit.record_failures([Failure("track", 1, "input", "no face")])
    (tmp_path / "video" / "a" / "records" / "failures" / "zzz.parquet").write_bytes(b"PAR1 torn")
    assert unit.failures()["frame"].tolist() == [1]


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_rivals_lose_nothing(tmp_path: Path, scheme: str) -> None:
    url = f"{scheme}://{tmp_path}"

    def work(worker: int) -> None:
        unit = Store(url).unit("video", "a")
        unit.ensure_array("latents", (40, 14), "float32", KEY)
        for frame in range(worker % 2, 40, 2):  # two workers for every frame
            with unit.overwriting("invert", [frame], KEY):
                unit.write("latents", frame, np.full((1, 14), frame, dtype=np.float32))
            unit.record_failures([Failure("invert", frame, "transient", str(worker))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    unit = Store(url).unit("video", "a")
    assert unit.done("invert", KEY, 40).all()
    np.testing.assert_array_equal(unit.read("latents", 0, 40)[:, 0], np.arange(40))
    assert len(unit.failures()) == 80


def test_kill_while_an_array_is_dropped_leaves_missing_frames(
    tmp_path: Path, unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Files, "delete_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            unit.drop_array("latents")
    assert list((tmp_path / "video" / "a" / "latents").glob("c.*"))
    for reader in (unit, Store(tmp_path).unit("video", "a")):
        with pytest.raises(MissingChunk) as caught:
            reader.read("latents", 0, 5)
        assert caught.value.frames == (0, 1, 2, 3, 4)
    assert "latents" not in zarr.open_group(str(tmp_path / "video" / "a"), mode="r")  # nor zeros by zarr
    unit.drop_array("latents")
    assert "latents" not in unit.sizes()


def test_damaged_array_document_counts_as_no_array(tmp_path: Path, unit: Unit) -> None:
    document = tmp_path / "video" / "a" / "latents" / "zarr.json"
    sound = document.read_bytes()
    unit.commit("track", range(5), KEY)
    for broken in (b"", sound[:100], sound.replace(b"crc32c", b"crc32d"), b"[]"):
        document.write_bytes(broken)
        reader = Store(tmp_path).unit("video", "a")
        assert reader.array_info("latents") is None
        with pytest.raises(MissingChunk):
            reader.read("latents", 0, 5)
    reader.ensure_array("latents", (5, 14), "float32", KEY)
    assert len(reader.read("latents", 0, 5)) == 5  # what was stored is whole again
