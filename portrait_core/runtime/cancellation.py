"""Requests to stop, which every loop of the process notices at its next frame or step.

A scheduler that takes a machine back gives some seconds of grace: enough to commit the current frame or write
a checkpoint, but not to finish a stage.
"""

from __future__ import annotations

import threading

_requested = threading.Event()


class StopRequested(RuntimeError):  # noqa: N818 - no error
    """Raised by a loop that stopped because it was asked to; what it had finished is kept."""


def request() -> None:
    """Ask every loop of this process to stop at the next point from which it can go on later."""
    _requested.set()


def clear() -> None:
    """Withdraw the request, because a new run begins."""
    _requested.clear()


def requested() -> bool:
    """Tell whether a stop was requested."""
    return _requested.is_set()


def check() -> None:
    """Raise an error if a stop was requested.

    Raises:
        StopRequested: a stop was requested; the caller must have kept its work so far.
    """
    if _requested.is_set():
        raise StopRequested("stopped as asked; finished work is in the store")
