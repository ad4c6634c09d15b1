"""Small JSON documents: written with one spelling, read without trust."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits

_BYTES_PER_VALUE = 32
"""Bytes of a record for which it may hold one value: an empty list has three bytes, and 64 in memory."""
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


def parse_json(document: bytes | None) -> Any | None:
    """Return a JSON document's value; None when there is no document, or it is damaged.

    Whatever :func:`canonical_json` does not write counts as damage: numbers that are not finite, a name twice
    in one object, half a character, or more than ``limits.record_bytes`` allow, in bytes or in values.
    """
    if document is None:
        return None
    most = current_limits().record_bytes
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
