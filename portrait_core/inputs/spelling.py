"""Names of files that are given in another way than the disk has them: Unicode forms, Windows' separators."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from portrait_core.media.pictures import stands_for_files
from portrait_core.store.places import local_path, resolve_place


class Spellings:
    r"""Finds files of this machine that a table names in another Unicode form, or with ``\``.

    A Mac writes a letter and its accent as two characters, which look like the one on the disk. Every folder
    is listed once.
    """

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, str]] = {}

    def resolve(self, folder: str, cell: str) -> str:
        """Return the place that a cell names, relative to ``folder``: as the disk spells it, where it exists.

        Args:
            folder: folder or URL prefix of the table.
            cell: path or URL; an empty one stays empty.
        """
        if not cell:
            return ""
        place = resolve_place(folder, cell)
        for tried in dict.fromkeys((place, resolve_place(folder, cell.replace("\\", "/")))):
            path = local_path(tried)
            if path is None:
                return place
            if found := self._existing(path):
                return str(found)
            above = self._existing(path.parent) if "\\" not in path.name else None
            if above is not None and stands_for_files(above / path.name):
                return str(above / path.name)
        return place

    def _existing(self, path: Path) -> Path | None:
        """Return a path as the disk spells it; None where there is nothing of that name."""
        try:
            if path.exists():
                return path
        except (OSError, ValueError):  # no access, or no path at all: the table's check says so
            return None
        if path.name.isascii() and path.parent.is_dir():
            return None
        above = self._existing(path.parent) if path != path.parent else None
        if above is None:
            return None
        name = self._names(above).get(unicodedata.normalize("NFC", path.name))
        return above / name if name is not None else None

    def _names(self, folder: Path) -> dict[str, str]:
        """Return the names in a folder by their composed form."""
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._listed[folder] = {
                unicodedata.normalize("NFC", name): name for name in names if not name.isascii()
            } | {name: name for name in names if name.isascii()}
        return self._listed[folder]


def as_on_disk(place: str) -> str:
    r"""Return a place that a command names, as the disk spells it, if it has one of that name.

    Of a pattern, the folder is spelled so.

    Args:
        place: path or URL, relative to the working folder.
    """
    path = local_path(place)
    if path is None or "\0" in place or os.path.lexists(path):
        return place
    found = Spellings().resolve(os.getcwd(), place)
    is_pattern = "\\" not in found and stands_for_files(found) and not stands_for_files(path)
    return found if os.path.lexists(found) or is_pattern else place


def written_with_slashes(place: str) -> str:
    r"""Return a note for a place that does not exist and holds ``\``, else nothing."""
    return r"; paths are written with / here, not with \ as on Windows" if "\\" in place else ""
