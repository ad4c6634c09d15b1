"""Text for a terminal or a log: characters that would steer it are written out instead."""

from __future__ import annotations

import unicodedata

from portrait_core.text.redaction import redact_text

_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of characters that a terminal obeys or does not show: control characters (with them ESC, which
begins every sequence of a terminal), formats (directions of writing, zero width), halves of characters, and
separators of lines."""


def visible(text: str, keep: str = "") -> str:
    r"""Return a text with every control character and every invisible one as an escape, ``\x1b``.

    Args:
        text: any text.
        keep: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _STEERING else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def shown(text: str) -> str:
    """Return a text as it may stand in one line of a terminal, a table or a log, without secrets."""
    return visible(redact_text(text))


def shown_lines(text: str) -> str:
    """Return a text of several lines as :func:`shown` does, its later lines indented.

    A line of output that begins at the margin is thereby the program's own: a message that holds a line break
    cannot pretend to be another one.
    """
    first, *more = redact_text(text).rstrip("\n").split("\n")
    return "\n".join([visible(first), *(f"  {visible(line)}" if line else "" for line in more)])
