"""Translation of file systems' errors into errors of the store, with advice to the user."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping

from portrait_core.errors import StoreError
from portrait_core.store import retries
from portrait_core.text.redaction import redact_text

TRANSIENT_DISK_ERRORS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.EINTR)
"""Errors of a mounted disk that the next attempt may not meet: its server restarts, a handle is stale."""
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_IN_THE_WAY = (errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ELOOP)


def as_store_error(error: Exception, url: str, is_local: bool, may_be_absent: bool) -> Exception:
    """Return the :class:`StoreError` that an operation's error stands for, or the error itself.

    The error itself is returned when the disk is full, when an object is absent (where ``may_be_absent``), or
    when it comes from the program rather than from a file system.

    Args:
        error: the operation's error.
        url: URL of the store.
        is_local: whether the store is on a disk.
        may_be_absent: whether the operation expects that its object may be absent.
    """
    if isinstance(error, StoreError) or getattr(error, "errno", None) in retries.DISK_FULL_ERRORS:
        return error
    if isinstance(error, FileNotFoundError) and may_be_absent and not bucket_is_missing(error):
        return error
    if not isinstance(error, OSError) and type(error).__module__ == "builtins":
        return error
    message = redact_text(str(error)) or type(error).__name__
    problem, advice = _disk_advice(error) if is_local else _remote_advice(error)
    return StoreError(url, f"{problem} ({message}): {advice}", _errno_of(error))


def is_of_one_object(error: StoreError) -> bool:
    """Tell whether an error concerns one object or folder, so that a command can go on with the others."""
    return error.errno in (*_IN_THE_WAY, *_REFUSED, errno.EINVAL, errno.ENAMETOOLONG)


def bucket_is_missing(error: BaseException) -> bool:
    """Tell whether the bucket does not exist; an absent object is a ``FileNotFoundError`` too."""
    return "NoSuchBucket" in _codes(error) or "bucket does not exist" in str(error)


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the servers' codes in an error and its causes: ``NoSuchBucket``, ``403`` ..."""
    current: BaseException | None = error
    while current is not None:
        response = getattr(current, "response", None)
        if isinstance(response, Mapping) and isinstance(response.get("Error"), Mapping):
            yield str(response["Error"].get("Code"))
        current = current.__cause__


def _remote_advice(error: Exception) -> tuple[str, str]:
    """Return the problem of a store that is not on a disk, and the advice."""
    if bucket_is_missing(error):
        return "its bucket does not exist", "check the bucket's name, or make it"
    if isinstance(error, PermissionError) or {"403", "AccessDenied"} & set(_codes(error)):
        return "it refuses access", (
            "check the credentials and what they allow; to credentials that may not list the bucket, S3 "
            "refuses every object that is absent"
        )
    if retries.is_transient(error):
        return (
            f"it did not do what was asked within {retries.GIVE_UP_S:.0f} seconds",
            "check the network, the endpoint and the server",
        )
    return "it cannot be used", "check its URL, its storage options and the credentials"


def _disk_advice(error: Exception) -> tuple[str, str]:
    """Return the problem of a store on a disk, and the advice."""
    number = getattr(error, "errno", None)
    if isinstance(error, PermissionError) or number in _REFUSED:
        return "access is refused", "check who may read and write there"
    if number in _IN_THE_WAY:
        return "a file, a folder or a broken link is in the way", "check the path, or move it away"
    return "its disk fails", "check the disk, or the server that it is mounted from"


def _errno_of(error: Exception) -> int | None:
    if (number := getattr(error, "errno", None)) is not None:
        return int(number)
    if bucket_is_missing(error):
        return errno.ENOENT
    if isinstance(error, PermissionError):
        return errno.EACCES
    return errno.ETIMEDOUT if isinstance(error, TimeoutError) else None
