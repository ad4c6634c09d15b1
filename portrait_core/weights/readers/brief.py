"""Short texts of values from a stranger's file, for messages.

Python writes a value out before it is cut: a tuple that holds itself thirty times over, in two hundred bytes
of a pickle, would be gigabytes of text.
"""

from __future__ import annotations

import reprlib
from typing import Any

_MOST = 80
_WRITER = reprlib.Repr()
_WRITER.maxlevel = 2
_WRITER.maxtuple = _WRITER.maxlist = _WRITER.maxdict = _WRITER.maxset = 8
_WRITER.maxstring = _WRITER.maxother = _WRITER.maxlong = _MOST


def brief(value: Any, *_: Any) -> str:
    """Return a value as Python writes it, at most 80 characters.

    In pickles, it stands for constructors of what is only ever shown: devices and layouts.
    """
    if isinstance(value, bytes):
        value = value[:_MOST]
    try:
        return _WRITER.repr(value)[:_MOST]
    except ValueError:  # a number of thousands of digits
        return f"a {type(value).__name__}"


def listed(names: Any) -> str:
    """Return the first 12 of a container's names, each cut to 80 characters."""
    first = [name for name, _ in zip(names, range(12), strict=False)]
    return ", ".join(f"{name:.80}" if isinstance(name, str) else brief(name) for name in first)
