"""The store's promises, on a disk and in memory."""

from __future__ import annotations

import hashlib
import pickle
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from portrait_core.errors import InputError, MissingChunk
from portrait_core.store import Declared, Failure, Output, Store
from tests.portrait_core.watched_files import WatchedFiles

KEY, OTHER = "00aa", "11bb"
SHAPES = {
    "frames": ((7, 12, 9, 3), "uint8"),
    "mask": ((7, 12, 9), "uint8"),
    "latents": ((7, 4, 8), "float32"),
    "ok": ((7,), "bool"),
    "shape": ((7, 5), "float64"),
}
LATENTS = Declared(per_frame=("latents",))


@pytest.fixture(params=["file", "path", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    urls = {
        "file": f"file://{tmp_path}/s",
        "path": str(tmp_path / "s"),
        "memory": f"memory://{tmp_path.name}",
    }
    return Store(urls[request.param])


def _values(name: str, start: int, stop: int) -> np.ndarray:
    shape, dtype = SHAPES[name]
    values = np.random.default_rng(3).integers(0, 255, shape).astype(dtype)
    return values[start:stop]


def _output(store: Store, key: str = KEY) -> Output:
    return store.unit("video", "a").output("track", key)


def _filled(output: Output, name: str = "latents") -> Output:
    shape, dtype = SHAPES[name]
    output.ensure_array(name, shape, dtype)
    output.write(name, 0, _values(name, 0, 7))
    output.commit(range(7))
    return output


@pytest.mark.parametrize("name", SHAPES)
def test_arrays_come_back(store: Store, name: str) -> None:
    shape, dtype = SHAPES[name]
    output = _output(store)
    output.ensure_array(name, shape, dtype)
    output.write(name, 2, _values(name, 2, 5))
    output.write(name, 5, _values(name, 5, 6))
    again = _output(pickle.loads(pickle.dumps(store)))  # as another process would see it
    values = again.read(name, 2, 6)
    assert values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(values, _values(name, 2, 6))
    info = again.array_info(name)
    assert info is not None
    assert (info.shape, info.dtype, info.rows, info.packed) == (shape, np.dtype(dtype), 1, False)


def test_frames_that_were_never_written_are_missing_not_black(store: Store) -> None:
    output = _output(store)
    output.ensure_array("frames", (7, 4, 4, 3), "uint8")
    output.write("frames", 2, np.zeros((2, 4, 4, 3), dtype=np.uint8))
    assert not output.read("frames", 2, 4).any()  # black frames that were written are there
    with pytest.raises(MissingChunk) as caught:
        output.read("frames", 0, 6)
    assert caught.value.array == "video/a/track.00aa/frames"
    assert caught.value.frames == (0, 1, 4, 5)
    assert pickle.loads(pickle.dumps(caught.value)).frames == (0, 1, 4, 5)
    with pytest.raises(MissingChunk) as caught:
        output.read("latents", 0, 2)
    assert caught.value.frames == (0, 1)
    with pytest.raises(MissingChunk):
        output.read("latents")


def test_an_array_that_another_process_makes_is_seen(store: Store) -> None:
    reader, writer = _output(store), _output(store)
    with pytest.raises(MissingChunk):
        reader.read("latents")
    _filled(writer)
    np.testing.assert_array_equal(reader.read("latents"), _values("latents", 0, 7))


def test_several_arrays_are_written_and_read_together(store: Store) -> None:
    output = _output(store)
    for name, (shape, dtype) in SHAPES.items():
        output.ensure_array(name, shape, dtype)
    output.write_together(1, {name: _values(name, 1, 4) for name in SHAPES})
    found = _output(store).read_together(list(SHAPES), 1, 4)
    for name in SHAPES:
        np.testing.assert_array_equal(found[name], _values(name, 1, 4))
    with pytest.raises(MissingChunk) as caught:
        output.read_together(["latents", "ok"], 3, 5)
    assert (caught.value.array.rsplit("/", 1)[1], caught.value.frames) == ("latents", (4,))


def test_frames_are_done_when_they_are_marked(store: Store) -> None:
    output = _output(store)
    assert not output.done(5).any()
    assert output.marked() == []
    output.commit([0, 3, 4, 9])
    assert output.marked() == [0, 3, 4, 9]
    assert output.done(5).tolist() == [True, False, False, True, True]
    assert not store.unit("video", "a").output("fit", KEY).done(5).any()
    assert not store.unit("video", "b").output("track", KEY).done(5).any()
    output.uncommit([3, 2])
    assert output.marked() == [0, 4, 9]
    output.uncommit()
    assert output.marked() == []
    output.commit()
    assert output.marked() == [0]


def test_two_keys_share_nothing(store: Store) -> None:
    """Not even when both are at work at once on an array of one name."""
    one, two = _output(store), _output(store, OTHER)
    declared = Declared(("latents",), files=("clip.mp4",), notes=("info",))
    one.ensure_array("latents", (7, 4, 8), "float32")
    two.ensure_array("latents", (5, 6), "float64")  # of another shape, too
    one.write("latents", 0, _values("latents", 0, 7))
    one.put_bytes("clip.mp4", b"one")
    one.write_note("info", 1)
    one.commit(range(7))
    assert one.done(7, declared).all()
    assert not two.done(5, declared).any()
    assert two.marked() == []
    assert two.get_bytes("clip.mp4") is None
    assert two.read_note("info") is None
    with pytest.raises(MissingChunk):
        two.read("latents")
    two.write("latents", 0, np.ones((5, 6)))
    two.commit(range(5))
    two.uncommit([3])
    two.drop_array("latents")
    two.drop()
    np.testing.assert_array_equal(_output(store).read("latents"), _values("latents", 0, 7))
    assert one.done(7, declared).all()
    assert one.get_bytes("clip.mp4") == b"one"


def test_a_frame_costs_its_objects_and_its_marker_alone(tmp_path: Path) -> None:
    """No listing, no deletion, nothing read, however many frames there are."""
    for url in (str(tmp_path), f"memory://{tmp_path.name}"):
        files = WatchedFiles(url)
        output = Output(files, "video/a", "track", KEY)
        output.ensure_array("latents", (40, 4, 8), "float32")
        output.ensure_array("ok", (40,), "bool")
        for frame in range(40):
            files.seen.clear()
            values = {"latents": np.ones((1, 4, 8), np.float32), "ok": np.ones(1, np.bool_)}
            output.write_together(frame, values)
            output.commit([frame])
            assert [(seen.what, seen.name.removeprefix("video/a/track.00aa/")) for seen in files.seen] == [
                ("put", f"latents/c.{frame}.0.0"),
                ("put", f"ok/c.{frame}"),
                ("put", f"done/{frame:08d}"),
            ]
        files.seen.clear()
        assert output.done(40, Declared(("latents", "ok"))).all()
        assert [seen.what for seen in files.seen] == ["sizes"]  # one listing tells all


def test_done_looks_for_all_that_is_declared(store: Store) -> None:
    output = _filled(_output(store))
    output.commit([7, 8])  # markers without data
    assert output.done(9).all()
    assert output.done(9, LATENTS).tolist() == [True] * 7 + [False] * 2
    assert not output.done(9, Declared(("latents", "frames"))).any()
    assert output.done(3, LATENTS).all()


@pytest.mark.parametrize("lost", ["model", "clip.mp4", "info", "labels", "nothing"])
def test_a_stage_that_lost_a_file_a_note_or_a_whole_array_is_not_done(store: Store, lost: str) -> None:
    output = _filled(_output(store))
    output.write_whole({"model": np.arange(30.0).reshape(3, 10), "labels": np.arange(11)})
    output.put_bytes("clip.mp4", b"x")
    output.write_note("info", {"rate": 25})
    output.write_note("labels.more", 1)
    declared = Declared(("latents",), ("model", "labels"), ("clip.mp4",), ("info", "labels.more"))
    assert declared.arrays == ("latents", "model", "labels")
    assert output.done(7, declared).all()
    contents = output.contents()
    assert contents.done == frozenset(range(7))
    assert contents.described == {"latents", "model", "labels"}
    assert contents.chunks == {"latents": frozenset(range(7)), "model": {0}, "labels": {0}}
    assert contents.files == {"clip.mp4": {hashlib.sha256(b"x").hexdigest()[:32]}}
    assert contents.notes == {"info", "labels.more"}
    assert contents.objects == 7 + (1 + 7) + 2 * 2 + 1 + 2
    if lost == "model":
        output._files.delete([f"{output.path}/model/c.0.0"])
    elif lost == "labels":
        output._files.delete([f"{output.path}/labels/zarr.json"])
    elif lost == "clip.mp4":
        output.drop_file(lost)
    elif lost == "info":
        output.drop_note(lost)
    assert output.done(7, declared).all() == (lost == "nothing")
    assert output.done(7, declared).any() == (lost == "nothing")
    assert output.done(7, LATENTS).all()


def test_whole_arrays_are_one_object_of_any_length(store: Store) -> None:
    output = _output(store)
    values: dict[str, np.ndarray] = {
        "model": np.random.default_rng(0).normal(size=(1000, 50)),
        "one": np.ones((1, 3), np.float32),
        "flags": np.array([True, False]),
        "picture": np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8),
    }
    output.write_whole(values)
    again = _output(store)
    for name, value in values.items():
        found = again.read(name)
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)
        info = again.array_info(name)
        assert info is not None
        assert (info.rows, info.chunks) == (len(value), 1)
    np.testing.assert_array_equal(again.read("model", 10, 12), values["model"][10:12])
    assert output.contents().objects == 2 * len(values)
    output.write_whole({"model": values["model"] + 1})
    np.testing.assert_array_equal(again.read("model"), values["model"] + 1)


