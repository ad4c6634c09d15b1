"""Two writers of one file at once: a reader gets one content or the other, at every moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from portrait_core.store import Output
from portrait_core.store.contents import stored_name
from portrait_core.store.files import Files
from tests.portrait_core.watched_files import Between, Ends, Killed, Operation, WatchedFiles

NAME = "clip.mp4"


def _output(files: Files | str | Path) -> Output:
    return Output(files if isinstance(files, Files) else Files(files), "video/a", "encode", "00aa")


@pytest.mark.parametrize("before", [[], [b"old"], [b"one"], [b"two"]], ids=str)
def test_whenever_a_rival_writes_a_reader_gets_one_or_the_other(tmp_path: Path, before: list[bytes]) -> None:
    for moment in range(4):  # it lists, puts, deletes and lists again at most
        folder = tmp_path / str(moment)
        for value in before:
            _output(folder).put_bytes(NAME, value)
        seen: list[bytes | None] = []
        left = [moment]

        def rival(_: Operation) -> None:
            left[0] -= 1  # noqa: B023 - called within this turn alone
            if left[0] == -1:  # noqa: B023
                reads = Between(lambda: seen.append(_output(folder).get_bytes(NAME)))  # noqa: B023
                _output(WatchedFiles(str(folder), reads)).put_bytes(NAME, b"two")  # noqa: B023
                seen.append(_output(folder).get_bytes(NAME))  # noqa: B023

        _output(WatchedFiles(str(folder), rival)).put_bytes(NAME, b"one")
        seen.append(_output(folder).get_bytes(NAME))
        while seen and not before and seen[0] is None:
            del seen[0]  # nobody had put anything yet
        assert set(seen) <= {b"one", b"two", *before}
        assert seen[-1] in (b"one", b"two")


def test_two_that_take_each_others_content_for_an_older_one_do_not_lose_both(tmp_path: Path) -> None:
    """Both contents were left by an earlier race, and each writer has listed both."""
    one, two = (f"video/a/encode.00aa/files/{stored_name(NAME, value)}" for value in (b"one", b"two"))
    Files(tmp_path).put({one: b"one", two: b"two"})

    def rival(operation: Operation) -> None:
        if operation.what == "delete" and operation.name == two:
            _output(tmp_path).put_bytes(NAME, b"two")  # which deletes the content of "one"

    _output(WatchedFiles(str(tmp_path), rival)).put_bytes(NAME, b"one")
    assert _output(tmp_path).get_bytes(NAME) == b"one"


def test_a_reader_whose_version_is_replaced_takes_the_next(tmp_path: Path) -> None:
    _output(tmp_path).put_bytes(NAME, b"0")
    turns = iter(range(1, 4))

    def replace(operation: Operation) -> None:
        if operation.what == "get_range" and (turn := next(turns, None)) is not None:
            _output(tmp_path).put_bytes(NAME, str(turn).encode())

    assert _output(WatchedFiles(str(tmp_path), replace)).get_bytes(NAME) == b"3"


@pytest.mark.parametrize("old", [b"old", None])
def test_killed_anywhere_a_file_is_the_old_or_the_new_one(tmp_path: Path, old: bytes | None) -> None:
    for count in range(3):
        folder = tmp_path / str(count)
        if old is not None:
            _output(folder).put_bytes(NAME, old)
        try:
            _output(WatchedFiles(str(folder), Ends(count))).put_bytes(NAME, b"new")
        except Killed:
            assert _output(folder).get_bytes(NAME) in ((old,) if count == 0 else (old, b"new"))
        _output(folder).put_bytes(NAME, b"new")
        assert _output(folder).get_bytes(NAME) == b"new"
        assert len(Files(folder).list("video/a/encode.00aa/files")) == 1
