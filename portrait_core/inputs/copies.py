"""Copies on this machine of remote files: fetched once for all processes, kept below a limit.

A local path is used where it is. A remote object is copied again when it has changed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from portrait_core.inputs.downloads import download
from portrait_core.inputs.remote import reach, translate_errors, version_of
from portrait_core.runtime.caches import cache_folder
from portrait_core.settings.limits import refuse_beyond
from portrait_core.store.places import checked_place, local_path, place_name, redact_place
from portrait_core.store.retries import DISK_FULL_ERRORS, Retrier

CACHE_BYTES = 20 * 10**9
"""Bytes of copies that are kept by default; ``runner.input_cache_gb`` sets another limit."""
TIDY_S = 300.0
"""Smallest interval in seconds at which a process checks the size of all copies, unless it fetched much
meanwhile."""
TIDY_FRACTION = 0.05
"""Fetched bytes, as a fraction of the limit, after which the check is due earlier."""
SPARE_S = 3600.0
"""Seconds for which a copy may be in use after a request for it."""
_ENTRY = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{8}\.gone)?")
"""Names of a cache's folders that are ours: nothing else in it is ever deleted."""


def local_copy(
    url: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    limit_bytes: int = CACHE_BYTES,
    limit: str = "video_bytes",
) -> Path:
    """Return a file's path on this machine: a local path itself, else a copy.

    A copy is fetched unless there is one of this version. Processes that ask for it at the same time wait for
    one of them to fetch it. A copy has the object's name, and exists completely or not at all. The version is
    the object's size with its entity tag, digest or time; where a server states none of these, the first copy
    stays valid for good.

    Args:
        url: path or URL (:func:`~portrait_core.store.places.checked_place`).
        folder: folder of the copies; default: ``inputs`` in
            :func:`~portrait_core.runtime.caches.cache_folder`.
        limit_bytes: size of all copies, down to which unused ones are deleted after a fetch
            (:func:`delete_unused_copies`).
        limit: name of the limit (:class:`~portrait_core.settings.limits.Limits`) of a remote file's bytes.

    Raises:
        InputError: the file does not exist, may not be read, or is larger than its limit.
        OSError: the connection failed for two minutes, or the disk is full (``ENOSPC``).
    """
    place = checked_place(url)
    path = local_path(place)
    if path is not None:
        return path
    top = Path(folder or cache_folder("inputs")).absolute()
    files, inside = reach(place)
    with translate_errors(place):
        for _ in range(3):
            about = Retrier(redact_place(place)).call(lambda: files.info(inside))
            if about.get("type") == "directory":
                raise IsADirectoryError(place)
            refuse_beyond(limit, about.get("size") or 0, redact_place(place))
            copy = _copy_path(top, place, about)
            if _is_present(copy, about):
                return copy
            if _fetch_copy(files, inside, place, copy, about, limit):
                _tidy(top, limit_bytes, copy.stat().st_size)
                return copy
    raise OSError(errno.EAGAIN, f"{redact_place(place)} changes while it is read; wait until it is written")


def _copy_path(folder: Path, url: str, about: Mapping[str, Any]) -> Path:
    version = hashlib.sha256(f"{url}\n{about.get('size')} {version_of(about)}".encode()).hexdigest()[:32]
    name = place_name(url)
    return folder / version / (name.encode()[-200:].decode(errors="ignore") or "file")


def _is_present(copy: Path, about: Mapping[str, Any]) -> bool:
    """Tell whether the copy is complete.

    It is marked as used before that is known, so that no other process deletes it meanwhile.
    """
    try:
        os.utime(copy.parent)
        return about.get("size") in (None, copy.stat().st_size)
    except FileNotFoundError:
        return False


