"""Portraits and videos on this machine and elsewhere: status of many files, content of one.

A place is a path or a URL (:mod:`portrait_core.store.places`). :mod:`portrait_core.inputs.copies` makes
copies of remote files; its functions are exported here too.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from portrait_core.errors import InputError
from portrait_core.inputs.copies import CACHE_BYTES, delete_unused_copies, local_copy
from portrait_core.inputs.downloads import download
from portrait_core.inputs.remote import reach, read_problem, safe_cause, translate_errors, version_of
from portrait_core.media.binary import existing_file
from portrait_core.media.pictures import FileSequence, find_pictures, stands_for_files
from portrait_core.runtime.regular_files import read_regular, refuse_irregular
from portrait_core.settings.limits import current_limits, refuse_beyond
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
    "delete_unused_copies",
    "files_status",
    "folder_of",
    "in_threads",
    "inspect_file",
    "inspect_files",
    "is_of_files",
    "local_copy",
    "local_path",
    "reach",
    "read_bytes",
    "resolve_place",
]

THREADS = 16
"""Number of requests at the same time."""
_MIN_LISTED = 3
"""Number of files from which on a remote folder is listed instead of requesting each file's status."""

_TABLE = "table_bytes"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FileStatus:
    """Status of a file."""

    size: int | None = None
    """Bytes; None where the file system states none."""
    problem: str = ""
    """Problem and advice, in words that follow the file's name; empty when there is none."""
    version: str = ""
    """Text that changes with the content (entity tag, digest or time); empty where none is known."""


def read_bytes(place: str, what: str) -> bytes:
    """Read all bytes of a table, within ``limits.table_bytes``.

    Args:
        place: path or URL.
        what: kind of the file, for messages.

    Raises:
        InputError: the file does not exist, is no regular file or too large, or cannot be read for a reason
            that did not pass within two minutes.
    """
    checked_place(place)
    try:
        if local_path(place) is not None:
            path = existing_file(os.path.expanduser(place.removeprefix("file://")), what)
            return _read_table_file(path, str(path))
        files, inside = reach(place)
        with tempfile.TemporaryDirectory(prefix="portrait-") as folder:
            copy = Path(folder) / "table"
            Retrier(redact_place(place)).call(lambda: download(files, inside, place, copy, _TABLE))
            return _read_table_file(copy, redact_place(place))
    except InputError:
        raise
    except Exception as error:  # file systems have error classes of their own
        raise InputError(f"{redact_place(place)} {read_problem(error, place)}") from safe_cause(error, place)


def _read_table_file(path: Path, name: str) -> bytes:
    data, size = read_regular(path, current_limits().table_bytes + 1)
    refuse_beyond(_TABLE, size, name)
    return data


def in_threads(
    function: Callable[[T], R], items: Iterable[T], told: Callable[[int, int], None] | None = None
) -> list[R]:
    """Apply a function to items, several at a time, and return the results in order.

    The first error ends the work: items that have not begun are left out.

    Args:
        function: function of an item.
        items: the items.
        told: called with the numbers of finished and of all items.
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


# Status of many files


def inspect_files(places: Iterable[str]) -> dict[str, FileStatus]:
    """Return the status of files, several folders at a time; a remote folder is listed where it pays.

    A host that does not answer is waited for once (two minutes), not once per file.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    statuses: dict[str, FileStatus] = {}
    for place in dict.fromkeys(places):
        if refused := place_problem(place):
            statuses[place] = FileStatus(problem=refused)
        else:  # web servers list pages, not folders
            groups[place if place.startswith("http") else folder_of(place)].append(place)
    silent: dict[str, str] = {}
    for inspected in in_threads(lambda group: _inspect_folder(*group, silent), groups.items()):
        statuses |= inspected
    return statuses


def is_of_files(place: str) -> bool:
    """Tell whether a video is a folder of this machine, or a pattern of files."""
    path = local_path(place)
    return path is not None and "\0" not in place and stands_for_files(path)


def files_status(place: str) -> FileStatus:
    """Return the status of a video that is a folder or a pattern of pictures."""
    try:
        found = find_pictures(place.removeprefix("file://"))
    except InputError as error:
        return FileStatus(problem=str(error).removeprefix(f"{local_path(place)} "))
    return FileStatus(found.size if isinstance(found, FileSequence) else None)


def _inspect_folder(folder: str, places: list[str], silent: dict[str, str]) -> dict[str, FileStatus]:
    """Return the status of files of one folder.

    ``silent`` collects hosts that do not answer, with the reason.
    """
    if local_path(folder) is not None:
        return {place: _inspect_local(local_path(place) or Path(place)) for place in places}
    host = "/".join(folder.split("/")[:3])
    if len(places) >= _MIN_LISTED and host not in silent:
        try:
            listed = _list_remote(folder)
            return {place: _status_of(listed.get(place.rpartition("/")[2])) for place in places}
        except PermissionError:
            pass  # reading may be allowed where listing is not
        except Exception as error:
            _note_silence(error, host, silent)
            return dict.fromkeys(places, FileStatus(problem=read_problem(error, folder)))
    return {place: _inspect_remote(place, host, silent) for place in places}


def _inspect_local(path: Path) -> FileStatus:
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            refuse_irregular(status.st_mode, path)
    except (OSError, ValueError) as error:
        return FileStatus(problem=read_problem(error, str(path)))
    if not stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK):
        return FileStatus(problem=read_problem(PermissionError()))
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    return _status_of({"type": kind, "size": status.st_size}, f"{status.st_mtime_ns} {status.st_ino}")


def _inspect_remote(place: str, host: str, silent: dict[str, str]) -> FileStatus:
    if host in silent:
        return FileStatus(problem=silent[host])
    try:
        files, path = reach(place)
        return _status_of(Retrier(redact_place(place)).call(lambda: files.info(path)))
    except Exception as error:
        _note_silence(error, host, silent)
        return FileStatus(problem=read_problem(error, place))


def _note_silence(error: Exception, host: str, silent: dict[str, str]) -> None:
    if not isinstance(error, InputError) and is_transient(error):
        silent[host] = read_problem(error, host)


def _list_remote(folder: str) -> dict[str, dict[str, Any]]:
    """List everything directly in a remote folder, with its status, by name; empty without a folder."""
    files, path = reach(folder)
    try:
        entries = Retrier(redact_place(folder)).call(lambda: files.ls(path, detail=True))
    except FileNotFoundError:
        return {}
    return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in entries}


def _status_of(about: Mapping[str, Any] | None, version: str | None = None) -> FileStatus:
    if about is None:
        return FileStatus(problem=read_problem(FileNotFoundError()))
    if about.get("type") == "directory":
        return FileStatus(problem=read_problem(IsADirectoryError()))
    if about.get("size") == 0:
        return FileStatus(0, "is empty (0 bytes); copy it again from its source")
    return FileStatus(about.get("size"), version=version_of(about) if version is None else version)


def inspect_file(place: str | os.PathLike[str]) -> FileStatus:
    """Return size and version of one file, by one request; :func:`inspect_files` does the same for many.

    Raises:
        InputError: the file does not exist, is empty, or may not be read.
        OSError: the connection failed for two minutes.
    """
    text = checked_place(place)
    path = local_path(text)
    if path is not None:
        status = _inspect_local(path)
    else:
        files, inside = reach(text)
        with translate_errors(text):
            status = _status_of(Retrier(redact_place(text)).call(lambda: files.info(inside)))
    if status.problem:
        raise InputError(f"{redact_place(text)} {status.problem}")
    return status
