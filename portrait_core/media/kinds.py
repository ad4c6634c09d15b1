"""What a file is, by its first bytes: words for the message that refuses it."""

from __future__ import annotations

import re

HEAD_BYTES = 4096
"""Number of first bytes that tell the kind of a file."""
_KINDS = (
    (rb"\s*#EXTM3U", "a playlist, which names other files"),
    (rb"\s*<.*<MPD[\s>]|\s*<MPD[\s>]", "a playlist, which names other files"),
    (rb"\s*ffconcat", "a list of other files"),
    (rb"v=0\r?\n", "a description of a stream, which names a host"),
    (rb"\s*<.*<svg[\s>]|\s*<svg[\s>]", "a drawing (SVG)"),
    (rb"\s*<(!doctype )?html", "a web page"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript drawing"),
    (rb"%PDF", "a PDF document"),
    (rb"8BPS", "a Photoshop document"),
    (rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ", "an archive"),
    (rb"ID3|fLaC|RIFF.{4}WAVE|\xff[\xfb\xf3\xf2]", "a sound file"),
    (rb"\x7fELF|MZ|#!", "a program"),
)
_KNOWN = tuple((re.compile(pattern, re.DOTALL | re.IGNORECASE), words) for pattern, words in _KINDS)


def kind_of(head: bytes) -> str:
    """Return what a file is that is no picture and no video.

    Args:
        head: its first :data:`HEAD_BYTES` bytes, or all of a shorter file.

    Returns:
        Words that follow "it is"; empty where the bytes tell nothing.
    """
    for pattern, words in _KNOWN:
        if pattern.match(head):
            return words
    try:
        text = head.decode("utf-8", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return ""
    plain = sum(char.isprintable() or char.isspace() for char in text)
    return "a text file" if head and plain == len(text) and len(text) > len(head) // 4 else ""
