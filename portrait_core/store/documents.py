"""Small JSON documents: written with one spelling, read without trust."""

from __future__ import annotations

import json
from typing import Any

from portrait_core.errors import InputError


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
    """Return a JSON document's value; None when there is no document, or it is damaged."""
    try:
        return None if document is None else json.loads(document)
    except (ValueError, RecursionError):  # nested too deeply
        return None
