"""Names of files: paths and URLs, which of them are read, and how they are shown.

A place is a path or a URL of one file or folder. Manifests and stored jobs name places, and may come from a
stranger, so the kinds of URL are a closed list. Among those that fsspec knows beyond it are some that read
something else than the file that they name: ``reference://`` fills in templates from this process's memory,
``zip://`` and ``simplecache::`` open other files.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from portrait_core.errors import InputError

SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
"""Schemes of URLs that are read and written; ``memory`` is this process's own, for tests and notebooks."""
HIDDEN = "***"
"""What :func:`redact_place` puts in the place of a secret."""
_URL_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def checked_place(place: str | os.PathLike[str]) -> str:
    """Return a path or URL as it is, once it is known to name one file or folder by itself.

    Raises:
        InputError: a scheme that is not in :data:`SCHEMES`, a chain of URLs, or a URL with braces or control
            characters.
    """
    text = os.fspath(place)
    problem = place_problem(text)
    if problem:
        raise InputError(f"{redact_place(text)} {problem}")
    return text


def place_problem(place: str) -> str:
    """Say why :func:`checked_place` refuses a place, in words that follow its name; empty: it does not."""
    if "::" in place:
        return "holds '::', which chains URLs and is not followed; give the file itself, under another name"
    scheme, mark, rest = place.partition("://")
    # fsspec takes a text that begins with 'data:' for the content itself.
    if place.startswith("data:") or (mark and scheme not in SCHEMES):
        known = ", ".join(f"{name}://" for name in SCHEMES)
        return f"is no URL of a kind that is read; give a path, or one of {known}"
    if not mark or scheme == "file":
        return ""
    if "{" in rest or "}" in rest:
        return "holds braces, which URLs may not; write them as %7B and %7D, or rename the file"
    if not rest.isprintable():
        return "holds control characters, which URLs may not; delete them"
    return ""


def redact_place(place: str | os.PathLike[str]) -> str:
    """A place as messages show it: without the user, password and query of a URL, where secrets stand."""
    text = os.fspath(place)
    if local_path(text) is not None:
        return text
    named = re.sub(r"://[^/?#]*@", f"://{HIDDEN}@", text)
    return re.sub(r"\?.+", f"?{HIDDEN}", named, count=1, flags=re.DOTALL)


def redact_message(message: str, place: str = "") -> str:
    """A message of another library with every URL in it, and ``place``, as :func:`redact_place` gives it."""
    if place:
        message = message.replace(place, redact_place(place))
    return _URL_IN_TEXT.sub(lambda found: redact_place(found[0]), message)


def local_path(place: str | os.PathLike[str]) -> Path | None:
    """The absolute path of a file of this machine, or None for a URL of elsewhere."""
    text = os.fspath(place).removeprefix("file://")
    return None if "://" in text else Path(os.path.expanduser(text)).absolute()


def folder_of(place: str) -> str:
    """The folder or URL prefix that holds a file."""
    path = local_path(place)
    if path is not None:
        return str(path.parent)
    scheme, _, rest = place.partition("://")
    if scheme.startswith("http"):
        rest = rest.partition("?")[0]
    return f"{scheme}://{rest.rpartition('/')[0]}"


def resolve_place(folder: str, place: str) -> str:
    """A place as something in ``folder`` means it: an absolute path, or a URL, which is not checked here."""
    place = place.removeprefix("file://")
    if "://" in place:
        return place
    base = local_path(folder)
    if base is not None:
        return str(base / os.path.expanduser(place))
    if place.startswith(("/", "~")):
        return str(local_path(place))
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, place))}"
