"""Packed arrays: one object, the same bytes of chunks, readable by plain zarr and at every moment."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from portrait_core.errors import MissingChunk
from portrait_core.store import (
    Declared,
    Output,
    Store,
    array_folder,
    arrays,
    output,
    repair_unit,
    verify_unit,
)
from portrait_core.store.contents import consecutive_runs
from portrait_core.store.files import Files
from tests.portrait_core.watched_files import Between, Ends, Killed, Operation, WatchedFiles

KEY, TOTAL = "00aa", 12
SHAPES = {
    "frames": ((TOTAL, 10, 8, 3), "uint8"),
    "latents": ((TOTAL, 4, 6), "float32"),
    "ok": ((TOTAL,), "bool"),
}
DECLARED = Declared(tuple(SHAPES))
TWO = ("latents", "ok")


def _values(name: str) -> np.ndarray:
    shape, dtype = SHAPES[name]
    return np.random.default_rng(1).integers(0, 255, shape).astype(dtype)


def _output(files: Files | str | Path) -> Output:
    return Output(files if isinstance(files, Files) else Files(files), "video/a", "track", KEY)


def _fill(output: Output, frames: list[int], names: tuple[str, ...] = tuple(SHAPES)) -> Output:
    for name in names:
        shape, dtype = SHAPES[name]
        output.ensure_array(name, shape, dtype)
        for frame in frames:
            output.write(name, frame, _values(name)[frame : frame + 1])
    output.commit(frames)
    return output


def _check(output: Output, frames: list[int], names: tuple[str, ...] = tuple(SHAPES)) -> None:
    """``frames`` can be read, all the others are missing, and just they are done."""
    for name in names:
        for first, last in consecutive_runs(frames):
            np.testing.assert_array_equal(output.read(name, first, last + 1), _values(name)[first : last + 1])
        missing = sorted(set(range(TOTAL)) - set(frames))
        if missing:
            with pytest.raises(MissingChunk) as caught:
                output.read(name)
            assert list(caught.value.frames) == missing
    assert np.flatnonzero(output.done(TOTAL, Declared(names))).tolist() == frames


def _objects(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("scheme", ["file", "memory"])
@pytest.mark.parametrize("frames", [list(range(TOTAL)), [0, 1, 2, 5, 7, 8], [3], [11]], ids=str)
def test_packing_keeps_every_chunk_as_it_is(tmp_path: Path, scheme: str, frames: list[int]) -> None:
    files = Files(f"{scheme}://{tmp_path}")
    one = _fill(_output(files), frames)
    one.write_whole({"model": np.arange(6.0)})
    one.put_bytes("clip.mp4", b"x")
    chunks = {
        name: [files.get_one(path) for path in one._chunk_paths(name, info, frames)]
        for name in SHAPES
        if (info := one.array_info(name)) is not None
    }
    one.pack(DECLARED)
    contents = one.contents()
    assert contents.packed == set(SHAPES)
    assert contents.chunks == {"model": {0}}
    markers = files.list(f"{one.path}/done")
    assert len(markers) == {6: 3, TOTAL: 1, 1: 1}[len(frames)]
    assert contents.objects == 2 * len(SHAPES) + len(markers) + 3
    for name in SHAPES:
        info = _output(files).array_info(name)
        assert info is not None
        assert info.packed
        path = f"{one.path}/{name}/c" + "/0" * len(info.shape)
        assert (files.get_one(path) or b"").endswith(b"".join(chunk or b"" for chunk in chunks[name]))
    for reader in (one, _output(files)):
        _check(reader, frames)
    np.testing.assert_array_equal(one.read("model"), np.arange(6.0))


@pytest.mark.parametrize("frames", [list(range(TOTAL)), [0, 5]], ids=str)
def test_plain_zarr_reads_packed_arrays(tmp_path: Path, frames: list[int]) -> None:
    one = _fill(_output(tmp_path), frames)
    one.describe({"steps": 1})
    one.pack(DECLARED)
    group = zarr.open_group(str(tmp_path / one.path), mode="r")
    assert sorted(group.array_keys()) == sorted(SHAPES)
    for name in SHAPES:
        expected = np.zeros_like(_values(name))
        expected[frames] = _values(name)[frames]
        array = group[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(array[:], expected)
        assert array.shards == array.shape
        assert array.chunks == (1, *array.shape[1:])
        single = zarr.open_array(str(tmp_path / one.path / name), mode="r")
        np.testing.assert_array_equal(single[5:6], expected[5:6])


def test_one_frame_is_packed(tmp_path: Path) -> None:
    one = _output(tmp_path)
    one.ensure_array("pose", (1, 25), "float32")
    one.write("pose", 0, np.ones((1, 25), np.float32))
    one.commit()
    one.pack(Declared(("pose",)))
    assert one.contents().packed == {"pose"}
    assert one.done(1, Declared(("pose",))).all()
    assert _output(tmp_path).read("pose").all()
    found = zarr.open_array(str(tmp_path / one.path / "pose"), mode="r")
    assert np.asarray(found[:]).all()


def test_packing_again_does_nothing(tmp_path: Path) -> None:
    files = WatchedFiles(str(tmp_path))
    one = _fill(_output(files), [0, 1, 5])
    one.pack(DECLARED)
    files.seen.clear()
    one.pack(DECLARED)
    assert [seen.what for seen in files.seen] == ["sizes"]


def test_a_packed_array_is_read_by_few_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(_output(tmp_path), list(range(TOTAL))).pack(DECLARED)
    for head_bytes, requests in ((array_folder._HEAD_BYTES, 1), (16, 2)):
        monkeypatch.setattr(array_folder, "_HEAD_BYTES", head_bytes)
        files = WatchedFiles(str(tmp_path))
        np.testing.assert_array_equal(_output(files).read("latents", 3, 9), _values("latents")[3:9])
        assert [seen.what for seen in files.seen] == ["get", *["get_range"] * requests]


def _operations(folder: Path, act: Callable[[Output], object]) -> int:
    """Number of operations that change the store, of ``act``."""
    files = WatchedFiles(str(folder))
    act(_output(files))
    return sum(seen.changes for seen in files.seen)


def _unpack(one: Output) -> None:
    for name in TWO:
        one.unpack(name)


def _copy(template: Path, folder: Path) -> Output:
    """A copy of a store, and a reader that knows its arrays from before."""
    shutil.copytree(template, folder)
    reader = _output(folder)
    for name in TWO:
        reader.array_info(name)
    return reader


def test_killed_anywhere_while_it_is_packed_everything_can_be_read(tmp_path: Path) -> None:
    frames, template, packed = [0, 1, 4], tmp_path / "template", tmp_path / "packed"
    _fill(_output(template), frames, TWO)
    _copy(template, packed)
    kills = _operations(packed, lambda one: one.pack(DECLARED))
    assert kills == 2 * (2 + 3) + 1 + 2
    for count in range(kills):
        folder = tmp_path / str(count)
        reader = _copy(template, folder)
        with pytest.raises(Killed):
            _output(WatchedFiles(str(folder), Ends(count))).pack(DECLARED)
        for one in (reader, _output(folder)):
            _check(one, frames, TWO)
        _output(folder).pack(DECLARED)
        assert _objects(folder) == _objects(packed)
        _check(reader, frames, TWO)


def test_killed_anywhere_while_it_is_unpacked_everything_can_be_read(tmp_path: Path) -> None:
    frames, template, unpacked = [0, 1, 4], tmp_path / "template", tmp_path / "unpacked"
    _fill(_output(template), frames, TWO).pack(DECLARED)
    _copy(template, unpacked)
    kills = _operations(unpacked, _unpack)
    assert kills == 2 * (3 + 2)
    for count in range(kills):
        folder = tmp_path / str(count)
        reader = _copy(template, folder)
        with pytest.raises(Killed):
            _unpack(_output(WatchedFiles(str(folder), Ends(count))))
        for one in (reader, _output(folder)):
            _check(one, frames, TWO)
        _unpack(_output(folder))
        assert _output(folder).contents().packed == set()  # an object may be left over; nobody reads it
        assert _objects(folder).items() >= _objects(unpacked).items()
        _check(reader, frames, TWO)


@pytest.mark.parametrize("act", ["pack", "unpack"])
def test_readers_go_on_while_another_process_packs_or_unpacks(tmp_path: Path, act: str) -> None:
    """A reader that has just begun and one that knows the array from before, between all operations."""
    frames = [0, 1, 4, 6]
    reader = _fill(_output(tmp_path), frames, ("latents",))
    if act == "unpack":
        reader.pack(DECLARED)

    def read() -> None:
        for one in (reader, _output(tmp_path)):
            _check(one, frames, ("latents",))

    read()
    files = WatchedFiles(str(tmp_path), Between(read))
    if act == "pack":
        _output(files).pack(DECLARED)
    else:
        _output(files).unpack("latents")
    read()
    assert sum(seen.changes for seen in files.seen) >= 6


def test_the_array_changes_form_between_a_readers_operations(tmp_path: Path) -> None:
    """Another process packs, or unpacks, before one of the operations of a read, whichever."""
    for packs in (True, False):
        for moment in range(6):
            folder = tmp_path / f"{packs}-{moment}"
            frames = list(range(TOTAL))
            one = _fill(_output(folder), frames, ("latents",))
            if not packs:
                one.pack(DECLARED)
            left = [moment]

            def change(_: Operation) -> None:
                left[0] -= 1  # noqa: B023 - called within this turn alone
                if left[0] == -1:  # noqa: B023
                    rival = _output(folder)  # noqa: B023
                    rival.pack(DECLARED) if packs else rival.unpack("latents")  # noqa: B023

            reader = _output(WatchedFiles(str(folder), change))
            np.testing.assert_array_equal(reader.read("latents"), _values("latents"))


@pytest.mark.parametrize("ensures", [True, False])
def test_writing_a_frame_into_a_packed_array_keeps_the_others(tmp_path: Path, ensures: bool) -> None:
    frames = [0, 1, 4, 6]
    _fill(_output(tmp_path), frames).pack(DECLARED)
    writer = _output(tmp_path)
    for name in SHAPES:
        if ensures:
            writer.ensure_array(name, *SHAPES[name])
        writer.write(name, 5, _values(name)[5:6])
    writer.commit([5])
    assert writer.contents().packed == set()
    for reader in (writer, _output(tmp_path)):
        _check(reader, [0, 1, 4, 5, 6])
    writer.pack(DECLARED)
    assert sorted(Files(tmp_path).list(f"{writer.path}/done")) == ["00000000-00000001", "00000004-00000006"]
    _check(_output(tmp_path), [0, 1, 4, 5, 6])


def test_a_frame_that_is_written_while_another_process_packs_is_not_lost(tmp_path: Path) -> None:
    """The writer knows the array from before; whenever it writes, the frame can be read and is done."""
    template, done = tmp_path / "template", [0, 1, 4, 5]
    _fill(_output(template), [0, 1, 4], TWO)
    expected = np.zeros_like(_values("latents"))
    expected[done] = _values("latents")[done]
    for moment in range(2 * (2 + 3) + 1 + 2):
        folder = tmp_path / str(moment)
        writer = _copy(template, folder)
        left = [moment]

        def write(operation: Operation) -> None:
            if operation.changes:
                left[0] -= 1  # noqa: B023 - called within this turn alone
                if left[0] == -1:  # noqa: B023
                    for name in TWO:
                        writer.write(name, 5, _values(name)[5:6])  # noqa: B023
                    writer.commit([5])  # noqa: B023

        _output(WatchedFiles(str(folder), write)).pack(DECLARED)
        assert left[0] < 0
        for reader in (writer, _output(folder)):
            _check(reader, done, TWO)
        _output(folder).pack(DECLARED)
        assert _output(folder).contents().chunks == {}
        _check(writer, done, TWO)
        found = zarr.open_array(str(folder / writer.path / "latents"), mode="r")
        np.testing.assert_array_equal(found[:], expected)


def test_two_processes_that_pack_at_once_lose_nothing(tmp_path: Path) -> None:
    """One gets as far as it likes between any two operations of the other."""
    frames, template = [0, 1, 4], tmp_path / "template"
    _fill(_output(template), frames, ("latents",))
    files = WatchedFiles(str(tmp_path / "count"))
    _copy(template, tmp_path / "count")
    _output(files).pack(DECLARED)
    for moment in range(len(files.seen)):
        for stop in range(0, 9, 2):
            folder = tmp_path / f"{moment}-{stop}"
            shutil.copytree(template, folder)
            left = [moment]

            def rival(_: Operation) -> None:
                left[0] -= 1  # noqa: B023 - called within this turn alone
                if left[0] == -1:  # noqa: B023
                    with contextlib.suppress(Killed):
                        _output(WatchedFiles(str(folder), Ends(stop))).pack(DECLARED)  # noqa: B023

            _output(WatchedFiles(str(folder), rival)).pack(DECLARED)
            _check(_output(folder), frames, ("latents",))


def test_an_index_that_is_known_from_before_misleads_nobody(tmp_path: Path) -> None:
    """Where the old object had a frame, the new one has another of the same length and a sound checksum."""
    reader = _fill(_output(tmp_path), [0, 1, 3], ("latents",))
    reader.pack(DECLARED)
    reader.read("latents", 3, 4)
    _fill(_output(tmp_path), [2], ("latents",)).pack(DECLARED)
    np.testing.assert_array_equal(reader.read("latents", 3, 4), _values("latents")[3:4])


def test_an_array_that_lacks_a_marked_frame_is_not_packed(tmp_path: Path) -> None:
    """Packed, it would count as there."""
    one = _fill(_output(tmp_path), [0, 1, 2])
    (tmp_path / one.path / "latents" / "c.1.0.0").unlink()
    one.pack(DECLARED)
    assert one.contents().packed == {"frames", "ok"}
    assert one.done(3, DECLARED).tolist() == [True, False, True]


def test_an_array_that_is_too_large_for_memory_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = _fill(_output(tmp_path), [0, 1, 2])
    size = sum(path.stat().st_size for path in (tmp_path / one.path / "frames").iterdir())
    monkeypatch.setattr(output, "MAX_PACK_BYTES", size - 1)
    one.pack(DECLARED)
    assert one.contents().packed == {"latents", "ok"}
    _check(one, [0, 1, 2])


def test_markers_of_runs_are_taken_back_frame_by_frame(tmp_path: Path) -> None:
    one = _fill(_output(tmp_path), list(range(TOTAL)), ("ok",))
    one.pack(DECLARED)
    one.uncommit([0, 4, 5, 99])
    assert one.marked() == [1, 2, 3, 6, 7, 8, 9, 10, 11]
    one.commit([4])
    one.pack(DECLARED)
    assert Files(tmp_path).list(f"{one.path}/done") == ["00000001-00000004", "00000006-00000011"]
    one.uncommit()
    assert one.marked() == []


def test_killed_while_markers_are_taken_back_no_other_is_lost(tmp_path: Path) -> None:
    for count in range(12):
        one = _fill(_output(tmp_path / str(count)), list(range(TOTAL)), ("ok",))
        one.pack(DECLARED)
        try:
            _output(WatchedFiles(str(tmp_path / str(count)), Ends(count))).uncommit([3])
        except Killed:
            assert set(one.marked()) >= set(range(TOTAL)) - {3}
        else:
            assert one.marked() == [frame for frame in range(TOTAL) if frame != 3]


# Damage


def _change(path: Path, change: Callable[[bytearray], object]) -> None:
    value = bytearray(path.read_bytes())
    change(value)
    path.write_bytes(value)


def _flip(position: int) -> Callable[[bytearray], object]:
    def flip(value: bytearray) -> None:
        value[position] ^= 16

    return flip


def _cut(value: bytearray) -> None:
    del value[-30:]


INDEX = 16 * TOTAL + 4
CHUNK = 4 * 6 * 4 + 4
DAMAGES: dict[str, tuple[Callable[[Path], object], str, list[int]]] = {
    "flipped chunk": (lambda p: _change(p, _flip(INDEX + 3 * CHUNK + 7)), "corrupt", [3]),
    "flipped checksum": (lambda p: _change(p, _flip(INDEX + 4 * CHUNK - 1)), "corrupt", [3]),
    "cut shard": (lambda p: _change(p, _cut), "corrupt", [11]),
    "cut far": (lambda p: p.write_bytes(p.read_bytes()[: INDEX + 9 * CHUNK]), "corrupt", [9, 10, 11]),
    "damaged index": (lambda p: _change(p, _flip(16 * 5)), "absent", list(range(TOTAL))),
    "cut index": (lambda p: p.write_bytes(p.read_bytes()[:50]), "absent", list(range(TOTAL))),
    "empty": (lambda p: p.write_bytes(b""), "absent", list(range(TOTAL))),
    "lost": (lambda p: p.unlink(), "absent", list(range(TOTAL))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_in_a_shard_costs_the_damaged_frames_alone(tmp_path: Path, damage: str) -> None:
    harm, kind, lost = DAMAGES[damage]
    unit = Store(tmp_path).unit("video", "a")
    one = _fill(unit.output("track", KEY), list(range(TOTAL)))
    sound = one.digest(SHAPES)
    one.pack(DECLARED)
    expected = {("track", KEY): DECLARED}
    assert verify_unit(unit, expected).findings == []
    harm(tmp_path / one.path / "latents/c/0/0/0")

    for reader in (one, _output(tmp_path)):
        with pytest.raises(MissingChunk) as caught:
            reader.read("latents")
        assert list(caught.value.frames) == lost
    left = [frame for frame in range(TOTAL) if frame not in lost]
    for frame in left:
        np.testing.assert_array_equal(one.read("latents", frame, frame + 1)[0], _values("latents")[frame])

    before = _objects(tmp_path)
    report = verify_unit(unit, expected)
    assert [(found.kind, found.where, list(found.frames)) for found in report.findings] == [
        (kind, "track.00aa/latents", lost)
    ]
    assert _objects(tmp_path) == before
    assert repair_unit(unit, report)
    assert verify_unit(unit, expected).damaged == []
    assert np.flatnonzero(~_output(tmp_path).done(TOTAL, DECLARED)).tolist() == lost

    _fill(unit.output("track", KEY), lost)  # the next run
    assert verify_unit(unit, expected).findings == []
    again = unit.output("track", KEY)
    assert again.digest(SHAPES) == sound
    again.pack(DECLARED)
    _check(_output(tmp_path), list(range(TOTAL)))
    assert verify_unit(unit, expected).findings == []


def test_a_lost_document_does_not_take_the_packed_frames_with_it(tmp_path: Path) -> None:
    one = _fill(_output(tmp_path), [0, 1, 4])
    one.pack(DECLARED)
    document = tmp_path / one.path / "latents/zarr.json"
    for damage in (document.unlink, lambda: document.write_bytes(b'{"zarr')):
        damage()
        with pytest.raises(MissingChunk):
            _output(tmp_path).read("latents", 0, 1)
        again = _output(tmp_path)
        again.ensure_array("latents", *SHAPES["latents"])
        _check(again, [0, 1, 4])
        again.pack(DECLARED)
    document.unlink()
    _change(tmp_path / one.path / "latents/c/0/0/0", _flip(3))
    again = _output(tmp_path)
    again.ensure_array("latents", *SHAPES["latents"])
    assert again.done(TOTAL, Declared(("latents",))).sum() == 0  # and no packed object counts as its frames


@pytest.mark.parametrize("places", ["far", "huge", "overlapping", "endless"])
def test_a_strangers_index_takes_no_memory(tmp_path: Path, places: str) -> None:
    """Its checksum is right, but what it names is not what is there."""
    one = _fill(_output(tmp_path), list(range(TOTAL)), ("latents",))
    one.pack(DECLARED)
    path = tmp_path / one.path / "latents/c/0/0/0"
    value = path.read_bytes()
    index = np.frombuffer(value[: INDEX - 4], "<u8").reshape(TOTAL, 2).copy()
    if places == "far":
        index[3, 0] = 2**50
    elif places == "huge":
        index[3, 1] = 2**40
    elif places == "overlapping":
        index[3] = index[2]
    else:
        index[3] = 2**63, 2**63
    listed = index.tobytes()
    path.write_bytes(listed + arrays._crc32c(listed) + value[INDEX:])
    with pytest.raises(MissingChunk):
        _output(tmp_path).read("latents", 2, 5)


def test_an_old_document_beside_a_packed_object_decides_what_is_done(tmp_path: Path) -> None:
    """Killed before its document was written, an array is not packed: what it then loses is lost."""
    one = _fill(_output(tmp_path), [0, 1, 2], ("latents",))
    document = tmp_path / one.path / "latents/zarr.json"
    plain = document.read_bytes()
    (tmp_path / "sound").write_bytes((tmp_path / one.path / "latents/c.1.0.0").read_bytes())
    one.pack(DECLARED)
    document.write_bytes(plain)
    for frame in (0, 2):
        (tmp_path / one.path / f"latents/c.{frame}.0.0").write_bytes((tmp_path / "sound").read_bytes())
    assert json.loads(plain)["codecs"]
    assert one.contents().packed == set()
    assert one.done(3, Declared(("latents",))).tolist() == [True, False, True]
