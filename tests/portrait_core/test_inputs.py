"""Files wherever they lie: looked for, copied once, copied again when changed, forgotten."""

from __future__ import annotations

import errno
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from portrait_core.errors import InputError
from portrait_core.inputs import copies
from portrait_core.inputs import sources as inputs
from portrait_core.inputs.sources import (
    CACHE_BYTES,
    delete_unused_copies,
    folder_of,
    in_threads,
    inspect_files,
    local_copy,
    local_path,
    read_bytes,
    resolve_place,
)
from portrait_core.settings import load_settings
from portrait_core.store import places, retries


class Elsewhere(LocalFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """``elsewhere:///folder/file``: another host, as far as anybody can tell; notes what is asked of it."""

    protocol = ("elsewhere",)
    log: ClassVar[Path]
    do: ClassVar[str] = ""

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, str):
            path = path.removeprefix("elsewhere://")
        return super()._strip_protocol(path)

    def _note(self, what: str) -> None:
        with self.log.open("a") as file:
            file.write(f"{what}\n")

    def ls(self, path: Any, detail: bool = False, **kwargs: Any) -> Any:
        self._note("ls")
        if self.do == "no listing":
            raise PermissionError("no listing")
        folder = Path(self._strip_protocol(path))
        return [super(Elsewhere, self).info(str(entry)) for entry in folder.iterdir()]

    def info(self, path: Any, **kwargs: Any) -> Any:
        self._note("info")
        if self.do == "silent":
            raise ConnectionError("no answer")
        return super().info(path, **kwargs)

    def get_file(self, rpath: Any, lpath: Any, *args: Any, **kwargs: Any) -> None:
        self._note("get")
        data = Path(self._strip_protocol(rpath)).read_bytes()
        if self.do == "slow":
            time.sleep(0.3)
        if self.do == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.do == "replaced":
            type(self).do = ""
            Path(self._strip_protocol(rpath)).write_bytes(b"newer")
        half = self.do in ("cut", "killed")
        Path(lpath).write_bytes(data[: len(data) // 2] if half else data)
        if self.do == "killed":
            os._exit(9)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Elsewhere]]:
    fsspec.register_implementation("elsewhere", Elsewhere, clobber=True)
    monkeypatch.setattr(places, "SCHEMES", (*places.SCHEMES, "elsewhere"))
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.0)
    Elsewhere.log, Elsewhere.do = tmp_path / "log", ""
    Elsewhere.log.touch()
    yield Elsewhere
    Elsewhere.do = ""


def asked(what: str) -> int:
    """How often something was asked of elsewhere."""
    return Elsewhere.log.read_text().split().count(what)


@pytest.fixture
def remote(tmp_path: Path, elsewhere: type[Elsewhere]) -> str:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "clip.mp4").write_bytes(b"x" * 1000)
    return f"elsewhere://{tmp_path}/there/clip.mp4"


def test_a_local_path_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("a.png", Path("a.png"), f"file://{tmp_path}/a.png"):
        assert local_copy(place) == tmp_path / "a.png"
    assert local_path("s3://bucket/a.png") is None


@pytest.mark.parametrize(
    ("folder", "place", "means"),
    [
        ("/data", "a/b.png", "/data/a/b.png"),
        ("/data", "/other/b.png", "/other/b.png"),
        ("/data", "~who-is-this/b.png", "/data/~who-is-this/b.png"),
        ("/data", "file:///other/b.png", "/other/b.png"),
        ("/data", "s3://bucket/b.png", "s3://bucket/b.png"),
        ("s3://bucket/set", "a/b.png", "s3://bucket/set/a/b.png"),
        ("s3://bucket/set", "../b.png", "s3://bucket/b.png"),
        ("memory://", "b.png", "memory://b.png"),
        ("s3://bucket/set", "/local/b.png", "/local/b.png"),
    ],
)
def test_places_are_relative_to_a_folder(folder: str, place: str, means: str) -> None:
    assert resolve_place(folder, place) == means


def test_folder_of_a_place() -> None:
    assert folder_of("/data/m.csv") == "/data"
    assert folder_of("s3://bucket/set/m.csv") == "s3://bucket/set"
    assert folder_of("memory://m.csv") == "memory://"
    assert folder_of("https://host/set/m.csv?key=a/b") == "https://host/set"


