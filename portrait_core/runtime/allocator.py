"""Settings of this process's memory allocator for large arrays."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt
_NEVER = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next array rather than return it to the kernel.

    A feature map of 512 pixels is 128 MiB and lives for milliseconds. If it is returned, each of its pages is
    cleared and mapped again when the next array first touches it. On some virtual machines that takes as long
    as the computation itself, and it is never free. The process then holds the largest amount of memory that
    it ever needed at once.

    Returns:
        True if the C library has such a switch (glibc on Linux), else False.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
