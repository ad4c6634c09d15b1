"""Portraits and videos wherever they lie: looking for many, and reading one.

A place is a path or a URL (:mod:`portrait_core.store.places`). Copies of what lies elsewhere are made by
:mod:`portrait_core.inputs.copies`; its functions are given here too.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from portrait_core.errors import InputError
from portrait_core.inputs.copies import CACHE_BYTES, delete_unused_copies, local_copy
from portrait_core.inputs.remote import cause, reach, reason, translate_errors, version_of
from portrait_core.media.binary import existing_file
from portrait_core.store.places import (
    checked_place,
    folder_of,
    local_path,
    place_problem,
    redact_place,
    resolve_place,
)
from portrait_core.store.retries import Retrier, is_transient

__all__ = [
    "CACHE_BYTES",
    "FileStatus",
    "inspect_file",
    "folder_of",
    "delete_unused_copies",
    "in_threads",
    "resolve_place",
    "local_copy",
    "local_path",
    "inspect_files",
    "reach",
    "read_bytes",
]

THREADS = 16
_LISTED = 3
"""From so many files on, a folder elsewhere is listed instead of asking for each."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FileStatus:
    """What looking for a file found."""

    size: int | None = None
    """Bytes, where the file system says."""
    problem: str = ""
    """What is wrong with it and what to do, in words that follow the file's name; empty: nothing."""
    version: str = ""
    """Changes whenever the content does (entity tag, digest or time); empty where nothing tells."""


def read_bytes(place: str, what: str) -> bytes:
    """All of a file; ``what`` names it in messages.

    Raises:
        InputError: it is not there, or cannot be read for a reason that did not pass within two minutes.
    """
    checked_place(place)
    try:
        if local_path(place) is not None:
            return existing_file(os.path.expanduser(place.removeprefix("file://")), what).read_bytes()
        files, inside = reach(place)
        data: bytes = Retrier(redact_place(place)).call(lambda: files.cat_file(inside))
        return data
    except InputError:
        raise
    except Exception as error:  # file systems raise classes of their own
        raise InputError(f"{redact_place(place)} {reason(error, place)}") from cause(error, place)


def in_threads(
    function: Callable[[T], R], items: Iterable[T], told: Callable[[int, int], None] | None = None
) -> list[R]:
    """Results of a function over items, in order, several at a time.

    ``told`` hears how many of how many are done. The first error ends it: what has not begun is left out.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if told is not None:
                    told(done, len(futures))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


# Looking for many


def inspect_files(places: Iterable[str]) -> dict[str, FileStatus]:
    """Look for files, several folders at once; a folder elsewhere is listed where it holds some of them.

    A host that does not answer is waited for once (two minutes), not once a file.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    found: dict[str, FileStatus] = {}
    for place in dict.fromkeys(places):
        if refused := place_problem(place):
            found[place] = FileStatus(problem=refused)
        else:  # web servers list pages, not folders
            groups[place if place.startswith("http") else folder_of(place)].append(place)
    silent: dict[str, str] = {}
    for part in in_threads(lambda group: _look_into(*group, silent), groups.items()):
        found |= part
    return found


def _look_into(folder: str, places: list[str], silent: dict[str, str]) -> dict[str, FileStatus]:
    """Look for files of one folder; ``silent`` collects hosts that gave no answer, with the reason."""
    if local_path(folder) is not None:
        return {place: _look_here(Path(place)) for place in places}
    host = "/".join(folder.split("/")[:3])
    if len(places) >= _LISTED and host not in silent:
        try:
            listed = _listed(folder)
            return {place: _judged(listed.get(place.rpartition("/")[2])) for place in places}
        except PermissionError:
            pass  # reading may be allowed where listing is not
        except Exception as error:
            _note(error, host, silent)
            return dict.fromkeys(places, FileStatus(problem=reason(error, folder)))
    return {place: _look_there(place, host, silent) for place in places}


def _look_here(path: Path) -> FileStatus:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return FileStatus(problem=reason(error))
    if stat.S_ISREG(status.st_mode) and not os.access(path, os.R_OK):
        return FileStatus(problem=reason(PermissionError()))
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    return _judged({"type": kind, "size": status.st_size}, f"{status.st_mtime_ns} {status.st_ino}")


def _look_there(place: str, host: str, silent: dict[str, str]) -> FileStatus:
    if host in silent:
        return FileStatus(problem=silent[host])
    try:
        files, path = reach(place)
        return _judged(Retrier(redact_place(place)).call(lambda: files.info(path)))
    except Exception as error:
        _note(error, host, silent)
        return FileStatus(problem=reason(error, place))


def _note(error: Exception, host: str, silent: dict[str, str]) -> None:
    if not isinstance(error, InputError) and is_transient(error):
        silent[host] = reason(error, host)


def _listed(folder: str) -> dict[str, dict[str, Any]]:
    """What a file system says of everything directly in a folder, by name; nothing where there is none."""
    files, path = reach(folder)
    try:
        entries = Retrier(redact_place(folder)).call(lambda: files.ls(path, detail=True))
    except FileNotFoundError:
        return {}
    return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in entries}


def _judged(about: Mapping[str, Any] | None, version: str | None = None) -> FileStatus:
    if about is None:
        return FileStatus(problem=reason(FileNotFoundError()))
    if about.get("type") == "directory":
        return FileStatus(problem=reason(IsADirectoryError()))
    if about.get("size") == 0:
        return FileStatus(0, "is empty (0 bytes); copy it again from its source")
    return FileStatus(about.get("size"), version=version_of(about) if version is None else version)


def inspect_file(place: str | os.PathLike[str]) -> FileStatus:
    """Size and version of one file, by one request; :func:`inspect_files` asks for many.

    Raises:
        InputError: there is no such file, it is empty, or it may not be read.
        OSError: the connection failed for two minutes.
    """
    text = checked_place(place)
    path = local_path(text)
    if path is not None:
        found = _look_here(path)
    else:
        files, inside = reach(text)
        with translate_errors(text):
            found = _judged(Retrier(redact_place(text)).call(lambda: files.info(inside)))
    if found.problem:
        raise InputError(f"{redact_place(text)} {found.problem}")
    return found
