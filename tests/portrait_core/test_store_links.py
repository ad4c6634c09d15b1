"""A store that a stranger prepared: no link in it leads out, and what is no file is not read."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from portrait_core.errors import StoreError
from portrait_core.store import Store, Unit, local
from portrait_core.store.files import Files

KEY = "00aa"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of the store's."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("c.0.0", "secret", "old.partial"):
        (folder / name).write_bytes(b"mine")
        os.utime(folder / name, (0, 0))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def unit(store: Path) -> Unit:
    unit = Store(store).unit("video", "a")
    output = unit.output("fit", KEY)
    output.ensure_array("latents", (3, 4), "float32")
    output.write("latents", 0, np.ones((3, 4), np.float32))
    return unit


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _link_array(store: Path, outside: Path) -> Path:
    array = store / "video" / "a" / "fit.00aa" / "latents"
    for chunk in array.iterdir():
        chunk.unlink()
    array.rmdir()
    array.symlink_to(outside)
    for known in local._inside.values():
        known.clear()  # as a process finds it that did not write the array
    return array


DELETIONS: dict[str, Callable[[Store], object]] = {
    "drop": lambda store: store.unit("video", "a").output("fit", KEY).drop_array("latents"),
    "folder": lambda store: Files(store.url).delete_folder("video/a/fit.00aa/latents"),
    "folder above": lambda store: Files(store.url).delete_folder("video/a"),
    "file": lambda store: Files(store.url).delete(["video/a/fit.00aa/latents/secret"]),
    "sweep": lambda store: store.sweep(0.0),
}


@pytest.mark.parametrize("deletion", DELETIONS)
def test_what_a_linked_folder_leads_to_is_never_deleted(
    store: Path, unit: Unit, outside: Path, deletion: str
) -> None:
    link, before = _link_array(store, outside), _content(outside)
    if deletion == "sweep":
        assert DELETIONS[deletion](Store(store)) == 0
    else:
        with pytest.raises(StoreError, match=r"the link .*/a/fit.00aa/latents .* remove the link"):
            DELETIONS[deletion](Store(store))
    assert _content(outside) == before
    assert link.is_symlink()


def test_a_folder_with_a_link_in_it_loses_everything_else(store: Path, unit: Unit, outside: Path) -> None:
    (store / "video" / "a" / "fit.00aa" / "latents" / "deep").symlink_to(outside)
    before = _content(outside)
    with pytest.raises(StoreError, match=r"the link .*/latents/deep is not deleted"):
        Files(store).delete_folder("video/a/fit.00aa/latents")
    assert _content(outside) == before
    assert [path.name for path in (store / "video" / "a" / "fit.00aa" / "latents").iterdir()] == ["deep"]


def test_deleting_looks_at_a_folder_that_this_process_knows(store: Path, unit: Unit, outside: Path) -> None:
    files, before = Files(store), _content(outside)
    files.put({"video/a/known/secret": b"x"})
    (store / "video" / "a" / "known").rename(store / "video" / "a" / "moved")
    (store / "video" / "a" / "known").symlink_to(outside)
    with pytest.raises(StoreError, match="leads out"):
        files.delete(["video/a/known/secret"])
    assert _content(outside) == before


def test_a_link_is_not_deleted(store: Path, unit: Unit, outside: Path) -> None:
    link = store / "video" / "a" / "fit.00aa" / "latents" / "c.9.0"
    link.symlink_to(outside / "secret")
    with pytest.raises(StoreError, match=r"the link .*c\.9\.0 is not deleted"):
        Files(store).delete(["video/a/fit.00aa/latents/c.9.0"])
    assert link.is_symlink()


def test_nothing_is_read_or_written_through_a_link_that_leads_out(
    store: Path, unit: Unit, outside: Path
) -> None:
    _link_array(store, outside)
    (store / "video" / "a" / "escaped").symlink_to(outside / "secret")
    files, before = Files(store), _content(outside)
    for operation in (
        lambda: files.get_one("video/a/fit.00aa/latents/secret"),
        lambda: files.put({"video/a/fit.00aa/latents/new": b"x"}),
        lambda: files.put({"video/a/fit.00aa/latents/deeper/new": b"x"}),
        lambda: files.list("video/a/fit.00aa/latents"),
        lambda: files.sizes("video/a/fit.00aa/latents"),
        lambda: files.partials(0.0, "video/a/fit.00aa/latents"),
    ):
        with pytest.raises(StoreError, match=r"the link .*/a/fit.00aa/latents leads out"):
            operation()
    assert files.get_one("video/a/escaped") is None
    assert _content(outside) == before
    assert "fit.00aa/latents/secret" not in files.sizes("video/a")
    files.put({"video/a/escaped": b"new"})  # takes the link's place
    assert files.get_one("video/a/escaped") == b"new"
    assert _content(outside) == before


def test_a_name_with_dots_does_not_leave_the_store(store: Path, unit: Unit, outside: Path) -> None:
    with pytest.raises(StoreError, match="leads out of the store"):
        Files(store).get_one("video/../../outside/secret")


def test_links_that_stay_inside_are_not_followed_but_the_root_may_be_one(
    tmp_path: Path, store: Path, unit: Unit
) -> None:
    (tmp_path / "root").symlink_to(store)
    files = Files(tmp_path / "root")
    files.put({"video/a/files/one": b"1"})
    (store / "video" / "a" / "files" / "two").symlink_to("one")
    (store / "video" / "b").symlink_to("a")
    assert files.get(["video/a/files/one", "video/a/files/two"]) == {"video/a/files/one": b"1"}
    assert list(files.sizes("video/a/files")) == ["one"]
    for operation in (
        lambda: files.get_one("video/b/files/one"),
        lambda: files.put({"video/b/files/one": b"2"}),
        lambda: files.list("video/b/files"),
        lambda: files.delete(["video/b/files/one"]),
        lambda: files.delete_folder("video/b/files"),
    ):
        with pytest.raises(
            StoreError, match=r"the link .*/root/video/b is not followed: put what it leads to"
        ):
            operation()
    assert (store / "video" / "a" / "files" / "one").read_bytes() == b"1"


def test_a_folder_that_becomes_a_link_after_it_was_deleted_is_looked_at_again(
    store: Path, unit: Unit, outside: Path
) -> None:
    files = Files(store)
    files.delete_folder("video/a/fit.00aa/latents")
    (store / "video" / "a" / "fit.00aa" / "latents").symlink_to(outside)
    with pytest.raises(StoreError, match="leads out"):
        files.get_one("video/a/fit.00aa/latents/secret")


@pytest.mark.timeout(30)
def test_what_is_no_file_is_absent_and_not_waited_for(
    store: Path, unit: Unit, caplog: pytest.LogCaptureFixture
) -> None:
    notes = store / "video" / "a" / "fit.00aa" / "notes"
    notes.mkdir(parents=True)
    os.mkfifo(notes / "pipe.json")
    (notes / "folder.json").mkdir()
    (notes / "link.json").symlink_to("pipe.json")
    with contextlib.chdir(notes), socket.socket(socket.AF_UNIX) as server:  # its path has to be short
        server.bind("socket.json")
    for name in ("pipe", "folder", "link", "socket"):
        assert unit.output("fit", KEY).read_note(name) is None
        assert f"{name}.json is a {name}" in caplog.text
    assert unit.output("fit", KEY).contents().notes == set()


def test_clean_leaves_what_a_link_leads_to(store: Path, outside: Path, unit: Unit) -> None:
    """The command itself refuses a store whose folder of states leads out; nothing there is touched."""
    before = _content(outside)
    (store / "states").symlink_to(outside)
    ended = CliRunner().invoke(app, ["clean", str(store)])
    assert ended.exit_code == 1, ended.output
    assert "leads out of the store" in " ".join(ended.output.split())
    assert _content(outside) == before
