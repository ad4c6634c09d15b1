"""The store's promises, on a disk and in memory."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from portrait_core.errors import InputError, MissingChunk
from portrait_core.store import Failure, Store, Unit

KEY, OTHER = "00aa", "11bb"
SHAPES = {
    "frames": ((7, 12, 9, 3), "uint8"),
    "mask": ((7, 12, 9), "uint8"),
    "latents": ((7, 4, 8), "float32"),
    "ok": ((7,), "bool"),
    "shape": ((7, 5), "float64"),
}


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


def _filled(unit: Unit, name: str = "latents", key: str = KEY) -> Unit:
    shape, dtype = SHAPES[name]
    unit.ensure_array(name, shape, dtype, key)
    with unit.overwriting("stage", range(7), key):
        unit.write(name, 0, _values(name, 0, 7))
    return unit


@pytest.mark.parametrize("name", SHAPES)
def test_arrays_come_back(store: Store, name: str) -> None:
    shape, dtype = SHAPES[name]
    unit = store.unit("video", "a")
    unit.ensure_array(name, shape, dtype, KEY)
    unit.write(name, 2, _values(name, 2, 5))
    unit.write(name, 5, _values(name, 5, 6))
    again = pickle.loads(pickle.dumps(store)).unit("video", "a")  # as another process would see it
    values = again.read(name, 2, 6)
    assert values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(values, _values(name, 2, 6))
    info = again.array_info(name)
    assert info is not None
    assert (info.shape, info.dtype) == (shape, np.dtype(dtype))


def test_frames_that_were_never_written_are_missing_not_black(store: Store) -> None:
    unit = store.unit("video", "a")
    unit.ensure_array("frames", (7, 4, 4, 3), "uint8", KEY)
    unit.write("frames", 2, np.zeros((2, 4, 4, 3), dtype=np.uint8))
    assert not unit.read("frames", 2, 4).any()  # black frames that were written are there
    with pytest.raises(MissingChunk) as caught:
        unit.read("frames", 0, 6)
    assert caught.value.frames == (0, 1, 4, 5)
    assert pickle.loads(pickle.dumps(caught.value)).frames == (0, 1, 4, 5)
    with pytest.raises(MissingChunk) as caught:
        unit.read("latents", 0, 2)
    assert caught.value.frames == (0, 1)


def test_done_follows_key_and_frames(store: Store) -> None:
    unit = store.unit("reenactment", "a")
    assert not unit.done("invert", KEY, 5).any()
    unit.commit("invert", [0, 3, 4, 9], KEY)
    assert unit.done("invert", KEY, 5).tolist() == [True, False, False, True, True]
    assert not unit.done("invert", OTHER, 5).any()
    assert not unit.done("tune", KEY, 5).any()
    unit.uncommit("invert", [3, 2])
    assert unit.done("invert", KEY, 5).tolist() == [True, False, False, False, True]


def test_a_frame_is_done_under_one_key_at_a_time(store: Store) -> None:
    unit = _filled(store.unit("video", "a"))
    with unit.overwriting("stage", [2, 3], OTHER):
        assert unit.done("stage", KEY, 7).tolist() == [True, True, False, False, True, True, True]
        unit.write("latents", 2, _values("latents", 0, 2))
    assert unit.done("stage", OTHER, 7).tolist() == [False, False, True, True, False, False, False]
    assert unit.done("stage", KEY, 7).sum() == 5
    unit.commit("stage", [6], OTHER)
    assert unit.done("stage", KEY, 7).sum() == 4


def test_a_failed_overwrite_leaves_frames_not_done(store: Store) -> None:
    unit = _filled(store.unit("video", "a"))
    wrong = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="holds frames"), unit.overwriting("stage", [4], KEY):
        unit.write("latents", 4, wrong)
    assert unit.done("stage", KEY, 7).tolist() == [True, True, True, True, False, True, True]


def test_done_can_look_for_the_data(store: Store) -> None:
    unit = _filled(store.unit("video", "a"))
    unit.commit("stage", [7, 8], KEY)  # markers without data
    assert unit.done("stage", KEY, 9).all()
    assert unit.done("stage", KEY, 9, arrays=["latents"]).tolist() == [True] * 7 + [False] * 2
    assert not unit.done("stage", KEY, 9, arrays=["latents", "frames"]).any()


def test_replacing_an_array_undoes_what_was_committed_into_it(store: Store) -> None:
    unit = _filled(store.unit("video", "a"))
    unit.ensure_array("latents", (7, 4, 8), "float32", OTHER)  # same shape, another key: nothing is lost
    assert unit.done("stage", KEY, 7).all()
    np.testing.assert_array_equal(unit.read("latents", 0, 7), _values("latents", 0, 7))
    unit.commit("unrelated", [0], "22cc")
    unit.ensure_array("latents", (5, 6), "float32", "33dd")
    assert not unit.done("stage", KEY, 7).any()
    assert unit.done("unrelated", "22cc", 1).all()
    with pytest.raises(MissingChunk):  # the old chunks are of another shape
        unit.read("latents", 0, 5)
    unit.write("latents", 0, np.ones((5, 6), dtype=np.float32))
    assert unit.read("latents", 0, 5).sum() == 30


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for name in SHAPES:
            _filled(Store(tmp_path / folder).unit("video", "a"), name)
    first, second = (
        {p.relative_to(tmp_path / f): p.read_bytes() for p in (tmp_path / f).rglob("*") if p.is_file()}
        for f in ("one", "two")
    )
    assert first == second


def test_plain_zarr_opens_a_unit(tmp_path: Path) -> None:
    for name in ("frames", "latents"):
        _filled(Store(tmp_path).unit("video", "a"), name)
    group = zarr.open_group(str(tmp_path / "video" / "a"), mode="r")
    assert isinstance(group["frames"], zarr.Array)
    assert isinstance(group["latents"], zarr.Array)
    np.testing.assert_array_equal(group["frames"][:], _values("frames", 0, 7))
    assert group["frames"].chunks == (1, 12, 9, 3)
    codecs = [type(codec).__name__ for codec in group["latents"].compressors]
    assert codecs == ["Crc32cCodec"]


def test_values_that_do_not_fit_are_refused(store: Store) -> None:
    unit = store.unit("video", "a")
    with pytest.raises(ValueError, match="call ensure_array first"):
        unit.write("latents", 0, _values("latents", 0, 1))
    unit.ensure_array("latents", (7, 4, 8), "float32", KEY)
    cases: list[tuple[int, np.ndarray, str]] = [
        (0, np.zeros((1, 4, 8)), "float64"),
        (0, np.zeros((1, 4, 9), dtype=np.float32), "holds frames"),
        (6, np.zeros((2, 4, 8), dtype=np.float32), "frames 0 to 6"),
        (-1, np.zeros((1, 4, 8), dtype=np.float32), "frames 0 to 6"),
    ]
    for start, values, reason in cases:
        with pytest.raises(ValueError, match=reason):
            unit.write("latents", start, values)
    with pytest.raises(ValueError, match="frames 0 to 6"):
        unit.read("latents", 3, 8)
    with pytest.raises(ValueError, match="at least 1"):
        unit.ensure_array("x", (0, 4), "uint8", KEY)
    with pytest.raises(ValueError, match="hexadecimal"):
        unit.commit("stage", [0], "a/b")


def test_names_and_urls_are_checked(store: Store) -> None:
    for name in ("", "..", "a/b", ".hidden", "a b", "x" * 300, "ü"):
        with pytest.raises(InputError, match="cannot name"):
            store.unit("video", name)
    with pytest.raises(InputError, match="kind"):
        store.unit("clip", "a")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a store's URL"):
        Store("nonsense://x")
    with pytest.raises(InputError, match="cannot name"):
        store.unit("video", "a").put_bytes("../x", b"")


def test_files_and_metadata(store: Store) -> None:
    unit = store.unit("reenactment", "a")
    assert unit.get_bytes("clip.mp4") is None
    assert unit.read_meta("info") is None
    for value in (b"first", b"", bytes(range(256)) * 1000):
        unit.put_bytes("clip.mp4", value)
        assert unit.get_bytes("clip.mp4") == value
    unit.write_meta("info", {"rate": "30000/1001", "values": [1, 2.5, None]})
    assert unit.read_meta("info") == {"rate": "30000/1001", "values": [1, 2.5, None]}
    with pytest.raises(InputError, match="plain"):
        unit.write_meta("info", {"bad": float("nan")})
    assert unit.file_url("clip.mp4").endswith("/reenactment/a/files/clip.mp4")


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
        Failure("track", 0, "odd", "x")  # type: ignore[arg-type]


def test_units_are_listed(store: Store) -> None:
    assert store.units("video") == []
    for name in ("b", "a"):
        store.unit("video", name).write_meta("info", 1)
    assert store.units("video") == ["a", "b"]
    assert store.units("portrait") == []


def test_markers_and_stages_are_listed(store: Store) -> None:
    unit = store.unit("video", "a")
    assert unit.stages() == []
    unit.commit("track", [2, 0], KEY)
    unit.commit("track", [1], OTHER)
    unit.commit("encode", [0], KEY)
    unit.uncommit("encode", [0])
    assert unit.markers("track") == [(0, KEY), (1, OTHER), (2, KEY)]
    assert unit.stages() == ["track"]


def test_recipes_are_written_once(store: Store) -> None:
    unit = store.unit("video", "a")
    assert unit.recipes("track") == {}
    unit.write_recipe("track", KEY, {"steps": 1})
    unit.write_recipe("track", KEY, {"steps": 2})
    unit.write_recipe("track", OTHER, {"steps": 3})
    unit.write_recipe("track.00", "22cc", {"steps": 4})
    assert unit.recipes("track") == {KEY: {"steps": 1}, OTHER: {"steps": 3}}
    assert unit.recipes("track.00") == {"22cc": {"steps": 4}}
    with pytest.raises(ValueError, match="hexadecimal"):
        unit.write_recipe("track", "a.b", {})


def test_sizes_add_up(store: Store, tmp_path: Path) -> None:
    unit = _filled(store.unit("video", "a"))
    assert store.unit("video", "b").sizes() == {}
    unit.put_bytes("clip.mp4", b"x" * 1000)
    _filled(store.unit("video", "ab"))  # not part of the unit "a"
    sizes = unit.sizes()
    assert sizes.keys() == {"latents", "files/clip.mp4", "records"}
    assert sizes["files/clip.mp4"] == 1000
    assert sizes["latents"] > 7 * 4 * 8 * 4
    if "file:" in store.url:
        files = [path for path in (tmp_path / "s" / "video" / "a").rglob("*") if path.is_file()]
        assert sum(sizes.values()) == sum(path.stat().st_size for path in files)


def test_dropping_leaves_nothing(store: Store) -> None:
    unit = _filled(_filled(store.unit("video", "a")), "frames")
    unit.put_bytes("clip.mp4", b"x")
    unit.drop_array("latents")
    unit.drop_array("never")
    unit.drop_file("clip.mp4")
    unit.drop_file("never")
    assert unit.sizes().keys() == {"frames", "records"}
    assert unit.array_info("latents") is None
    assert unit.get_bytes("clip.mp4") is None
    with pytest.raises(MissingChunk):
        unit.read("latents", 0, 7)
    assert not unit.done("stage", KEY, 7, arrays=["latents"]).any()
    assert unit.done("stage", KEY, 7, arrays=["frames"]).all()


def test_digest_is_of_the_content_alone(store: Store, tmp_path: Path) -> None:
    names, files = ["frames", "latents", "ok"], ["clip.mp4"]
    one, two = store.unit("video", "a"), Store(tmp_path / "two").unit("reenactment", "b")
    for unit, key in ((one, KEY), (two, OTHER)):
        for name in names:
            _filled(unit, name, key)
        unit.put_bytes("clip.mp4", b"x")
    two.put_bytes("clip.mp4", b"x")
    digest = one.digest(names, files)
    assert digest == two.digest(names[::-1], files)
    assert digest != one.digest(names)
    seen = {digest, one.digest([*names, "mask"], files), one.digest(names, [*files, "other.mp4"])}
    two.write("latents", 3, _values("latents", 0, 1))
    seen.add(two.digest(names, files))
    (tmp_path / "two" / "reenactment" / "b" / "latents" / "c.3.0.0").unlink()
    seen.add(two.digest(names, files))
    two.put_bytes("clip.mp4", b"y")
    seen.add(two.digest(names, files))
    assert len(seen) == 6


def test_failures_of_tables_without_keys_are_read(tmp_path: Path) -> None:
    unit = Store(tmp_path).unit("video", "a")
    unit.record_failures([Failure("track", 3, "input", "no face")])
    (table,) = tmp_path.rglob("*.parquet")
    pd.read_parquet(table).drop(columns="key").to_parquet(table)
    unit.record_failures([Failure("track", 4, "input", "no face", key=KEY)])
    assert unit.failures()["key"].tolist() == ["", KEY]
