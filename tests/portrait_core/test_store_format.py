"""The store as a whole: its format, its records, and what others leave in its folders."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from portrait_core.errors import InputError
from portrait_core.store import (
    Declared,
    Failure,
    Lease,
    Store,
    Unit,
    files,
    read_holder,
    repair_unit,
    verify_unit,
)
from portrait_core.store.store import RecordKind, record_name

KEY = "00aa"


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(f"{request.param}://{tmp_path}/s")


def _put(store: Store, name: str, value: bytes = b"") -> None:
    store._files.put({name: value})


# The format


def test_an_empty_folder_is_a_store_and_its_format_is_noted(any_store: Store) -> None:
    any_store.check_format()
    assert any_store._files.list("") == []
    any_store.check_format(write=True)
    assert any_store._files.get_one("store.json") == b'{"format":2}'
    any_store.unit("video", "records").output("records", KEY).commit()
    any_store.check_format()
    any_store.check_format(write=True)


def test_a_store_of_this_version_without_its_note_is_read(any_store: Store) -> None:
    any_store.unit("video", "a").output("track", KEY).commit()
    any_store.unit("video", "a").record_failures([Failure("track", 1, "input", "no face")])
    any_store.check_format()
    _put(any_store, "store.json", b'{"for')
    any_store.check_format(write=True)
    assert any_store._files.get_one("store.json") == b'{"format":2}'


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize("kind", ["reenactment", "video", "flow"])
def test_a_store_of_the_first_version_is_refused_by_one_sentence(
    any_store: Store, kind: str, write: bool
) -> None:
    for odd in (".DS_Store", "lost+found/x", "Thumbs db"):
        _put(any_store, f"{kind}/{odd}")
    _put(any_store, f"{kind}/x/records/commits/render/00000000.{KEY}")
    with pytest.raises(InputError) as caught:
        any_store.check_format(write)
    said = str(caught.value)
    assert said.startswith(f"the store {any_store.url} was written by another version of this program")
    assert "format 1, this one reads 2" in said
    assert said.endswith("give another --store, or delete this one")
    assert any_store._files.get_one("store.json") is None


@pytest.mark.parametrize("said", ["3", '"2"', "1"])
def test_a_format_of_another_version_is_refused(any_store: Store, said: str) -> None:
    _put(any_store, "store.json", f'{{"format": {said}}}'.encode())
    with pytest.raises(InputError, match="another version of this program"):
        any_store.check_format(write=True)
    assert any_store._files.get_one("store.json") == f'{{"format": {said}}}'.encode()


# Records


@pytest.mark.parametrize("kind", get_args(RecordKind))
def test_records_come_back(any_store: Store, kind: RecordKind) -> None:
    assert any_store.record_names(kind) == []
    assert any_store.read_records(kind) == {}
    assert any_store.read_record(kind, "a") is None
    any_store.write_record(kind, "b", {"x": [1, None]})
    any_store.write_record(kind, "a.1", 2)
    any_store.write_record(kind, "b", {"x": 3})
    assert any_store.read_record(kind, "b") == {"x": 3}
    assert any_store.record_names(kind) == ["a.1", "b"]
    assert any_store.read_records(kind) == {"a.1": 2, "b": {"x": 3}}
    assert any_store.read_records(kind, ["b", "c"]) == {"b": {"x": 3}}
    for name in ("../jobs/a", "", "a/b"):
        with pytest.raises(InputError, match="cannot name a record"):
            any_store.write_record(kind, name, 1)
        with pytest.raises(InputError, match="cannot name a record"):
            any_store.read_record(kind, name)


def test_many_records_are_read_some_at_a_time(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_TOGETHER", 7)
    names = [f"r{number:03d}" for number in range(30)]
    for name in names:
        any_store.write_record("states", name, name)
    assert any_store.read_records("states") == {name: name for name in names}
    assert list(any_store.read_records("states", names[5:15])) == names[5:15]


DEEP = b"[" * 100_000


@pytest.mark.parametrize("damaged", [b"", b'{"a":', b"\xff\xfe", b"{]", DEEP, b"1" * 5000], ids=range(6))
def test_damaged_records_are_left_out(any_store: Store, damaged: bytes) -> None:
    any_store.write_record("jobs", "sound", 1)
    _put(any_store, "jobs/torn.json", damaged)
    assert any_store.read_record("jobs", "torn") is None
    assert any_store.read_records("jobs") == {"sound": 1}
    assert any_store.record_names("jobs") == ["sound", "torn"]


def test_a_records_name_is_made_of_any_text() -> None:
    texts = ["s3://b/a.mp4?x=1", "", "ü" * 1000, "../.."]
    names = {record_name(text) for text in texts}
    assert len(names) == len(texts)
    assert all(len(name) == 32 and name.isalnum() for name in names)
    assert record_name("s3://b/a.mp4") == record_name("s3://b/a.mp4")


# What others leave in the folders

ODD_FOLDERS = ["", "jobs", "states", "inputs", "video", "video/a", "video/a/failures", "video/a/track.00aa"]
ODD_FOLDERS += [f"video/a/track.00aa/{name}" for name in ("latents", "latents/c", "files", "notes", "done")]
ODD_NAMES = [".DS_Store", "._latents", "lost+found/x", "Thumbs db", "a b.00aa/x", "ü.json", "x.00aa~", "~"]


def _filled(store: Store) -> Unit:
    unit = store.unit("video", "a")
    output = unit.output("track", KEY)
    output.ensure_array("latents", (3, 4), "float32")
    output.write("latents", 0, np.ones((3, 4), np.float32))
    output.put_bytes("clip.mp4", b"x")
    output.write_note("info", 1)
    output.describe({})
    output.commit(range(3))
    unit.record_failures([Failure("track", 1, "input", "no face")])
    unit.write_label("clip")
    for kind in get_args(RecordKind):
        store.write_record(kind, "sound", 1)
    return unit


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("odd", ODD_NAMES)
def test_odd_names_do_no_harm(any_store: Store, odd: str, packs: bool) -> None:
    unit = _filled(any_store)
    declared = Declared(("latents",), files=("clip.mp4",), notes=("info",))
    for folder in ODD_FOLDERS:
        if folder != "video/a/track.00aa/latents/c" or packs:
            _put(any_store, f"{folder}/{odd}".removeprefix("/"), b"\0odd")
    output = unit.output("track", KEY)
    if packs:
        output.pack(declared)
    assert any_store.units("video") == ["a"]
    assert [found.path for found in unit.outputs() if found.stage == "track"] == [output.path]
    assert all(found.contents().done == set() for found in unit.outputs() if found.stage != "track")
    for kind in get_args(RecordKind):
        assert any_store.record_names(kind) == ["sound"]
        assert any_store.read_records(kind) == {"sound": 1}
    assert len(unit.failures()) == len(any_store.failures("video")) == 1
    assert output.marked() == [0, 1, 2]
    contents = output.contents()
    assert contents.files.keys() == {"clip.mp4"}
    assert contents.packed == ({"latents"} if packs else set())
    assert output.done(3, declared).all()
    assert output.read("latents").all()
    assert output.get_bytes("clip.mp4") == b"x"
    report = verify_unit(unit, {("track", KEY): declared})
    assert report.damaged == []
    assert repair_unit(unit, report) == []
    assert {found.kind for found in report.findings} <= {"unreadable"}
    any_store.check_format(write=True)
    output.drop_array("latents")
    output.drop()
    assert unit.output("track", KEY).contents().objects == 0


def test_odd_leases_and_labels_do_no_harm(any_store: Store) -> None:
    unit = _filled(any_store)
    for value in (b"5", b"[]", b'{"pid": Infinity}', DEEP, b"null", b'{"label": null}'):
        _put(any_store, "video/a/lease.json", value)
        _put(any_store, "video/a/label.json", value)
        assert read_holder(unit) is None
        assert isinstance(unit.read_label(), str)
        assert verify_unit(unit, {}).damaged == []
    said = b'{"owner":"a","host":"b","pid":1e999,"process_started":0,"stage":"","beat":0,"time_utc":"x"}'
    _put(any_store, "video/a/lease.json", said)
    assert read_holder(unit) is None
    assert Lease(unit).acquire(stop=lambda: True)


@pytest.mark.parametrize("name", ["00000000-99999999999", "0" * 40, "00000005-00000001", "-00000001"])
def test_a_strangers_marker_takes_no_memory(any_store: Store, name: str) -> None:
    unit = _filled(any_store)
    output = unit.output("track", KEY)
    _put(any_store, f"{output.path}/done/{name}")
    assert output.marked() == [0, 1, 2]
    assert output.contents().done == {0, 1, 2}
    assert output.done(3).all()
    found = verify_unit(unit, {("track", KEY): Declared(("latents",))}).findings
    assert [(each.kind, each.where) for each in found] == [("unreadable", f"track.00aa/done/{name}")]
