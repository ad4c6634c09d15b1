"""Waiting for what another host wrote to become visible here."""

from __future__ import annotations

import time
from collections.abc import Callable

from portrait_core.runtime import cancellation

PATIENCE_S = 75.0
"""Longer than NFS keeps what it knows of a directory (``acdirmax``, 60 s where nobody set it)."""
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
_STOP_ASKED_EVERY_S = 0.2


def wait_until(
    check: Callable[[], bool],
    patience_s: float = PATIENCE_S,
    stop: Callable[[], None] = cancellation.check,
    refresh: Callable[[], None] | None = None,
) -> bool:
    """Ask again, with growing pauses, until the answer is yes or patience ends.

    A task that reported success has written its markers, but a host that mounts the store by NFS may list a
    folder as it was up to a minute ago. It is asked at least once, and once more when patience has ended.

    Args:
        check: what is waited for.
        patience_s: seconds after which to give up.
        stop: called several times a second while waiting; raises when the process shall stop.
        refresh: called before each check but the first, for instance :meth:`Files.refresh`.

    Returns:
        The last answer.

    Raises:
        StopRequested: by ``stop``.
    """
    until = time.monotonic() + patience_s
    pause = _FIRST_PAUSE_S
    while not check():
        left = until - time.monotonic()
        if left <= 0:
            return False
        _pause(min(pause, left), stop)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        if refresh is not None:
            refresh()
    return True


def _pause(seconds: float, stop: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    stop()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _STOP_ASKED_EVERY_S))
        stop()
