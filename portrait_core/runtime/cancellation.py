"""A wish to stop, heard by every loop of the process at its next frame or step.

A scheduler that takes a machine back gives some seconds of grace: enough to commit the frame at work or write
a checkpoint, not to finish a stage.
"""

from __future__ import annotations

import threading

_wish = threading.Event()


class StopRequested(RuntimeError):  # noqa: N818 - no error
    """Raised by a loop that stopped because it was asked to; what it had finished is kept."""


def request() -> None:
    """Ask every loop of this process to stop where it can go on later."""
    _wish.set()


def clear() -> None:
    """Forget the wish: a new run begins."""
    _wish.clear()


def requested() -> bool:
    """Whether somebody asked."""
    return _wish.is_set()


def check() -> None:
    """Raise if somebody asked.

    Raises:
        StopRequested: the caller's work so far must be kept already.
    """
    if _wish.is_set():
        raise StopRequested("stopped as asked; what is finished is in the store")
