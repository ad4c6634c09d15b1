"""Objects by name over fsspec: whole puts, whole gets, listings. All that the store keeps passes here.

An object is either there, complete, or not there: on a local disk by a temporary file that is renamed,
elsewhere because that is what object stores do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from portrait_core.errors import InputError

PARTIAL = ".partial"


class Files:
    """A folder or bucket prefix. Names are relative, with ``/``."""

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        options = {"use_listings_cache": False, **(storage_options or {})}
        try:
            self._fs, root = fsspec.core.url_to_fs(os.fspath(url), **options)
        except ImportError as error:
            raise InputError(f"{url} needs another package: {error}") from error
        except ValueError as error:
            raise InputError(
                f"{url} is not a store's URL ({error}); give a folder, or file://, s3://, gs:// ..."
            ) from error
        self._is_local = isinstance(self._fs, LocalFileSystem)
        self._root = str(Path(root).absolute()) if self._is_local else root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def url(self, name: str) -> str:
        """Path of an object on a local disk, else its URL."""
        return self._path(name) if self._is_local else str(self._fs.unstrip_protocol(self._path(name)))

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, each of them whole or not at all, replacing older ones."""
        if self._is_local:
            for name, value in objects.items():
                _put_local(Path(self._path(name)), value)
        elif len(objects) == 1:
            ((name, value),) = objects.items()
            self._fs.pipe_file(self._path(name), value)
        else:
            self._fs.pipe({self._path(name): value for name, value in objects.items()})

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read those of the objects that exist."""
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        if self._is_local:
            return {
                name: value for path, name in paths.items() if (value := _get_local(Path(path))) is not None
            }
        found = self._fs.cat(list(paths), on_error="return")
        values = {}
        for path, value in found.items():
            if isinstance(value, bytes):
                values[paths[path]] = value
            elif not isinstance(value, FileNotFoundError | KeyError):
                raise value
        return values

    def get_one(self, name: str) -> bytes | None:
        """Read an object, or None when there is none."""
        return self.get([name]).get(name)

    def list(self, folder: str) -> list[str]:
        """Last parts of the names directly under a folder, sorted; none when there is no such folder."""
        if self._is_local:
            try:
                return sorted(name for name in os.listdir(self._path(folder)) if not name.endswith(PARTIAL))
            except (FileNotFoundError, NotADirectoryError):
                return []
        try:
            found = self._fs.ls(self._path(folder), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in found})

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are left alone."""
        paths = [self._path(name) for name in names]
        if self._is_local:
            for path in paths:
                Path(path).unlink(missing_ok=True)
        elif paths:
            self._delete_remote(paths)

    def _delete_remote(self, paths: Sequence[str]) -> None:
        try:
            self._fs.rm(list(paths))  # one request for many, where there is such a thing
        except FileNotFoundError:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm_file(path)

    def sweep(self, older_than_s: float) -> int:
        """Delete what killed writers left half-written on a local disk; return how many files that was.

        Other stores have none: an upload that was cut off was never visible.
        """
        if not self._is_local:
            return 0
        swept = 0
        before = time.time() - older_than_s
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                if name.endswith(PARTIAL) and path.stat().st_mtime < before:
                    path.unlink(missing_ok=True)
                    swept += 1
        return swept


def _put_local(path: Path, value: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
    try:
        handle = open(partial, "xb")  # noqa: SIM115 - closed below; opened twice when the folder is new
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(partial, "xb")  # noqa: SIM115
    try:
        with handle:
            handle.write(value)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _get_local(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