def _fetch_copy(
    files: AbstractFileSystem, path: str, url: str, copy: Path, about: Mapping[str, Any], limit: str
) -> bool:
    """Fetch an object; return False when it was replaced meanwhile."""
    copy.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # other users must not see faces
    with _lock(copy.parent):
        if _is_present(copy, about):
            return True
        copy.parent.mkdir(exist_ok=True)
        partial = copy.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            full = Retrier(redact_place(url)).call(
                lambda: _download(files, path, url, partial, about.get("size"), limit)
            )
            if full is not None:
                raise OSError(
                    full.errno,
                    f"no room for a copy of {redact_place(url)} in {copy.parent.parent}: free some",
                )
            now = Retrier(redact_place(url)).call(lambda: files.info(path))
            if (now.get("size"), version_of(now)) != (about.get("size"), version_of(about)):
                return False
            os.replace(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
    return True


def _download(
    files: AbstractFileSystem, path: str, url: str, partial: Path, size: int | None, limit: str
) -> OSError | None:
    """Fetch an object; return the error of a full disk, for which retries are useless."""
    try:
        download(files, path, url, partial, limit)
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS:
            return error
        raise
    if size is not None and partial.stat().st_size != size:
        raise OSError(f"{partial.stat().st_size} of {size} bytes of {redact_place(url)} came")
    return None


@contextlib.contextmanager
def _lock(entry: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a copy's folder; yield False when another process holds it and ``wait`` is off.

    The system releases it when its process ends. It only saves work: without it two processes would fetch the
    same bytes.
    """
    with open(entry.with_name(f"{entry.name}.lock"), "wb") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError:
            pass  # a disk without locks
        yield held


_tidying = threading.Lock()
_tidied: dict[Path, tuple[float, int]] = {}
"""Time of this process's last check of each folder of copies, and the bytes that it has fetched since."""


def _tidy(top: Path, limit_bytes: int, fetched: int) -> None:
    """Reduce the copies to their limit, if the check is due.

    Failures to delete are ignored, because the requested copy is usable all the same.
    """
    with _tidying:
        at, since = _tidied.get(top, (-TIDY_S, 0))
        since += fetched
        due = time.monotonic() - at >= TIDY_S or since >= limit_bytes * TIDY_FRACTION
        _tidied[top] = (time.monotonic(), 0) if due else (at, since)
    if due:
        with contextlib.suppress(OSError):
            delete_unused_copies(limit_bytes, top)


def delete_unused_copies(
    limit_bytes: int = CACHE_BYTES,
    folder: str | os.PathLike[str] | None = None,
    spare_s: float = SPARE_S,
) -> int:
    """Delete copies, the longest unused ones first, until ``limit_bytes`` are left.

    Copies that were requested within ``spare_s`` seconds stay, even above the limit, because they may be in
    use.

    Args:
        limit_bytes: size of all copies to reach.
        folder: folder of the copies; default: ``inputs`` in
            :func:`~portrait_core.runtime.caches.cache_folder`.
        spare_s: seconds within which a request protects a copy.

    Returns:
        Number of freed bytes.
    """
    top = Path(folder or cache_folder("inputs")).absolute()
    entries = sorted(_entries(top))
    total = sum(size for _, _, size in entries)
    freed = 0
    for used, entry, size in entries:
        if total - freed <= limit_bytes or used > time.time() - spare_s:
            break
        with _lock(entry, wait=False) as held, contextlib.suppress(FileNotFoundError):
            if held and entry.stat().st_mtime == used:
                # renamed first, so that other processes find all of it or nothing
                gone = entry.rename(entry.with_name(f"{entry.name}.{secrets.token_hex(4)}.gone"))
                shutil.rmtree(gone, ignore_errors=True)
                entry.with_name(f"{entry.name}.lock").unlink(missing_ok=True)
                freed += size
    return freed


def _entries(top: Path) -> Iterator[tuple[float, Path, int]]:
    """Yield the time of the last request, the folder and the bytes of each copy.

    Deletes the remains of deletions that were killed.
    """
    for entry in top.iterdir() if top.is_dir() else ():
        if not _ENTRY.fullmatch(entry.name):
            continue
        if entry.suffix == ".gone":
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat().st_mtime, entry, sum(file.stat().st_size for file in entry.iterdir())
