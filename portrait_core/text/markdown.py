"""Text inside Markdown: on Prefect's pages, which read tables' cells as Markdown too, and in reports."""

from __future__ import annotations

import re
from typing import Any

from portrait_core.text.visible import shown

_CODED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKS = re.compile(r"([\\`*\[\]|~$#!]|(?<![^\W_])_|_(?![^\W_])|^[-+=])")
_NUMBER = re.compile(r"^([0-9]+)([.)])")


def escape_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line, without secrets.

    It makes no link that says something else than its address, no picture, code, heading, list, cell or HTML.
    """
    text = _NUMBER.sub(r"\1\\\2", _MARKS.sub(r"\\\1", shown(text)))
    return "".join(_CODED.get(char, char) for char in text)


def markdown_cells(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a table on Prefect's pages with its texts escaped."""
    return {
        escape_markdown(name): escape_markdown(value) if isinstance(value, str) else value
        for name, value in row.items()
    }
