"""Endings of the names of pictures and videos, and numbers in names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

IMAGES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif",
)  # fmt: skip
"""Endings of pictures. An animated WebP is a video."""
VIDEOS = (
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts", ".wmv",
    ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".ogv", ".mxf", ".wtv", ".dv", ".gif", ".apng", ".webp", ".y4m",
)  # fmt: skip
"""Endings of videos. Of ``.ts`` and ``.webp`` the content tells whether they are."""
_NUMBER = re.compile(r"\d+(?=\D*$)")


def are_numbered(names: Iterable[str]) -> bool:
    """Tell whether files' names differ in their last number alone, as those of a video's frames do.

    Args:
        names: names without folders.
    """
    found = {_NUMBER.sub("/", PurePath(name).stem) for name in names}
    return len(found) == 1 and "/" in found.pop()


def is_utf8(name: str) -> bool:
    """Tell whether a name is text; of bytes that are not UTF-8, Python makes surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
