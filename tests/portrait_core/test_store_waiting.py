"""Listings that lag behind, as a file server's do, are asked for again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from portrait_core.runtime import cancellation
from portrait_core.store.files import Files
from portrait_core.store.waiting import wait_until


class LaggingFolder:
    """``os.listdir`` that knows a folder as it was when it was first listed, for so many more looks."""

    def __init__(self, looks: int) -> None:
        self._looks, self._real = looks, os.listdir
        self._known: dict[str, list[str]] = {}
        self.asked = 0

    def __call__(self, path: Any) -> list[str]:
        self.asked += 1
        now = self._real(path)
        known = self._known.setdefault(str(path), now)
        return now if self.asked > self._looks else known


def test_a_marker_that_a_listing_does_not_show_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lagging = LaggingFolder(3)
    monkeypatch.setattr(os, "listdir", lagging)
    here, there = Files(tmp_path), Files(tmp_path)
    there.put({"commits/00000000.aa": b""})
    assert here.list("commits") == ["00000000.aa"]
    there.put({"commits/00000001.aa": b""})  # another host's
    assert here.list("commits") == ["00000000.aa"]  # what a single look takes for a failure
    refreshed: list[str] = []

    def refresh() -> None:
        refreshed.append("commits")
        here.refresh("commits")

    assert wait_until(lambda: len(here.list("commits")) == 2, refresh=refresh)
    assert (lagging.asked, len(refreshed)) == (4, 1)


def test_patience_ends(tmp_path: Path) -> None:
    answers: list[bool] = []

    def never() -> bool:
        answers.append(False)
        return False

    assert not wait_until(never, patience_s=0.2)
    assert len(answers) > 2
    assert wait_until(lambda: True, patience_s=0.0)


def test_a_wish_to_stop_ends_the_waiting() -> None:
    cancellation.request()
    try:
        with pytest.raises(cancellation.StopRequested):
            wait_until(lambda: False, patience_s=3600.0)
    finally:
        cancellation.clear()


def test_a_refresh_opens_every_folder_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was not there at the last look is hidden by what is remembered of the one above it."""
    files = Files(tmp_path)
    files.put({"video/a/commits/0.aa": b""})
    opened: list[str] = []
    real = os.open

    def noted(path: Any, *more: Any, **named: Any) -> int:
        opened.append(str(path))
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", noted)
    files.refresh("video/a/commits")
    parts = ("", "video", "video/a", "video/a/commits")
    assert [os.path.relpath(path, tmp_path) for path in opened] == [os.path.normpath(p) for p in parts]
    files.refresh("video/b/commits")  # not there: nothing to say
