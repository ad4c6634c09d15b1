"""How this process's allocator treats large arrays."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's mallopt
_NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next array rather than hand it back to the kernel.

    A feature map of 512 pixels is 128 MiB and lives for milliseconds. Handed back, each of its pages is
    cleared and mapped anew at the next one's first touch, which takes as long as computing it on some
    virtual machines, and is never free. The process then holds the most that it ever needed at once.

    Returns:
        Whether there was a switch for it: glibc on Linux has one.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
