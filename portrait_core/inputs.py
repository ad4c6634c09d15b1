"""Portraits and videos wherever they lie: looking for many, reading one, copying what is elsewhere.

A place is a path or an fsspec URL. A path stays where it is; an object elsewhere is copied to this machine
once for all processes, and again when it has changed there. Options of a file system (endpoints, credentials)
come from the environment, as fsspec and its file systems read them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import posixpath
import re
import secrets
import shutil
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec import AbstractFileSystem

from portrait_core.errors import InputError
from portrait_core.media.binary import existing_file
from portrait_core.store.retries import Patience, is_transient, stop_own_retries, with_few_own_retries

CACHE_BYTES = 20 * 10**9
"""How much of copies is kept where nobody says otherwise."""
SPARE_S = 3600.0
"""A copy that was asked for within so many seconds may be in use."""
THREADS = 16
_LISTED = 3
"""From so many files on, a folder elsewhere is listed instead of asking for each."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ENTRY = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{8}\.gone)?")
"""Folders of a cache that are ours: nothing else in it is ever deleted."""
_VERSION = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "mtime", "updated")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Found:
    """What looking for a file found."""

    size: int | None = None
    """Bytes, where the file system says."""
    problem: str = ""
    """What is wrong with it and what to do, in words that follow the file's name; empty: nothing."""


def local_path(place: str | os.PathLike[str]) -> Path | None:
    """The absolute path of a file of this machine, or None for a URL of elsewhere."""
    text = os.fspath(place).removeprefix("file://")
    return None if "://" in text else Path(os.path.expanduser(text)).absolute()


def folder_of(place: str) -> str:
    """The folder or URL prefix that holds a file."""
    path = local_path(place)
    if path is not None:
        return str(path.parent)
    scheme, _, rest = place.partition("://")
    if scheme.startswith("http"):
        rest = rest.partition("?")[0]
    return f"{scheme}://{rest.rpartition('/')[0]}"


def joined(folder: str, place: str) -> str:
    """A place as something in ``folder`` means it: an absolute path, or a URL."""
    place = place.removeprefix("file://")
    if "://" in place:
        return place
    base = local_path(folder)
    if base is not None:
        return str(base / os.path.expanduser(place))
    if place.startswith(("/", "~")):
        return str(local_path(place))
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, place))}"


