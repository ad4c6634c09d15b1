"""Access to remote file systems, and the meaning of their answers and errors.

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
from portrait_core.inputs.downloads import HTTP_OPTIONS, http_client, refused_address
from portrait_core.runtime.regular_files import IrregularFileError
from portrait_core.store.places import checked_place, redact_message, redact_place
from portrait_core.store.retries import disable_client_retries, is_transient, limit_client_retries

_VERSION = ("ETag", "etag", "md5Hash", "Content-MD5", "LastModified", "Last-Modified", "mtime", "updated")


def reach(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a URL and the path in it; its listings are not cached.

    Raises:
        InputError: :func:`~portrait_core.store.places.checked_place` refuses the URL, or it needs a package
            that is not installed.
    """
    checked_place(url)
    try:
        options = limit_client_retries(url, {"use_listings_cache": False})
        if url.startswith(("http://", "https://")):
            options |= {**HTTP_OPTIONS, "get_client": http_client}
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise InputError(f"{redact_place(url)} needs another package: {error}") from error
    except ValueError as error:
        message = redact_message(str(error), url)
        raise InputError(
            f"{redact_place(url)} is no URL ({message}); give a path, or s3://, gs://, https://"
        ) from None
    disable_client_retries(files)
    return files, path


def version_of(about: Mapping[str, Any]) -> str:
    """Return a text that changes with an object's content (entity tag, digest or time), or nothing."""
    return str(next((about[name] for name in (*_VERSION, "created") if about.get(name)), ""))


def read_problem(error: Exception, place: str = "") -> str:
    """Return why a file cannot be read, and the advice, in words that follow its name."""
    if refused := refused_address(error):
        return f"is not read: {refused}"
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return "is a folder; give the path of one file"
    if isinstance(error, PermissionError):
        return "cannot be read (permission denied); change its permissions, or check your access"
    message = redact_message(str(error), place)
    if isinstance(error, InputError | IrregularFileError):
        return message.removeprefix(f"{redact_place(place)} ") if place else message
    message = message or type(error).__name__
    return f"cannot be reached ({message}); check the address, the network and your access"


def safe_cause(error: Exception, place: str) -> Exception | None:
    """Return the error as another one's cause; None where it would show secrets of the place."""
    return error if redact_place(place) == place else None


@contextlib.contextmanager
def translate_errors(place: str) -> Iterator[None]:
    """Translate file systems' errors into classes that callers distinguish.

    A permanent error becomes an :class:`InputError`; one that may pass stays an ``OSError``, without secrets.
    """
    try:
        yield
    except InputError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{redact_place(place)} {read_problem(error, place)}") from safe_cause(error, place)
    except OSError as error:
        if redact_message(str(error), place) == str(error):
            raise
        raise ConnectionError(redact_message(str(error), place)) from None
    except Exception as error:  # for example a client's own class for missing credentials
        if is_transient(error):
            raise ConnectionError(redact_message(str(error), place)) from safe_cause(error, place)
        raise InputError(f"{redact_place(place)} {read_problem(error, place)}") from safe_cause(error, place)
