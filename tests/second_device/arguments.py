"""Walking over an operation's arguments: tensors and numbers in tuples, lists and dictionaries.

PyTorch's own functions for trees do the same for trees of any kind, in several times the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leaves(value: Any) -> list[Any]:
    """All that is no tuple, list or dictionary, in its order."""
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in leaves(part)]
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    return [value]


def changed(value: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """The same tree with every leaf of a kind replaced by what ``change`` makes of it."""
    if isinstance(value, kind):
        return change(value)
    if type(value) is tuple:
        return tuple([changed(part, kind, change) for part in value])
    if isinstance(value, tuple | list):
        return [changed(part, kind, change) for part in value]
    if isinstance(value, dict):
        return {name: changed(part, kind, change) for name, part in value.items()}
    return value