def test_part_of_a_whole_array_cannot_be_written(store: Store) -> None:
    """The rest of its one object would become zeros."""
    output = _output(store)
    output.write_whole({"model": np.ones((10, 5))})
    for start, values in ((0, np.zeros((1, 5))), (9, np.zeros((1, 5)))):
        with pytest.raises(ValueError, match="is one object"):
            output.write("model", start, values)
    with pytest.raises(ValueError, match="10 per chunk"):
        output.ensure_array("model", (10, 5), "float64")
    assert output.read("model").all()


def test_an_array_of_another_shape_under_the_same_key_is_refused(store: Store) -> None:
    output = _filled(_output(store))
    output.ensure_array("latents", (7, 4, 8), "float32")  # of the same: nothing is lost
    for shape, dtype in (((5, 6), "float32"), ((7, 4, 8), "float64")):
        with pytest.raises(ValueError, match=r"Raise the version of the stage, or delete the folder"):
            output.ensure_array("latents", shape, dtype)
    with pytest.raises(ValueError, match="7 per chunk"):
        output.write_whole({"latents": _values("latents", 0, 7)})
    np.testing.assert_array_equal(_output(store).read("latents"), _values("latents", 0, 7))


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        output = _output(Store(tmp_path / folder))
        for name in SHAPES:
            _filled(output, name)
        output.write_whole({"model": np.arange(6.0).reshape(3, 2)})
        output.put_bytes("clip.mp4", b"x")
        output.pack(Declared(("frames", "ok")))
    first, second = (
        {p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*") if p.is_file()}
        for f in ("one", "two")
    )
    assert first == second


def test_plain_zarr_opens_an_output(tmp_path: Path) -> None:
    output = _output(Store(tmp_path))
    output.describe({"stage": "track", "settings": {"steps": 3}})
    for name in ("frames", "latents"):
        _filled(output, name)
    output.write_whole({"model": np.arange(6.0).reshape(3, 2)})
    group = zarr.open_group(str(tmp_path / "video" / "a" / "track.00aa"), mode="r")
    frames, latents, model = group["frames"], group["latents"], group["model"]
    assert isinstance(frames, zarr.Array)
    assert isinstance(latents, zarr.Array)
    assert isinstance(model, zarr.Array)
    np.testing.assert_array_equal(frames[:], _values("frames", 0, 7))
    np.testing.assert_array_equal(model[:], np.arange(6.0).reshape(3, 2))
    assert frames.chunks == (1, 12, 9, 3)
    assert [type(codec).__name__ for codec in latents.compressors] == ["Crc32cCodec"]
    assert group.attrs["recipe"] == {"stage": "track", "settings": {"steps": 3}}


def test_values_that_do_not_fit_are_refused(store: Store) -> None:
    output = _output(store)
    with pytest.raises(ValueError, match="call ensure_array first"):
        output.write("latents", 0, _values("latents", 0, 1))
    output.ensure_array("latents", (7, 4, 8), "float32")
    cases: list[tuple[int, np.ndarray, str]] = [
        (0, np.zeros((1, 4, 8)), "float64"),
        (0, np.zeros((1, 4, 9), dtype=np.float32), "holds frames"),
        (6, np.zeros((2, 4, 8), dtype=np.float32), "frames 0 to 6"),
        (-1, np.zeros((1, 4, 8), dtype=np.float32), "frames 0 to 6"),
    ]
    for start, values, reason in cases:
        with pytest.raises(ValueError, match=reason):
            output.write("latents", start, values)
    with pytest.raises(ValueError, match="frames 0 to 6"):
        output.read("latents", 3, 8)
    with pytest.raises(ValueError, match="at least 1"):
        output.ensure_array("x", (0, 4), "uint8")
    for name in ("files", "notes", "done", "zarr.json"):
        with pytest.raises(ValueError, match="uses that name itself"):
            output.ensure_array(name, (3, 4), "uint8")
    assert len(output.read("latents", 3, 3)) == 0


def test_names_and_urls_are_checked(store: Store) -> None:
    for name in ("", "..", "a/b", ".hidden", "a b", "x" * 300, "ü", "x.partial"):
        with pytest.raises(InputError, match="cannot name"):
            store.unit("video", name)
        with pytest.raises(InputError, match="cannot name"):
            store.unit("video", "a").output(name, KEY)
        with pytest.raises(InputError, match="cannot name"):
            _output(store).ensure_array(name, (3,), "uint8")
        with pytest.raises(InputError, match="cannot name"):
            _output(store).read(name)
        with pytest.raises(InputError, match="cannot name"):
            _output(store).put_bytes(name, b"")
        with pytest.raises(InputError, match="cannot name"):
            _output(store).write_note(name, 1)
    for key in ("", "a/b", "../00", "XY"):
        with pytest.raises(ValueError, match="hexadecimal"):
            _output(store, key)
    with pytest.raises(InputError, match="kind"):
        store.unit("clip", "a")  # type: ignore[arg-type]  # what it must refuse
    with pytest.raises(InputError, match="no URL of a kind that is read"):
        Store("nonsense://x")


@pytest.mark.parametrize(
    "name", ["clip.mp4", "check", "a.tar.gz", "end.", f"x.{'0' * 32}", f"y.{'a' * 32}.bin", "n" * 190]
)
def test_files_come_back(store: Store, name: str) -> None:
    output = _output(store)
    assert output.get_bytes(name) is None
    assert output.file_url(name) is None
    output.put_bytes("other.mp4", b"other")
    for value in (b"first", b"", bytes(range(256)) * 1000, b"first"):
        output.put_bytes(name, value)
        assert _output(store).get_bytes(name) == value
        assert output.contents().files == {
            name: {hashlib.sha256(value).hexdigest()[:32]},
            "other.mp4": {hashlib.sha256(b"other").hexdigest()[:32]},
        }
    output.drop_file(name)
    output.drop_file(name)
    assert output.get_bytes(name) is None
    assert output.get_bytes("other.mp4") == b"other"


def test_a_files_place_is_told(store: Store) -> None:
    output = _output(store)
    output.put_bytes("clip.mp4", b"x")
    digest = hashlib.sha256(b"x").hexdigest()[:32]
    url = output.file_url("clip.mp4")
    assert url is not None
    assert url.endswith(f"/video/a/track.00aa/files/clip.{digest}.mp4")
    if "memory" not in store.url:
        assert Path(url).read_bytes() == b"x"


def test_notes_come_back(store: Store) -> None:
    output = _output(store)
    assert output.read_note("info") is None
    output.write_note("info", {"rate": "30000/1001", "values": [1, 2.5, None]})
    assert output.read_note("info") == {"rate": "30000/1001", "values": [1, 2.5, None]}
    with pytest.raises(InputError, match="plain"):
        output.write_note("info", {"bad": float("nan")})
    output.drop_note("info")
    output.drop_note("info")
    assert output.read_note("info") is None


def test_failures_are_a_table(store: Store) -> None:
    unit, other = store.unit("video", "a"), store.unit("video", "b")
    columns = ["stage", "frame", "cls", "message", "attempt", "host", "time_utc", "key"]
    assert list(unit.failures().columns) == columns
    assert store.failures("video").empty
    early = datetime(2026, 1, 1, tzinfo=UTC)
    unit.record_failures([Failure("track", 3, "input", "no face"), Failure("track", 4, "input", "no face")])
    unit.record_failures([Failure("invert", None, "resource", "out of memory", 2, "host-1", early)])
    unit.record_failures([])
    other.record_failures([Failure("track", 0, "poison", "killed its worker twice")])
    table = unit.failures()
    assert table["stage"].tolist() == ["invert", "track", "track"]
    assert table["frame"].isna().tolist() == [True, False, False]
    assert table["frame"].dropna().tolist() == [3, 4]
    assert table.loc[0, ["cls", "attempt", "host", "time_utc"]].tolist() == ["resource", 2, "host-1", early]
    whole = store.failures("video")
    assert list(whole.columns) == ["unit", *columns]
    assert sorted(whole["unit"]) == ["a", "a", "a", "b"]
    assert list(whole.dtypes) == list(store.failures("portrait").dtypes)
    with pytest.raises(InputError, match="class"):
        Failure("track", 0, "odd", "x")  # type: ignore[arg-type]  # what it must refuse


def test_failures_of_tables_without_keys_are_read(tmp_path: Path) -> None:
    unit = Store(tmp_path).unit("video", "a")
    unit.record_failures([Failure("track", 3, "input", "no face")])
    (table,) = tmp_path.rglob("*.parquet")
    pd.read_parquet(table).drop(columns="key").to_parquet(table)
    unit.record_failures([Failure("track", 4, "input", "no face", key=KEY)])
    assert unit.failures()["key"].tolist() == ["", KEY]


def test_units_and_their_outputs_are_listed(store: Store) -> None:
    assert store.units("video") == []
    assert store.unit("video", "a").outputs() == []
    store.unit("video", "b").output("track", KEY).commit()
    unit = store.unit("video", "a")
    for stage, key in (("track", OTHER), ("track", KEY), ("a.b", KEY)):
        unit.output(stage, key).commit()
    unit.write_label("My clip")
    unit.record_failures([Failure("track", 3, "input", "no face")])
    assert store.units("video") == ["a", "b"]
    assert store.units("portrait") == []
    assert [(output.stage, output.key) for output in unit.outputs()] == [
        ("a.b", KEY),
        ("track", KEY),
        ("track", OTHER),
    ]


def test_a_unit_has_a_label(store: Store) -> None:
    unit = store.unit("video", "a")
    assert unit.read_label() == "a"
    unit.write_label("Mein Film ü.mp4")
    assert unit.read_label() == "Mein Film ü.mp4"
    unit._files.put({"video/a/label.json": b"[5"})
    assert unit.read_label() == "a"


def test_what_a_key_was_made_of_is_kept(store: Store) -> None:
    output = _output(store)
    assert output.recipe() is None
    output.describe({"steps": 1})
    assert _output(store).recipe() == {"steps": 1}
    assert _output(store, OTHER).recipe() is None
    for damaged in (b"", b"5", b"{}", b'{"attributes": 1}', b'{"attributes": {"recipe": []}}'):
        output._files.put({f"{output.path}/zarr.json": damaged})
        assert output.recipe() is None


def test_sizes_add_up(store: Store, tmp_path: Path) -> None:
    output = _filled(_output(store))
    before = output.contents()
    output.put_bytes("clip.mp4", b"x" * 1000)
    _filled(store.unit("video", "ab").output("track", KEY))  # not part of the unit "a"
    _filled(_output(store, KEY + "0"))  # not part of the output either
    contents = output.contents()
    assert (contents.bytes, contents.objects) == (before.bytes + 1000, before.objects + 1)
    assert contents.bytes > 7 * 4 * 8 * 4 + 1000
    if "memory" not in store.url:
        paths = [path for path in (tmp_path / "s" / output.path).rglob("*") if path.is_file()]
        assert contents.bytes == sum(path.stat().st_size for path in paths)


def test_dropping_leaves_nothing(store: Store) -> None:
    output = _filled(_filled(_output(store)), "frames")
    output.put_bytes("clip.mp4", b"x")
    output.drop_array("latents")
    output.drop_array("never")
    output.drop_file("clip.mp4")
    contents = output.contents()
    assert (set(contents.described), dict(contents.files)) == ({"frames"}, {})
    assert output.array_info("latents") is None
    with pytest.raises(MissingChunk):
        output.read("latents", 0, 7)
    assert not output.done(7, LATENTS).any()
    assert output.done(7, Declared(("frames",))).all()
    output.drop()
    assert output.contents().objects == 0
    assert store.unit("video", "a").outputs() == []


def test_digest_is_of_the_content_alone(store: Store, tmp_path: Path) -> None:
    names, files = ["frames", "latents", "ok", "model"], ["clip.mp4"]
    one, two = _output(store), Store(tmp_path / "two").unit("reenactment", "b").output("x", OTHER)
    for output in (one, two):
        for name in names[:3]:
            _filled(output, name)
        output.write_whole({"model": np.arange(40.0).reshape(20, 2)})
        output.put_bytes("clip.mp4", b"x")
    two.write_note("info", 1)
    digest = one.digest(names, files)
    assert digest == two.digest(names[::-1], files)
    two.pack(Declared(("frames", "latents")))
    assert digest == two.digest(names, files)
    assert digest != one.digest(names)
    seen = {digest, one.digest([*names, "mask"], files), one.digest(names, [*files, "other.mp4"])}
    two.write("latents", 3, _values("latents", 0, 1))
    seen.add(two.digest(names, files))
    (tmp_path / "two/reenactment/b/x.11bb/latents/c.3.0.0").unlink()
    seen.add(two.digest(names, files))
    (tmp_path / "two/reenactment/b/x.11bb/model/c.0.0").unlink()
    seen.add(two.digest(names, files))
    two.put_bytes("clip.mp4", b"y")
    seen.add(two.digest(names, files))
    assert len(seen) == 7
