"""Waiting until data that another host wrote becomes visible here."""

from __future__ import annotations

import time
from collections.abc import Callable

from portrait_core.runtime import cancellation

TIMEOUT_S = 75.0
"""Seconds, more than NFS caches a directory (``acdirmax``, 60 s by default)."""
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 5.0
_STOP_CHECK_S = 0.2


def wait_until(
    check: Callable[[], bool],
    patience_s: float = TIMEOUT_S,
    stop: Callable[[], None] = cancellation.check,
    refresh: Callable[[], None] | None = None,
) -> bool:
    """Repeat a check, with growing pauses, until it returns True or time runs out.

    A task that reported success has written its markers, but a host that mounts the store by NFS may list a
    folder as it was up to a minute ago. The check runs at least once, and once more when the time has run
    out.

    Args:
        check: condition to wait for.
        patience_s: seconds after which to give up.
        stop: called several times per second while waiting; raises when the process shall stop.
        refresh: called before each check but the first, for instance :meth:`Files.refresh`.

    Returns:
        Result of the last check.

    Raises:
        StopRequested: raised by ``stop``.
    """
    until = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while not check():
        left = until - time.monotonic()
        if left <= 0:
            return False
        _pause(min(pause, left), stop)
        pause = min(2 * pause, _MAX_PAUSE_S)
        if refresh is not None:
            refresh()
    return True


def _pause(seconds: float, stop: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    stop()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _STOP_CHECK_S))
        stop()
