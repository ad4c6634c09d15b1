"""Objects by name over fsspec: whole puts, whole gets, listings. All data of the store passes here.

An object is either present and complete, or absent: on a local disk by a temporary file that is renamed
(:mod:`portrait_core.store.local`), elsewhere because object stores guarantee it. An operation that fails for
a reason that may pass is repeated for two minutes (:mod:`portrait_core.store.retries`). Any other failure is
a :class:`StoreError`, unless the object is merely absent or the disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits
from portrait_core.store import refusals
from portrait_core.store.local import PARTIAL, Entry, IrregularObjectError, LocalFolder
from portrait_core.store.places import checked_place
from portrait_core.store.retries import (
    Retrier,
    disable_client_retries,
    is_transient,
    limit_client_retries,
    upload,
)

R = TypeVar("R")
_SMALL_BYTES = 1 << 16
"""Bytes of an object up to which many are read together."""
_TOGETHER = 256
"""Number of small objects that are read together."""
_PIECE = 1 << 24
"""Bytes of a large object that are read together."""
_log = logging.getLogger(__name__)


class Files:
    """A folder or bucket prefix. Names are relative, with ``/``.

    Every method raises :class:`StoreError` when the store fails, and ``OSError`` with ``ENOSPC`` or
    ``EDQUOT`` when its disk is full.
    """

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        checked_place(os.fspath(url))
        options = {"use_listings_cache": False, **(storage_options or {})}
        try:
            self._fs, root = fsspec.core.url_to_fs(
                os.fspath(url), **limit_client_retries(os.fspath(url), options)
            )
        except ImportError as error:
            raise InputError(f"{url} needs another package: {error}") from error
        except ValueError as error:
            raise InputError(
                f"{url} is not a store's URL ({error}); give a folder, or file://, s3://, gs:// ..."
            ) from error
        disable_client_retries(self._fs)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root = str(Path(root).absolute()) if self.is_local else root.rstrip("/")
        self._url = os.fspath(url)
        self._retrier = Retrier(self._url)
        self._local = LocalFolder(self._root, self._url)
        """The folder on a disk; used only where :attr:`is_local` is true."""

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def url(self, name: str) -> str:
        """Return the path of an object on a local disk, else its URL."""
        return self._path(name) if self.is_local else str(self._fs.unstrip_protocol(self._path(name)))

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, each of them whole or not at all, replacing older ones."""
        if self.is_local:
            for name, value in objects.items():
                self._on_disk(self._local.put, name, value)
        else:
            paths = [(self._path(name), value) for name, value in objects.items()]
            with self._store_errors(may_be_absent=False):
                self._retrier.call_each(lambda item: upload(self._fs, *item), paths)

    def get(self, names: Iterable[str], most: int | None = None) -> dict[str, bytes]:
        """Read those of the objects that exist, and no more of each than a reader allows.

        What is no regular file on a disk counts as absent.

        Args:
            names: names of the objects.
            most: bytes that an object may have, ``limits.record_bytes`` by default. A larger one comes back
                with one byte more, by which the reader knows it.
        """
        most = current_limits().record_bytes if most is None else most
        if self.is_local:
            read = ((name, self._get_local(name, 0, most + 1)) for name in names)
            return {name: value for name, value in read if value is not None}
        paths = {self._path(name): name for name in names}
        values: dict[str, bytes] = {}
        if paths:
            with self._store_errors():
                self._retrier.call(lambda: self._fetch_into(paths, most + 1, values))
        return values

    def _get_local(self, name: str, start: int, stop: int) -> bytes | None:
        try:
            return self._on_disk(self._local.get, name, start, stop)
        except IrregularObjectError as error:
            _log.warning("%s", error)
            return None

    def _fetch_into(self, paths: dict[str, str], stop: int, values: dict[str, bytes]) -> None:
        """Move the first bytes of readable objects from ``paths`` (path to name) to ``values``.

        Raises the error of an object that may be readable later.
        """
        failed: list[Exception] = []
        wanted = list(paths)
        read = self._fs.cat_ranges(wanted, [0] * len(wanted), [stop] * len(wanted), on_error="return")
        for path, value in zip(wanted, read, strict=True):
            if isinstance(value, bytes) or _is_past_the_end(value):
                values[paths.pop(path)] = value if isinstance(value, bytes) else b""
            elif isinstance(value, FileNotFoundError | KeyError) and not refusals.bucket_is_missing(value):
                del paths[path]
            else:
                failed.append(value)
        if failed:
            raise min(failed, key=is_transient)  # errors that will not pass come first

    def get_each(self, names: Sequence[str], most: int | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield those of the objects that exist, small ones read together and large ones alone.

        Args:
            names: names of the objects.
            most: bytes that an object may have, as for :meth:`get`.
        """
        for start in range(0, len(names), _TOGETHER):
            for name, value in self.get(names[start : start + _TOGETHER], _SMALL_BYTES).items():
                whole = value if len(value) <= _SMALL_BYTES else self.get_one(name, most)
                if whole is not None:
                    yield name, whole

    def get_one(self, name: str, most: int | None = None) -> bytes | None:
        """Read an object as :meth:`get` does; None when it does not exist."""
        return self.get([name], most).get(name)

    def get_range(self, name: str, start: int, stop: int) -> bytes | None:
        """Read bytes ``[start, stop)`` of an object, or fewer at its end; None when it does not exist."""
        if self.is_local:
            return self._get_local(name, start, stop)
        try:
            with self._store_errors():
                data: bytes = self._retrier.call(
                    lambda: self._fs.cat_file(self._path(name), start=start, end=stop)
                )
        except FileNotFoundError:
            return None
        except OSError as error:
            if not _is_past_the_end(error):
                raise
            return b""
        return data

    def digest(self, name: str) -> tuple[str, int] | None:
        """Return the SHA-256, in hexadecimal, and the bytes of an object, which is read in pieces.

        Reading stops where it exceeds ``limits.object_bytes``. None when the object does not exist.
        """
        sha256, size, most = hashlib.sha256(), 0, current_limits().object_bytes
        while (piece := self.get_range(name, size, min(size + _PIECE, most + 1))) is not None:
            sha256.update(piece)
            size += len(piece)
            if len(piece) < _PIECE:
                return sha256.hexdigest(), size
        return None

    def list(self, folder: str) -> list[str]:
        """List the last parts of the names directly in a folder, sorted; none when it does not exist."""
        if self.is_local:
            return self._on_disk(self._local.list, folder)
        try:
            with self._store_errors():
                paths = self._retrier.call(
                    lambda: self._fs.ls(self._path(folder), detail=False, refresh=True)
                )
        except FileNotFoundError:
            return []
        return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths})

    def refresh(self, folder: str) -> None:
        """Make the next read of a folder show what other hosts wrote, as far as the system can.

        See :meth:`LocalFolder.refresh`. Stores other than disks are asked anew each time.
        """
        if self.is_local:
            self._local.refresh(folder)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the bytes of every object below a folder, by relative name, without half-written files."""
        if self.is_local:
            entries = self._on_disk(lambda: [*self._local.walk(folder)])
            return {
                entry.name: entry.size
                for entry in entries
                if not entry.kind and not entry.name.endswith(PARTIAL)
            }
        prefix = self._path(folder) + "/"
        try:
            with self._store_errors():
                objects = self._retrier.call(lambda: self._fs.find(prefix.rstrip("/"), detail=True))
        except FileNotFoundError:
            return {}
        return {
            path.removeprefix(prefix): int(entry["size"])
            for path, entry in objects.items()
            if path.startswith(prefix)
        }

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that do not exist are ignored. A link on a disk is refused."""
        if self.is_local:
            for name in names:
                self._on_disk(self._local.delete, name)
        else:
            # One by one: s3fs does not report which objects failed in a request that deletes many.
            with self._store_errors():
                self._retrier.call_each(self._delete_remote, [self._path(name) for name in names])

    def _delete_remote(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except FileNotFoundError as error:
            if refusals.bucket_is_missing(error):
                raise

    def delete_folder(self, folder: str) -> None:
        """Delete a folder and everything below it; a missing folder is ignored.

        Links on a disk are refused and not followed.
        """
        if self.is_local:
            self._on_disk(self._local.delete_folder, folder)
        else:
            self.delete([f"{folder}/{name}" for name in self.sizes(folder)])

    def partials(self, older_than_s: float, folder: str = "") -> Sequence[str]:
        """List the half-written files that killed writers left below a folder of a local disk, sorted.

        Other stores have none: an upload that was cut off was never visible.
        """
        if not self.is_local:
            return []
        before = time.time() - older_than_s
        prefix = f"{folder}/" if folder else ""
        entries = self._on_disk(lambda: [*self._local.walk(folder)])
        return sorted(
            prefix + entry.name
            for entry in entries
            if not entry.kind and entry.name.endswith(PARTIAL) and entry.modified < before
        )

    def irregular(self, folder: str) -> Sequence[Entry]:
        """List what lies below a folder of a local disk and is no regular file; other stores have none."""
        if not self.is_local:
            return []
        entries = self._on_disk(lambda: [*self._local.walk(folder)])
        return sorted((entry for entry in entries if entry.kind), key=lambda entry: entry.name)

    def sweep(self, older_than_s: float) -> int:
        """Delete the files that :meth:`partials` lists; return their number."""
        partials = self.partials(older_than_s)
        self.delete(partials)
        return len(partials)

    def _on_disk(self, operation: Callable[..., R], *arguments: Any) -> R:
        """Run an operation on a disk, and repeat it while it fails for a reason that may pass."""
        try:
            return operation(*arguments)
        except OSError as error:
            first = error
        with self._store_errors(may_be_absent=False):
            if first.errno not in refusals.TRANSIENT_DISK_ERRORS:
                raise first
            return self._retrier.call(lambda: operation(*arguments))

    @contextlib.contextmanager
    def _store_errors(self, may_be_absent: bool = True) -> Iterator[None]:
        """Translate a store's failures (:func:`portrait_core.store.refusals.as_store_error`)."""
        try:
            yield
        except Exception as error:
            translated = refusals.as_store_error(error, self._url, self.is_local, may_be_absent)
            if translated is error:
                raise
            raise translated from error


def _is_past_the_end(error: BaseException) -> bool:
    """Tell whether a server refused a range because the object ends before it, as an empty one does."""
    codes = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return getattr(error, "errno", None) == errno.EINVAL or any(str(code) == "416" for code in codes)
