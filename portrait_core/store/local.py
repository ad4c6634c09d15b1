"""A store's folder on a local or mounted disk: whole files, and no access outside it through links.

The folder may be a stranger's, so no link below the root is followed (the root itself may be one), and only
regular files are read. Before reading and writing, a folder is checked once per process. That protects
against the contents of a store, not against somebody who swaps folders for links while a run is at work: such
a person can write the store anyway. Before deleting, a folder is checked each time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedWriter, FileIO

from portrait_core.errors import StoreError
from portrait_core.runtime.regular_files import kind_of

PARTIAL = ".partial"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags for reading: a link is not followed, and a FIFO that nobody writes to does not block."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (FileNotFoundError, NotADirectoryError)
_MAX_REMEMBERED = 100_000
"""Largest number of folders that are remembered per store."""
_PIECE = 1 << 20
"""Largest number of bytes for which memory is taken before they are read."""
_MAX_DEPTH = 32
"""Depth of folders in a folder that is walked or deleted; an array's have a few levels."""
_inside: defaultdict[str, set[str]] = defaultdict(set)
"""Names of folders that this process has found to lie inside their store, by the store's root."""


class IrregularObjectError(StoreError):
    """What has an object's name is a link, a folder, a pipe, a socket or a device."""


@dataclass(frozen=True)
class Entry:
    """What a folder holds under a name."""

    name: str
    size: int
    """Bytes; 0 of what is no regular file."""
    modified: float
    """Time of the last change, in seconds since 1970."""
    kind: str = ""
    """What it is, such as ``a link``; empty for a regular file."""


