"""Retries while a remote store does not answer: one place, one time limit for every operation.

The client libraries' own retries are reduced to match (:func:`limit_client_retries`): five attempts of s3fs
around five of botocore, 15 s each, would keep a run waiting on a hung server for minutes before anybody is
told.
"""

from __future__ import annotations

import errno
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem, sync
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

from portrait_core.errors import StoreError
from portrait_core.text.redaction import redact_text

GIVE_UP_S = 120.0
"""Seconds after the first attempt, after which no other attempt begins."""
UPLOAD_S = 30.0
"""Seconds that the upload of a small object may take."""
_MIN_BYTES_PER_S = 1e5
"""Mean rate below which an upload is given up."""
_MAX_WAIT_S = 8.0
_NOTEWORTHY_S = 2.0
_QUIET_S = 300.0
_THREADS = 16
_S3 = ("s3://", "s3a://")
_log = logging.getLogger(__name__)

# Errors that the next attempt would meet as well: s3fs uses these numbers for invalid requests (no such
# region, a name that is too long, a method that the server lacks).
_LASTING = (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM, errno.EMSGSIZE)
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk, where a person has to make room first."""
_warned_at: dict[str, float] = {}
"""Time of this process's last warning about each place, by the monotonic clock in seconds."""
_warning = threading.Lock()

T = TypeVar("T")
R = TypeVar("R")


class Retrier:
    """Repeats operations while they fail for reasons that may pass. Its errors are the operation's own.

    It warns about a place at most once in five minutes per process, however many objects of this class are
    made for it.
    """

    def __init__(self, url: str) -> None:
        self._url = redact_text(url)

    def call(self, operation: Callable[[], R]) -> R:
        """Run an operation that may be done twice.

        Raises the operation's last error after :data:`GIVE_UP_S`, or at once when the error will not pass.
        """
        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.5, max=_MAX_WAIT_S),
            stop=stop_before_delay(GIVE_UP_S),
            before_sleep=self._warn,
            reraise=True,
        )
        return retrying(operation)

    def call_each(self, operation: Callable[[T], object], items: Iterable[T]) -> None:
        """Run an operation for every item, several at a time, with retries of each by itself.

        Repeating all of them after one error would never end with many items and a server that refuses a
        fraction of the requests. Nothing is still running when this returns or raises.
        """
        items = list(items)
        if len(items) == 1:
            self.call(lambda: operation(items[0]))
        elif items:
            with ThreadPoolExecutor(min(_THREADS, len(items))) as pool:
                list(pool.map(lambda item: self.call(lambda: operation(item)), items))

    def _warn(self, state: RetryCallState) -> None:
        waited_s = (state.seconds_since_start or 0.0) + state.upcoming_sleep
        if waited_s <= _NOTEWORTHY_S:
            return
        now = time.monotonic()
        with _warning:
            if now - _warned_at.get(self._url, now - 2 * _QUIET_S) <= _QUIET_S:
                return
            _warned_at[self._url] = now
        error = state.outcome.exception() if state.outcome else None
        message = redact_text(str(error))
        _log.warning("the store %s does not answer (%s); trying again", self._url, message)


def upload(fs: AbstractFileSystem, path: str, value: bytes) -> None:
    """Put an object, within a time limit.

    s3fs announces each upload with ``Expect: 100-continue``, and aiohttp waits for the answer without the
    timeouts that it applies to all other answers: a server that hangs would be waited for without end.

    Raises:
        TimeoutError: the upload took longer than :data:`UPLOAD_S` plus the time for its bytes.
    """
    if isinstance(fs, AsyncFileSystem):
        limit_s = UPLOAD_S + len(value) / _MIN_BYTES_PER_S
        sync(fs.loop, fs._pipe_file, path, value, timeout=limit_s)
    else:
        fs.pipe_file(path, value)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later; absent, forbidden and malformed ones will not."""
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError | StoreError):
        return False
    number = getattr(error, "errno", None)
    return isinstance(error, _network_errors()) and number not in (*_LASTING, *DISK_FULL_ERRORS)


@functools.cache
def _network_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors of networks and servers."""
    import aiohttp  # here, like botocore: slow to import, and stores on disks need neither
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    clients = (boto.ClientError, boto.ConnectionError, boto.HTTPClientError, ResponseParserError)
    return (OSError, aiohttp.ClientError, *clients)


def limit_client_retries(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return storage options that leave waiting to :class:`Retrier`; the user's own options stay.

    botocore keeps two attempts per request, for the parts of a large upload, which fails as a whole.
    """
    if not url.startswith(_S3):
        return dict(options)
    config = {"retries": {"total_max_attempts": 2}, **(options.get("config_kwargs") or {})}
    return {**options, "config_kwargs": config}


def disable_client_retries(fs: AbstractFileSystem) -> None:
    """Turn off the outer layer of s3fs's own retries, for which there is no storage option."""
    if "s3" in fs.protocol:
        fs.retries = 1
