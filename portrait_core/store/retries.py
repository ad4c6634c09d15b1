"""Trying again while a store elsewhere does not answer: one place, one budget for every operation.

What the client libraries try by themselves is cut down to match (:func:`limit_client_retries`): five attempts
of s3fs around five of botocore, 15 s each, would keep a run waiting on a hung server for minutes before
anybody hears of it.
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

from portrait_core.errors import StoreError, without_secrets

GIVE_UP_S = 120.0
"""No attempt begins later than this after the first."""
UPLOAD_S = 30.0
"""How long the upload of a small object may take."""
_SLOWEST_BYTES_PER_S = 1e5
"""An upload that is slower over its whole length is given up."""
_LONGEST_WAIT_S = 8.0
_NOTEWORTHY_S = 2.0
_QUIET_S = 300.0
_THREADS = 16
_S3 = ("s3://", "s3a://")
_log = logging.getLogger(__name__)

# Answers that the next attempt would get as well: s3fs gives these numbers to requests that are wrong in
# themselves (no such region, a name that is too long, a method that the server lacks). On a disk, room has to
# be made first.
_LASTING = (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS, errno.EPERM, errno.EMSGSIZE)
DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_warned_at: dict[str, float] = {}
"""When this process last warned of a place, by the monotonic clock in seconds."""
_warning = threading.Lock()

T = TypeVar("T")
R = TypeVar("R")


class Retrier:
    """Runs operations again while they fail for reasons that pass. Its errors are the operation's own.

    It warns of a place at most once in five minutes per process, however many of these are made for it.
    """

    def __init__(self, url: str) -> None:
        self._url = without_secrets(url)

    def call(self, operation: Callable[[], R]) -> R:
        """Run an operation that may be done twice; raise its last error after :data:`GIVE_UP_S`, or at once
        when the error will not pass.
        """
        retrying = Retrying(
            retry=retry_if_exception(is_transient),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
            stop=stop_before_delay(GIVE_UP_S),
            before_sleep=self._warn,
            reraise=True,
        )
        return retrying(operation)

    def call_each(self, operation: Callable[[T], object], items: Iterable[T]) -> None:
        """Run an operation for every item, several at a time, each tried again by itself.

        All at once and all again after one error would never end with many items and a server that refuses
        a share of the requests. Nothing is still running when this returns or raises.
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
        said = without_secrets(str(error))
        _log.warning("the store %s does not answer (%s); trying again", self._url, said)


def upload(fs: AbstractFileSystem, path: str, value: bytes) -> None:
    """Put an object, for a limited time.

    s3fs announces each upload with ``Expect: 100-continue``, and aiohttp waits for the answer without the
    timeouts that it has for all other answers: a server that hangs would be waited for without end.

    Raises:
        TimeoutError: it took longer than :data:`UPLOAD_S` and what its bytes need.
    """
    if isinstance(fs, AsyncFileSystem):
        limit_s = UPLOAD_S + len(value) / _SLOWEST_BYTES_PER_S
        sync(fs.loop, fs._pipe_file, path, value, timeout=limit_s)
    else:
        fs.pipe_file(path, value)


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later: what is absent, forbidden or malformed will not."""
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError | StoreError):
        return False
    number = getattr(error, "errno", None)
    return isinstance(error, _network_errors()) and number not in (*_LASTING, *DISK_FULL_ERRORS)


@functools.cache
def _network_errors() -> tuple[type[Exception], ...]:
    """Errors by which a network or a server shows; imported here because that takes long without S3."""
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    clients = (boto.ClientError, boto.ConnectionError, boto.HTTPClientError, ResponseParserError)
    return (OSError, aiohttp.ClientError, *clients)


def limit_client_retries(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Storage options that leave waiting to :class:`Retrier`; what the user set stays.

    Two attempts a request are left to botocore, for the parts of a large upload: it fails as a whole.
    """
    if not url.startswith(_S3):
        return dict(options)
    config = {"retries": {"total_max_attempts": 2}, **(options.get("config_kwargs") or {})}
    return {**options, "config_kwargs": config}


def disable_client_retries(fs: AbstractFileSystem) -> None:
    """Turn off the outer layer of s3fs's own retries, which no storage option reaches."""
    if "s3" in fs.protocol:
        fs.retries = 1
