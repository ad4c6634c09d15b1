"""A page of a dataset's inputs: a picture of each with its sizes, and what a user should know of it."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from portrait_core.text.visible import shown

PAGE = "index.html"
_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Inputs of a dataset</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fafafa }
figure { display: inline-block; vertical-align: top; width: 21rem; margin: 0 1rem 1.5rem 0 }
img { width: 100%; background: #ddd }
.note { color: #8a5a00 } .refused { color: #a00; font-weight: 600 }
figcaption { overflow-wrap: anywhere }
</style>
"""


@dataclass(frozen=True)
class InputEntry:
    """An input of a dataset.

    Attributes:
        kind: ``portrait`` or ``video``.
        place: path or URL.
        rows: numbers of the manifest's rows that use it.
        about: its sizes and what is in it.
        notes: what a user should know, one line each.
        refused: why its clips would end; empty where they would not.
        picture: ``[H,W,3]`` uint8; None where nothing can be shown.
    """

    kind: str
    place: str
    rows: tuple[int, ...]
    about: str
    notes: tuple[str, ...] = ()
    refused: str = ""
    picture: NDArray[np.uint8] | None = None


def write_page(folder: Path, entries: Sequence[InputEntry]) -> Path:
    """Write a page and its pictures into a folder, which is made.

    Texts are escaped, and the page loads nothing but its own pictures.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refused = sum(bool(entry.refused) for entry in entries)
    noted = sum(bool(entry.notes) for entry in entries)
    parts = [_HEAD, f"<h1>{len(entries)} inputs, {refused} refused, {noted} with notes</h1>\n"]
    for i, entry in enumerate(entries):
        name = f"{i:05d}.jpg"
        if entry.picture is not None:
            (folder / name).write_bytes(_jpeg(entry.picture))
        parts.append(_figure(entry, name if entry.picture is not None else ""))
    page = folder / PAGE
    page.write_text("".join(parts), encoding="utf-8")
    return page


def _figure(entry: InputEntry, name: str) -> str:
    rows = ", ".join(map(str, entry.rows[:8])) + (" ..." if len(entry.rows) > 8 else "")
    lines = [f"<strong>{_text(entry.kind)}</strong> {_text(entry.place)} (rows {rows})", _text(entry.about)]
    lines += [f'<span class="note">{_text(note)}</span>' for note in entry.notes]
    lines += [f'<span class="refused">{_text(entry.refused)}</span>'] if entry.refused else []
    picture = f'<img src="{name}" alt="" loading="lazy">' if name else ""
    return f"<figure>{picture}<figcaption>{'<br>'.join(filter(None, lines))}</figcaption></figure>\n"


def _text(text: str) -> str:
    return html.escape(shown(text))


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
