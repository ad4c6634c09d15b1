"""File systems elsewhere: reaching them, and what their answers and errors mean.

Options of a file system (endpoints, credentials) come from the environment, as fsspec and its file systems
read them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from portrait_core.errors import InputError
from portrait_core.store.places import checked_place, redact_message, redact_place
from portrait_core.store.retries import disable_client_retries, limit_client_retries

_VERSION = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "mtime", "updated")


def reach(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL and the path in it; what it lists is never remembered.

    Raises:
        InputError: :func:`~portrait_core.store.places.checked_place` refuses it, or it needs a package
            that is not installed.
    """
    checked_place(url)
    try:
        options = limit_client_retries(url, {"use_listings_cache": False})
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise InputError(f"{redact_place(url)} needs another package: {error}") from error
    except ValueError as error:
        said = redact_message(str(error), url)
        raise InputError(
            f"{redact_place(url)} is no URL ({said}); give a path, or s3://, gs://, https://"
        ) from None
    disable_client_retries(files)
    return files, path


def version_of(about: Mapping[str, Any]) -> str:
    """What changes whenever an object's content does: entity tag, digest or time; empty if nothing tells."""
    return str(next((about[name] for name in (*_VERSION, "created") if about.get(name)), ""))


def reason(error: Exception, place: str = "") -> str:
    """Why a file cannot be read and what to do, in words that follow its name."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return "is a folder; give the path of one file"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied); change its permissions, or check your access"
    said = redact_message(str(error), place)
    if isinstance(error, InputError):
        return said.removeprefix(f"{redact_place(place)} ") if place else said
    said = said or type(error).__name__
    return f"cannot be reached ({said}); check the address, the network and your access"


def cause(error: Exception, place: str) -> Exception | None:
    """The error, as another one's cause; none where it would show what :func:`redact_place` hides."""
    return error if redact_place(place) == place else None


@contextlib.contextmanager
def translate_errors(place: str) -> Iterator[None]:
    """Turn what file systems raise into what callers tell apart: wrong for good, or perhaps for now."""
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{redact_place(place)} {reason(error, place)}") from cause(error, place)
    except OSError as error:
        if redact_message(str(error), place) == str(error):
            raise
        raise ConnectionError(redact_message(str(error), place)) from None
    except Exception as error:  # missing credentials, for one, are of a class of the client's
        raise InputError(f"{redact_place(place)} {reason(error, place)}") from cause(error, place)