def reach(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL and the path in it; what it lists is never remembered.

    Raises:
        InputError: the scheme is not known, or needs a package that is not installed.
    """
    try:
        options = with_few_own_retries(url, {"use_listings_cache": False})
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise InputError(f"{url} needs another package: {error}") from error
    except ValueError as error:
        raise InputError(f"{url} is no URL ({error}); give a path, or s3://, gs://, https:// ...") from error
    stop_own_retries(files)
    return files, path


def read_bytes(place: str, what: str) -> bytes:
    """All of a file; ``what`` names it in messages.

    Raises:
        InputError: it is not there, or cannot be read for a reason that did not pass within two minutes.
    """
    try:
        if local_path(place) is not None:
            return existing_file(os.path.expanduser(place.removeprefix("file://")), what).read_bytes()
        files, inside = reach(place)
        data: bytes = Patience(place).call(lambda: files.cat_file(inside))
        return data
    except InputError:
        raise
    except Exception as error:  # file systems raise classes of their own
        raise InputError(f"{place} {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return "is a folder; give the path of one file"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied); change its permissions, or check your access"
    if isinstance(error, InputError):
        return str(error)
    return (
        f"cannot be reached ({error or type(error).__name__}); check the address, the network and your access"
    )


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


def look(places: Iterable[str]) -> dict[str, Found]:
    """Look for files, several folders at once; a folder elsewhere is listed where it holds some of them.

    A host that does not answer is waited for once (two minutes), not once a file.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for place in dict.fromkeys(places):
        # Web servers list pages, not folders, and a chained URL names a file inside a file.
        alone = place.startswith("http") or "::" in place
        groups[place if alone else folder_of(place)].append(place)
    silent: dict[str, str] = {}
    found: dict[str, Found] = {}
    for part in in_threads(lambda group: _look_into(*group, silent), groups.items()):
        found |= part
    return found


def _look_into(folder: str, places: list[str], silent: dict[str, str]) -> dict[str, Found]:
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
            return dict.fromkeys(places, Found(problem=_reason(error)))
    return {place: _look_there(place, host, silent) for place in places}


def _look_here(path: Path) -> Found:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return Found(problem=_reason(error))
    if stat.S_ISREG(status.st_mode) and not os.access(path, os.R_OK):
        return Found(problem=_reason(PermissionError()))
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    return _judged({"type": kind, "size": status.st_size})


def _look_there(place: str, host: str, silent: dict[str, str]) -> Found:
    if host in silent:
        return Found(problem=silent[host])
    try:
        files, path = reach(place)
        return _judged(Patience(place).call(lambda: files.info(path)))
    except Exception as error:
        _note(error, host, silent)
        return Found(problem=_reason(error))


def _note(error: Exception, host: str, silent: dict[str, str]) -> None:
    if not isinstance(error, InputError) and is_transient(error):
        silent[host] = _reason(error)


def _listed(folder: str) -> dict[str, dict[str, Any]]:
    """What a file system says of everything directly in a folder, by name; nothing where there is none."""
    files, path = reach(folder)
    try:
        entries = Patience(folder).call(lambda: files.ls(path, detail=True))
    except FileNotFoundError:
        return {}
    return {str(entry["name"]).rstrip("/").rpartition("/")[2]: entry for entry in entries}


def _judged(about: Mapping[str, Any] | None) -> Found:
    if about is None:
        return Found(problem=_reason(FileNotFoundError()))
    if about.get("type") == "directory":
        return Found(problem=_reason(IsADirectoryError()))
    if about.get("size") == 0:
        return Found(0, "is empty (0 bytes); copy it again from its source")
    return Found(about.get("size"))


# Copies


def cache_folder() -> Path:
    """Where copies of what lies elsewhere are kept on this machine."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "portrait-reenactment" / "inputs"


def local_copy(url: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Path:
    """The file on this machine: a path itself, else a copy, fetched unless there is one of this version.

    Processes that ask for it at once wait for one of them to fetch it. A copy has the object's name, and is
    there whole or not at all. The version is the object's size with its entity tag, digest or time; where a
    server says none of these, the first copy is taken for good.

    Args:
        url: a path or fsspec URL.
        folder: keeps the copies; default :func:`cache_folder`.

    Raises:
        InputError: there is no such file, or it may not be read.
        OSError: the connection failed for two minutes, or the disk is full (``ENOSPC``).
    """
    path = local_path(url)
    if path is not None:
        return path
    place = os.fspath(url)
    files, inside = reach(place)
    try:
        for _ in range(3):
            about = Patience(place).call(lambda: files.info(inside))
            if about.get("type") == "directory":
                raise IsADirectoryError(place)
            copy = _place_of_copy(Path(folder or cache_folder()), place, about)
            if _is_there(copy, about) or _fetched(files, inside, place, copy, about):
                return copy
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{place} {_reason(error)}") from error
    except OSError:
        raise
    except Exception as error:  # missing credentials, for one, are of a class of the client's
        raise InputError(f"{place} {_reason(error)}") from error
    raise OSError(errno.EAGAIN, f"{place} changes while it is read; wait until it is written")


def _place_of_copy(folder: Path, url: str, about: Mapping[str, Any]) -> Path:
    version = hashlib.sha256(f"{url}\n{_version(about)}".encode()).hexdigest()[:32]
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2]
    return folder.absolute() / version / (name.encode()[-200:].decode(errors="ignore") or "file")


def _version(about: Mapping[str, Any]) -> str:
    known = next((about[name] for name in (*_VERSION, "created") if about.get(name)), "")
    return f"{about.get('size')} {known}"


def _is_there(copy: Path, about: Mapping[str, Any]) -> bool:
    """Whether the copy is whole; noted as used before that is known, so that nobody deletes it meanwhile."""
    try:
        os.utime(copy.parent)
        return about.get("size") in (None, copy.stat().st_size)
    except FileNotFoundError:
        return False


def _fetched(files: AbstractFileSystem, path: str, url: str, copy: Path, about: Mapping[str, Any]) -> bool:
    """Fetch an object; False when it was replaced meanwhile."""
    copy.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # faces are nobody else's business
    with _lock(copy.parent):
        if _is_there(copy, about):
            return True
        copy.parent.mkdir(exist_ok=True)
        part = copy.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            full = Patience(url).call(lambda: _download(files, path, part, about.get("size")))
            if full is not None:
                raise OSError(full.errno, f"no room for a copy of {url} in {copy.parent.parent}: free some")
            if _version(Patience(url).call(lambda: files.info(path))) != _version(about):
                return False
            os.replace(part, copy)
        finally:
            part.unlink(missing_ok=True)
    return True


def _download(files: AbstractFileSystem, path: str, part: Path, size: int | None) -> OSError | None:
    """Fetch an object; return the error of a full disk, which no second attempt mends."""
    try:
        files.get_file(path, str(part))
    except OSError as error:
        if error.errno in _FULL:
            return error
        raise
    if size is not None and part.stat().st_size != size:
        raise OSError(f"{part.stat().st_size} of {size} bytes of {path} came")
    return None


@contextlib.contextmanager
def _lock(entry: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a copy's folder; gives False when another holds it and we do not wait.

    The system releases it with its process. It only saves work: without it two would fetch the same bytes.
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


def forget(
    limit_bytes: int = CACHE_BYTES,
    folder: str | os.PathLike[str] | None = None,
    spare_s: float = SPARE_S,
) -> int:
    """Delete copies, those first that were not asked for the longest, until ``limit_bytes`` are left.

    Copies that were asked for within ``spare_s`` seconds stay, even above the limit: somebody may read them.

    Returns:
        Bytes that were freed.
    """
    top = Path(folder or cache_folder()).absolute()
    entries = sorted(_entries(top))
    total = sum(size for _, _, size in entries)
    freed = 0
    for used, entry, size in entries:
        if total - freed <= limit_bytes or used > time.time() - spare_s:
            break
        with _lock(entry, wait=False) as held, contextlib.suppress(FileNotFoundError):
            if held and entry.stat().st_mtime == used:
                # renamed first: whoever asks for it meanwhile finds all of it or nothing
                gone = entry.rename(entry.with_name(f"{entry.name}.{secrets.token_hex(4)}.gone"))
                shutil.rmtree(gone, ignore_errors=True)
                entry.with_name(f"{entry.name}.lock").unlink(missing_ok=True)
                freed += size
    return freed


def _entries(top: Path) -> Iterator[tuple[float, Path, int]]:
    """When each copy was last asked for, its folder, its bytes; what a killed process was deleting goes."""
    for entry in top.iterdir() if top.is_dir() else ():
        if not _ENTRY.fullmatch(entry.name):
            continue
        if entry.suffix == ".gone":
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                yield entry.stat().st_mtime, entry, sum(file.stat().st_size for file in entry.iterdir())
