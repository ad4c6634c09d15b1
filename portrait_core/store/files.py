"""Objects by name over fsspec: whole puts, whole gets, listings. All that the store keeps passes here.

An object is either there, complete, or not there: on a local disk by a temporary file that is renamed,
elsewhere because that is what object stores do. Elsewhere, whatever fails for a reason that may pass is tried
again for two minutes (:mod:`portrait_core.store.retries`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from portrait_core.errors import InputError
from portrait_core.places import checked_place
from portrait_core.store.retries import Patience, is_transient, stop_own_retries, with_few_own_retries

PARTIAL = ".partial"


class Files:
    """A folder or bucket prefix. Names are relative, with ``/``."""

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        checked_place(os.fspath(url))
        options = {"use_listings_cache": False, **(storage_options or {})}
        try:
            self._fs, root = fsspec.core.url_to_fs(
                os.fspath(url), **with_few_own_retries(os.fspath(url), options)
            )
        except ImportError as error:
            raise InputError(f"{url} needs another package: {error}") from error
        except ValueError as error:
            raise InputError(
                f"{url} is not a store's URL ({error}); give a folder, or file://, s3://, gs:// ..."
            ) from error
        stop_own_retries(self._fs)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._root = str(Path(root).absolute()) if self.is_local else root.rstrip("/")
        self._patience = Patience(os.fspath(url))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def url(self, name: str) -> str:
        """Path of an object on a local disk, else its URL."""
        return self._path(name) if self.is_local else str(self._fs.unstrip_protocol(self._path(name)))

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Write objects, each of them whole or not at all, replacing older ones."""
        if self.is_local:
            for name, value in objects.items():
                _put_local(Path(self._path(name)), value)
        else:
            paths = [(self._path(name), value) for name, value in objects.items()]
            self._patience.each(lambda item: self._fs.pipe_file(*item), paths)

    def get(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read those of the objects that exist."""
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        if self.is_local:
            return {
                name: value for path, name in paths.items() if (value := _get_local(Path(path))) is not None
            }
        values: dict[str, bytes] = {}
        self._patience.call(lambda: self._fetch(paths, values))
        return values

    def _fetch(self, paths: dict[str, str], values: dict[str, bytes]) -> None:
        """Move what can be read from ``paths`` (path to name) to ``values``; raise if some may come later."""
        failed: list[Exception] = []
        for path, value in self._fs.cat(list(paths), on_error="return").items():
            if isinstance(value, bytes):
                values[paths.pop(path)] = value
            elif isinstance(value, FileNotFoundError | KeyError):
                del paths[path]
            else:
                failed.append(value)
        if failed:
            raise min(failed, key=is_transient)  # what will not pass first

    def get_one(self, name: str) -> bytes | None:
        """Read an object, or None when there is none."""
        return self.get([name]).get(name)

    def get_range(self, name: str, start: int, stop: int) -> bytes | None:
        """Read bytes ``[start, stop)`` of an object, fewer where it ends before; None when there is none."""
        if self.is_local:
            try:
                with open(self._path(name), "rb") as file:
                    file.seek(start)
                    return file.read(stop - start)
            except (FileNotFoundError, NotADirectoryError):
                return None
        try:
            found: bytes = self._patience.call(
                lambda: self._fs.cat_file(self._path(name), start=start, end=stop)
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return b""  # the object ends before the range begins
        return found

    def list(self, folder: str) -> list[str]:
        """Last parts of the names directly under a folder, sorted; none when there is no such folder."""
        if self.is_local:
            try:
                return sorted(name for name in os.listdir(self._path(folder)) if not name.endswith(PARTIAL))
            except (FileNotFoundError, NotADirectoryError):
                return []
        try:
            found = self._patience.call(lambda: self._fs.ls(self._path(folder), detail=False, refresh=True))
        except FileNotFoundError:
            return []
        return sorted({str(path).rstrip("/").rsplit("/", 1)[-1] for path in found})

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every object below a folder, by name relative to it; half-written files are left out."""
        if self.is_local:
            entries = _walk(self._path(folder))
            return {name: size for name, size, _ in entries if not name.endswith(PARTIAL)}
        prefix = self._path(folder) + "/"
        try:
            found = self._patience.call(lambda: self._fs.find(prefix.rstrip("/"), detail=True))
        except FileNotFoundError:
            return {}
        return {
            path.removeprefix(prefix): int(entry["size"])
            for path, entry in found.items()
            if path.startswith(prefix)
        }

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are left alone."""
        paths = [self._path(name) for name in names]
        if self.is_local:
            for path in paths:
                Path(path).unlink(missing_ok=True)
        else:
            # One by one: of a request that deletes many, s3fs does not say which ones failed.
            self._patience.each(self._delete_remote, paths)

    def _delete_remote(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(path)

    def delete_folder(self, folder: str) -> None:
        """Delete everything below a folder, and the folder; nothing happens when there is none."""
        if not self.is_local:
            self.delete([f"{folder}/{name}" for name in self.sizes(folder)])
            return
        for parent, _, names in os.walk(self._path(folder), topdown=False):
            for name in names:
                Path(parent, name).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a writer has put something there since
                os.rmdir(parent)

    def partials(self, older_than_s: float, folder: str = "") -> Sequence[str]:
        """Names of what killed writers left half-written below a folder of a local disk, sorted.

        Other stores have none: an upload that was cut off was never visible.
        """
        if not self.is_local:
            return []
        before = time.time() - older_than_s
        prefix = f"{folder}/" if folder else ""
        found = _walk(self._path(folder))
        return sorted(
            prefix + name for name, _, modified in found if name.endswith(PARTIAL) and modified < before
        )

    def sweep(self, older_than_s: float) -> int:
        """Delete what :meth:`partials` finds; return how many files that was."""
        partials = self.partials(older_than_s)
        self.delete(partials)
        return len(partials)


def _walk(folder: str, prefix: str = "") -> Iterator[tuple[str, int, float]]:
    """Name below a folder, bytes and time of modification of every file; files may vanish meanwhile."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir():
                    yield from _walk(entry.path, f"{prefix}{entry.name}/")
                else:
                    found = entry.stat()
                    yield prefix + entry.name, found.st_size, found.st_mtime


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