def test_a_remote_file_is_copied_once_and_again_when_it_changed(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/copies/face.png", b"one")
    url = "memory://copies/face.png"
    first = local_copy(url, tmp_path)
    assert (first.name, first.read_bytes()) == ("face.png", b"one")
    before = first.stat().st_ino
    assert local_copy(url, tmp_path) == first
    assert first.stat().st_ino == before
    files.pipe_file("/copies/face.png", b"two")  # the same size
    second = local_copy(url, tmp_path)
    assert second.read_bytes() == b"two"
    assert first.read_bytes() == b"one", "somebody may still read it"
    first.write_bytes(b"cut")
    second.write_bytes(b"")
    assert local_copy(url, tmp_path).read_bytes() == b"two", "a copy of another size is none"


def test_copies_go_to_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = local_copy(remote)
    assert copy.parents[1] == tmp_path / "cache" / "portrait-reenactment" / "inputs"
    assert copy.parents[1].stat().st_mode & 0o077 == 0


def test_many_processes_fetch_once(tmp_path: Path, remote: str) -> None:
    Elsewhere.do = "slow"
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=local_copy, args=(remote, tmp_path / "cache")) for _ in range(4)]
    for process in crowd:
        process.start()
    in_threads(lambda _: local_copy(remote, tmp_path / "cache"), range(4))
    for process in crowd:
        process.join()
        assert process.exitcode == 0
    assert asked("get") == 1


