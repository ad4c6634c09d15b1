"""Small JSON documents: written with one spelling, read without trust."""

from __future__ import annotations

import json
import math
import re
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits

if TYPE_CHECKING:
    from portrait_core.store.files import Files

_BYTES_PER_VALUE = 32
"""Bytes of a record for which it may hold one value: an empty list has three bytes, and 64 in memory."""
_SMALL_BYTES = 1 << 16
"""Bytes of a document up to which any number of threads read one at the same time."""
_large = threading.Lock()
_MAX_DEPTH = 64
"""Depth to which values are nested; what reads or writes them may recurse."""
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
"""Escape of a half of a character; the other half has to stand beside it."""


def canonical_json(value: Any) -> bytes:
    """Write JSON with one spelling per value: keys sorted, no spaces, ASCII.

    Raises:
        InputError: the value is not plain data, or contains a number that is not finite.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"only plain, finite data can be part of a key or of a note: {error}") from error
    return text.encode("ascii")


def read_json(files: Files, name: str, most: int | None = None) -> Any | None:
    """Read an object's JSON document; None when there is none, or it is damaged.

    Threads read and parse large documents one after another: a document takes several times its bytes.

    Args:
        files: the store's objects.
        name: name of the object.
        most: bytes that it may have, as for :meth:`Files.get`.
    """
    head = files.get_one(name, _SMALL_BYTES)
    if head is None or len(head) <= _SMALL_BYTES:
        return parse_json(head, most)
    with _large:
        return parse_json(files.get_one(name, most), most)


def parse_json(document: bytes | None, most: int | None = None) -> Any | None:
    """Return a JSON document's value; None when there is no document, or it is damaged.

    Whatever :func:`canonical_json` does not write counts as damage: numbers that are not finite, a name twice
    in one object, half a character, or more than ``limits.record_bytes`` allow, or ``most`` in its place, in
    bytes or in values.
    """
    if document is None:
        return None
    most = current_limits().record_bytes if most is None else most
    opened = document.count(b"[") + document.count(b"{")
    if len(document) > most or opened + document.count(b",") > most // _BYTES_PER_VALUE:
        return None
    try:
        text = document.decode()
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_without_repetition
        )
        if _HALF_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # nested too deeply
        return None
    return None if opened > _MAX_DEPTH and _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    """Tell whether a value is nested more deeply than :data:`_MAX_DEPTH`."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            part
            for one in level
            if isinstance(one, list | dict)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not finite")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not finite")
    return number


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has a name twice")
    return value
