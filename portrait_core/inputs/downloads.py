"""Fetching of one remote file, within the limits of its kind: what its server announces, and what it sends.

A server may be a stranger's: it can announce one size and send another, send without end or hardly anything,
or lead elsewhere.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
from fsspec import AbstractFileSystem
from fsspec.callbacks import Callback

from portrait_core.errors import InputError
from portrait_core.runtime.addresses import PrivateAddressError, refuse_private
from portrait_core.settings.limits import refuse_beyond
from portrait_core.store.places import redact_place

SILENCE_S = 60.0
"""Seconds without a byte after which a web server counts as not answering."""
SLOWEST_BYTES_PER_S = 10_000.0
"""Mean rate, after the first :data:`SILENCE_S` seconds, below which a file is not fetched to its end."""
HTTP_OPTIONS: dict[str, Any] = {"headers": {"Accept-Encoding": "identity"}}
"""Options of requests to web servers: sizes are then those of the files themselves."""


class _Watch(Callback):  # type: ignore[misc]  # fsspec has no annotations
    """Ends a transfer that exceeds its limit or hardly moves: file systems tell it of every piece."""

    def __init__(self, place: str, limit: str) -> None:
        super().__init__()
        self._name, self._limit = redact_place(place), limit
        self._begun = time.monotonic()

    def call(self, *_: Any, **__: Any) -> None:
        refuse_beyond(self._limit, max(self.value, self.size or 0), self._name)
        passed = time.monotonic() - self._begun
        if passed > SILENCE_S and self.value < SLOWEST_BYTES_PER_S * passed:
            raise InputError(
                f"{self._name} comes too slowly: {self.value:,} bytes in {passed:.0f} s; copy it to this "
                "machine first"
            )


def download(files: AbstractFileSystem, path: str, place: str, target: Path, limit: str) -> None:
    """Fetch a remote file once, without retries.

    Args:
        files: its file system (:func:`~portrait_core.inputs.remote.reach`).
        path: path in it.
        place: URL of the file, for messages.
        target: new file, which the caller deletes after an error.
        limit: name of the limit (:class:`~portrait_core.settings.limits.Limits`) of its bytes.

    Raises:
        InputError: the file is larger than its limit, comes too slowly, or its server leads to an address
            that is not allowed.
        OSError: the connection failed, or the disk is full.
    """
    try:
        files.get_file(path, str(target), callback=_Watch(place, limit))
    except InputError:
        raise
    except Exception as error:
        if refused := refused_address(error):
            raise InputError(f"{redact_place(place)} is not read: {refused}") from None
        raise
    refuse_beyond(limit, target.stat().st_size, redact_place(place))


def refused_address(error: BaseException) -> str:
    """Return why a connection was refused by the rule of addresses; nothing for other errors."""
    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "os_error", None)  # of aiohttp's errors of connections
        for one in (seen, inner):
            if isinstance(one, PrivateAddressError):
                return str(one)
        seen = seen.__cause__ or seen.__context__
    return ""


async def http_client(**options: Any) -> aiohttp.ClientSession:
    """Return a session whose every connection is checked, and whose servers may not be silent for long.

    Args:
        options: options of fsspec for the session.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_S, sock_read=SILENCE_S)
    connector = aiohttp.TCPConnector(socket_factory=_checked_socket)
    return aiohttp.ClientSession(**{"timeout": timeout, "connector": connector, **options})


def _checked_socket(address: Any) -> socket.socket:
    """Return a socket for a connection to an address that ``getaddrinfo`` found."""
    family, kind, protocol, _, where = address
    refuse_private(where[0], where[1])
    return socket.socket(family, kind, protocol)
