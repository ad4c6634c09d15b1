"""Turns of threads that decode large pictures, so that many at a time do not take the memory of many.

A picture takes about ten bytes a pixel while it is decoded. Small ones are decoded as many at a time as there
are threads; a larger one waits until there is room for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ROOM_PIXELS = 100_000_000
"""Pixels that are decoded at the same time in one process; a larger picture is decoded alone."""

_changed = threading.Condition()
_taken = 0


@contextmanager
def room_for(pixels: int) -> Iterator[None]:
    """Wait until a picture can be decoded beside the others, and hold its room inside of the ``with`` block.

    A thread must not ask for room while it holds some.

    Args:
        pixels: pixels of the picture, width times height.
    """
    global _taken
    size = min(pixels, ROOM_PIXELS)
    with _changed:
        _changed.wait_for(lambda: _taken + size <= ROOM_PIXELS)
        _taken += size
    try:
        yield
    finally:
        with _changed:
            _taken -= size
            _changed.notify_all()