class LocalFolder:
    """Files below a root. Names are relative to it, with ``/``; the empty name is the root.

    Methods raise :class:`IrregularObjectError` for what is not a regular file, :class:`StoreError` for
    folders that are links, and otherwise the system's ``OSError``; an absent object is not an error.

    Args:
        root: absolute path, which need not exist yet.
        url: names the store in messages.
    """

    def __init__(self, root: str, url: str) -> None:
        self._root, self._url = root, url
        self._prefix = root.rstrip("/") + "/"
        self._known = _inside[root]

    def put(self, name: str, value: bytes) -> None:
        """Write a file whole or not at all, replacing an older one; a link of its name is replaced too."""
        folder = name.rpartition("/")[0]
        if folder not in self._known:
            self._check(folder)
        path = self._prefix + name
        partial = f"{path}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
        handle = self._create(partial, folder)
        try:
            with handle:
                handle.write(value)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)
            raise

    def _create(self, partial: str, folder: str) -> BufferedWriter:
        """Open a new file, without following links, in a folder that is made if need be."""
        for _ in range(3):  # a folder may be deleted by another process just after it was made
            with contextlib.suppress(FileNotFoundError):
                return open(partial, "xb")
            os.makedirs(self._prefix + folder, exist_ok=True)
            self._check(folder)
        return open(partial, "xb")

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """Read bytes ``[start, stop)`` of a file, fewer where it ends before; None when it does not exist.

        By default all bytes are read.
        """
        folder = name.rpartition("/")[0]
        if folder not in self._known:
            self._check(folder)
        path = self._prefix + name
        try:
            handle = self._open(path)
        except _ABSENT:
            self._check_root()
            return None
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise self._irregular(path, kind_of(about.st_mode))
            with open(handle, "rb", buffering=0, closefd=False) as file:
                file.seek(start)
                return file.readall() if stop is None else _read_exactly(file, stop - start)
        finally:
            os.close(handle)

    def _open(self, path: str) -> int:
        try:
            return os.open(path, _READ)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):
                raise
            kind = "a link" if error.errno == errno.ELOOP else "a socket or a device"
            raise self._irregular(path, kind) from None

    def _irregular(self, path: str, kind: str) -> IrregularObjectError:
        return IrregularObjectError(
            self._url, f"{path} is {kind} and no regular file: move it away", errno.EINVAL
        )

    def list(self, folder: str) -> list[str]:
        """List the names directly in a folder, sorted, without half-written files; none without a folder."""
        if folder not in self._known:
            self._check(folder)
        try:
            return sorted(name for name in os.listdir(self._prefix + folder) if not name.endswith(PARTIAL))
        except _ABSENT:
            self._check_root()
            return []

    def walk(self, folder: str) -> Iterator[Entry]:
        """Yield everything below a folder but its folders, by relative names.

        Links are not followed. Files may vanish meanwhile.
        """
        self._check(folder)
        self._check_root()
        return _walk(self._prefix + folder, "")

    def delete(self, name: str) -> None:
        """Delete a file; a missing file is ignored.

        Raises:
            StoreError: the file is a link.
        """
        self._check(name.rpartition("/")[0])  # even if remembered, because deletion is final
        try:
            if stat.S_ISLNK(os.lstat(self._prefix + name).st_mode):
                raise self._link_error(name, "is not deleted")
            os.unlink(self._prefix + name)
        except _ABSENT:
            self._check_root()

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and everything below it, except links and the folders that hold them.

        Raises:
            StoreError: the folder is a link, or contains links.
        """
        self._check(folder.rpartition("/")[0])
        path = self._prefix + folder
        if os.path.islink(path):
            raise self._link_error(folder, "is not deleted")
        try:
            handle = os.open(path, _FOLDER)
        except _ABSENT:
            self._check_root()
            return
        try:
            links = _delete_below(handle, folder)
        finally:
            os.close(handle)
        self._known.clear()  # new folders in their place are checked again
        if links:
            raise self._link_error(links[0], "is not deleted")
        with contextlib.suppress(OSError):  # a writer has put a file there since
            os.rmdir(path)

    def refresh(self, folder: str) -> None:
        """Make the system ask a file server for the state of a folder and of its parents.

        NFS caches a directory for up to a minute (``acdirmax``), including the absence of names. Opening a
        directory makes Linux compare its times with the server's (close-to-open consistency), and forget the
        cached names if they differ. This does not hold on mounts with ``nocto``, on servers whose times are
        too coarse to show the change, or on other file systems: a caller that waits for a file has to check
        again until it exists.
        """
        path = self._root
        for name in ("", *folder.split("/")):
            path = os.path.join(path, name)
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                return  # not there yet, or for the next operation to report

    def _check(self, folder: str) -> None:
        """Raise :class:`StoreError` if a link places a folder, which need not exist, outside the store."""
        path = (self._prefix + folder).rstrip("/")
        root, found = os.path.realpath(self._root), os.path.realpath(path)
        if not (found + "/").startswith(root.rstrip("/") + "/"):
            raise self._link_error(folder, "leads out of the store")
        if found != (os.path.join(root, folder).rstrip("/") or "/"):
            raise self._link_error(folder, "is not followed")
        if os.path.isdir(path):
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known.add(folder)

    def _check_root(self) -> None:
        """Raise an error if the root cannot be a store; a missing root is an empty store."""
        try:
            mode = os.stat(self._root).st_mode
        except FileNotFoundError:
            if os.path.islink(self._root):
                raise
            return
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._root)

    def _link_error(self, name: str, why: str) -> StoreError:
        """Return the error for a link on the way to ``name``."""
        parts = name.split("/")
        ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        link = next((way for way in ways if os.path.islink(self._prefix + way)), name)
        return StoreError(
            self._url,
            f"the link {self._prefix}{link} {why}: put what it leads to in its place, or remove the link",
            errno.ELOOP,
        )


def _walk(path: str, prefix: str) -> Iterator[Entry]:
    folders = [(path, prefix)]
    while folders:  # no recursion: a stranger's folders may be nested deeply
        path, prefix = folders.pop()
        with contextlib.suppress(*_ABSENT), os.scandir(path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    about = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(about.st_mode) and prefix.count("/") >= _MAX_DEPTH:
                        kind = "a folder that is nested too deeply"
                        yield Entry(prefix + entry.name, 0, about.st_mtime, kind)
                    elif stat.S_ISDIR(about.st_mode):
                        folders.append((entry.path, f"{prefix}{entry.name}/"))
                    elif stat.S_ISREG(about.st_mode):
                        yield Entry(prefix + entry.name, about.st_size, about.st_mtime)
                    else:
                        yield Entry(prefix + entry.name, 0, about.st_mtime, kind_of(about.st_mode))


def _delete_below(handle: int, shown: str) -> list[str]:
    """Delete the contents of an open folder; return the names of what stays: links, and what is very deep.

    Everything is named relative to open folders, so that no link can be inserted on the way.
    """
    links = []
    with os.scandir(handle) as entries:
        listed = list(entries)
    for entry in listed:
        name = f"{shown}/{entry.name}"
        with contextlib.suppress(FileNotFoundError):
            if entry.is_symlink() or shown.count("/") > _MAX_DEPTH:
                links.append(name)
            elif entry.is_dir(follow_symlinks=False):
                inner = os.open(entry.name, _FOLDER, dir_fd=handle)
                try:
                    links += _delete_below(inner, name)
                finally:
                    os.close(inner)
                with contextlib.suppress(OSError):  # it contains a link or a new file
                    os.rmdir(entry.name, dir_fd=handle)
            else:
                os.unlink(entry.name, dir_fd=handle)
    return links


def _read_exactly(file: FileIO, count: int) -> bytes:
    """Read ``count`` bytes, fewer where the file ends before; one system call may return less."""
    pieces: list[bytes] = []
    at_once = max(_PIECE, os.fstat(file.fileno()).st_size - file.tell())
    while count > 0 and (piece := file.read(min(count, at_once))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