def test_a_killed_download_leaves_nothing_that_counts(tmp_path: Path, remote: str) -> None:
    Elsewhere.do = "killed"
    process = multiprocessing.get_context("fork").Process(
        target=local_copy, args=(remote, tmp_path / "cache")
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    Elsewhere.do = ""
    assert local_copy(remote, tmp_path / "cache").stat().st_size == 1000
    assert delete_unused_copies(0, tmp_path / "cache", spare_s=0) == 1500, "the half goes with the rest"
    assert list((tmp_path / "cache").iterdir()) == []


def test_half_a_download_is_refused(tmp_path: Path, remote: str) -> None:
    Elsewhere.do = "cut"
    with pytest.raises(OSError, match="500 of 1000 bytes"):
        local_copy(remote, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_full_disk_is_told_at_once(tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "GIVE_UP_S", 60.0)
    Elsewhere.do = "full"
    with pytest.raises(OSError, match="no room for a copy") as caught:
        local_copy(remote, tmp_path / "cache")
    assert caught.value.errno == errno.ENOSPC


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, remote: str) -> None:
    Elsewhere.do = "replaced"
    assert local_copy(remote, tmp_path / "cache").read_bytes() == b"newer"
    assert asked("get") == 2


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("memory://copies/none.png", "does not exist; check the path"),
        ("elsewhere:///", "is a folder"),
        ("nosuch://a.png", "is no URL"),
        ("gs://bucket/a.png", "needs another package"),
    ],
)
def test_what_cannot_be_copied_says_why(
    tmp_path: Path, elsewhere: type[Elsewhere], place: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        local_copy(place, tmp_path)
    with pytest.raises(InputError, match=f"{place} |needs another package|is no URL"):
        read_bytes(place, "manifest")


def test_a_host_that_gives_no_answer_is_transient(tmp_path: Path, remote: str) -> None:
    Elsewhere.do = "silent"
    with pytest.raises(ConnectionError):
        local_copy(remote, tmp_path / "cache")


def test_the_oldest_copies_are_forgotten_first(tmp_path: Path, remote: str) -> None:
    cache = tmp_path / "cache"
    copies = []
    for i in range(4):
        url = remote.replace("clip", f"clip{i}")
        Path(url.removeprefix("elsewhere://")).write_bytes(b"x" * 100)
        copies.append(local_copy(url, cache))
        os.utime(copies[i].parent, (1000 + i, 1000 + i))
    (cache / "mine").mkdir()
    (cache / "mine" / "precious").write_bytes(b"x" * 5000)
    local_copy(remote.replace("clip", "clip0"), cache)  # used just now
    assert delete_unused_copies(100, cache) == 300, "the rest is too old to be spared"
    assert [copy.exists() for copy in copies] == [True, False, False, False]
    assert delete_unused_copies(0, cache) == 0, "somebody may read it"
    assert delete_unused_copies(0, cache, spare_s=0) == 100
    assert [entry.name for entry in cache.iterdir()] == ["mine"]
    assert delete_unused_copies(0, tmp_path / "none") == 0


def test_what_is_being_fetched_is_not_forgotten(tmp_path: Path, remote: str) -> None:
    copy = local_copy(remote, tmp_path / "cache")
    with copies._lock(copy.parent):
        assert delete_unused_copies(0, tmp_path / "cache", spare_s=0) == 0
    (tmp_path / "cache" / f"{copy.parent.name}.01234567.gone").mkdir()
    assert delete_unused_copies(10**6, tmp_path / "cache", spare_s=0) == 0
    assert not list((tmp_path / "cache").glob("*.gone")), "what a killed process was deleting goes"


def test_looking_at_local_files(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(b"x")
    (tmp_path / "empty.png").touch()
    places = [str(tmp_path / name) for name in ("good.png", "empty.png", "none.png", "good.png/x", "a\0b")]
    found = inspect_files([*places, str(tmp_path)])
    problems = [found[place].problem for place in [*places, str(tmp_path)]]
    assert problems[0] == ""
    assert found[places[0]].size == 1
    for problem, word in zip(
        problems[1:],
        ["0 bytes", "does not exist", "does not exist", "zero character", "is a folder"],
        strict=True,
    ):
        assert word in problem


def test_a_remote_folder_is_listed_once(tmp_path: Path, elsewhere: type[Elsewhere]) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty").touch()
    places = [f"elsewhere://{tmp_path}/{name}" for name in ("a", "b", "c", "none", "empty")]
    found = inspect_files(places)
    assert [bool(found[place].problem) for place in places] == [False, False, False, True, True]
    assert (asked("ls"), asked("info")) == (1, 0)
    elsewhere.do = "no listing"
    again = inspect_files(places)
    assert again == found, "where listing is not allowed each file is asked for"
    assert asked("info") == 5
    elsewhere.do = ""
    assert inspect_files(places[:2]) == {place: found[place] for place in places[:2]}
    assert asked("ls") == 2, "two files are not worth a listing"
    assert inspect_files([f"elsewhere://{tmp_path}/nowhere/{i}" for i in range(5)]).keys()


def test_a_silent_host_is_waited_for_once(
    elsewhere: type[Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "THREADS", 1)
    elsewhere.do = "silent"
    found = inspect_files([f"elsewhere:///folder{i}/a.png" for i in range(20)])
    assert all("cannot be reached (no answer)" in one.problem for one in found.values())
    assert asked("info") == 1


def test_the_first_error_ends_work_in_threads() -> None:
    done = []

    def work(i: int) -> int:
        if i == 0:
            raise KeyError(i)
        time.sleep(0.02)
        done.append(i)
        return i

    with pytest.raises(KeyError):
        in_threads(work, range(500))
    assert len(done) < 100
    told: list[tuple[int, int]] = []
    assert in_threads(lambda i: -i, range(5), lambda *now: told.append(now)) == [0, -1, -2, -3, -4]
    assert told[-1] == (5, 5)


def test_copies_stay_below_their_limit_while_those_in_use_stay(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, limit = tmp_path / "cache", 2500
    monkeypatch.setattr(copies, "_tidied", {})
    used = local_copy(remote, cache, limit)
    held = []
    for i in range(12):
        url = remote.replace("clip", f"clip{i}")
        Path(url.removeprefix("elsewhere://")).write_bytes(b"x" * 400)
        for entry in cache.iterdir():  # all others were last asked for long ago
            if entry.is_dir() and entry != used.parent:
                os.utime(entry, (1000, 1000))
        local_copy(url, cache, limit)
        held.append(sum(file.stat().st_size for file in cache.rglob("*.mp4")))
    assert max(held) <= limit, "a copy is 16 % of the limit: every fetch looks"
    assert used.exists()
    assert local_copy(remote, cache, limit) == used
    assert asked("get") == 13


def test_the_cache_is_looked_through_seldom(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    monkeypatch.setattr(copies, "_tidied", {})
    monkeypatch.setattr(copies, "delete_unused_copies", lambda limit, top: looked.append(limit))
    for i in range(60):
        url = remote.replace("clip", f"clip{i}")
        Path(url.removeprefix("elsewhere://")).write_bytes(b"x" * 100)
        local_copy(url, tmp_path / "cache", 100_000)
        local_copy(url, tmp_path / "cache", 100_000)
    assert len(looked) == 2, "at first, and after 5 % of the limit came"


def test_a_cache_that_cannot_be_tidied_still_gives_copies(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise PermissionError("not yours")

    monkeypatch.setattr(copies, "_tidied", {})
    monkeypatch.setattr(copies, "delete_unused_copies", fails)
    assert local_copy(remote, tmp_path / "cache").stat().st_size == 1000


def test_the_limit_of_copies_is_a_setting() -> None:
    assert load_settings("embedded").runner.input_cache_bytes == CACHE_BYTES
    assert load_settings("embedded", ["runner.input_cache_gb=0.5"]).runner.input_cache_bytes == 5 * 10**8
