"""Paths and URLs of files: which of them are accepted, and how they are shown.

A place is a path or a URL of one file or folder. Manifests and stored jobs name places, and may come from a
stranger, so the schemes of URLs are a closed list. Some of fsspec's other schemes read something else than
the file that they name: ``reference://`` fills in templates from this process's memory, ``zip://`` and
``simplecache::`` open other files.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from portrait_core.errors import InputError
from portrait_core.text.redaction import HIDDEN, holds_secrets, redact_text, redact_url, remember_place

SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https", "memory")
"""Schemes of URLs that are read and written; ``memory`` belongs to this process, for tests and notebooks."""
_REDACTED = re.compile(rf"://{re.escape(HIDDEN)}@|[?#]{re.escape(HIDDEN)}")


def checked_place(place: str | os.PathLike[str]) -> str:
    """Return a path or URL unchanged, once it is known to name one file or folder by itself.

    Its secrets are hidden from now on, also where a library writes them in another way.

    Raises:
        InputError: the scheme is not in :data:`SCHEMES`, or the text is a chain of URLs, a URL with braces or
            control characters, or a path with a zero character.
    """
    text = os.fspath(place)
    problem = place_problem(text)
    if problem:
        raise InputError(f"{redact_place(text)} {problem}")
    remember_place(text)
    return text


def place_problem(place: str) -> str:
    """Return why :func:`checked_place` refuses a place, in words that follow its name, else nothing."""
    if "\0" in place:
        return "holds a zero character, which no name can have; delete it"
    if "::" in place:
        return "holds '::', which chains URLs and is not followed; give the file itself, under another name"
    scheme, mark, rest = place.partition("://")
    # fsspec takes a text that begins with 'data:' for the content itself.
    if place.startswith("data:") or (mark and scheme not in SCHEMES):
        known = ", ".join(f"{name}://" for name in SCHEMES)
        return f"is no URL of a kind that is read; give a path, or one of {known}"
    if not mark or scheme == "file":
        return ""
    if is_redacted(place):
        return (
            f"holds {HIDDEN} in place of a password or a signature, which are not kept; give the command "
            "with the whole URL again"
        )
    if "{" in rest or "}" in rest:
        return "holds braces, which URLs may not; write them as %7B and %7D, or rename the file"
    if not rest.isprintable():
        return "holds control characters, which URLs may not; delete them"
    return ""


def redact_place(place: str | os.PathLike[str]) -> str:
    """Return a place for messages and records, without the secrets of a URL: user, password, query."""
    text = os.fspath(place)
    return text if local_path(text) is not None else redact_url(text)


def kept_place(place: str) -> str:
    """Return a place for a record that opens it again: redacted where it holds a secret, else unchanged."""
    return redact_place(place) if holds_secrets(place) else place


def redact_message(message: str, place: str = "") -> str:
    """Redact another library's message; in it ``place`` as a whole, where its spaces do not end it."""
    return redact_text(message.replace(place, redact_place(place)) if place else message)


def is_redacted(place: str) -> bool:
    """Tell whether a place is what :func:`redact_place` left of a URL with secrets: nobody can open it."""
    return local_path(place) is None and bool(_REDACTED.search(place))


def place_name(place: str) -> str:
    """Return the name of a path or URL without folders and without secrets."""
    name = redact_place(place).partition("?")[0]
    if local_path(place) is None:
        host, _, path = name.partition("://")[2].removeprefix(f"{HIDDEN}@").partition("/")
        name = (path or host).partition(f"#{HIDDEN}")[0]
    return posixpath.basename(name.rstrip("/"))


def local_path(place: str | os.PathLike[str]) -> Path | None:
    """Return the absolute path of a file of this machine; None for a URL of another one."""
    text = os.fspath(place)
    path = text.removeprefix("file://")
    if "://" in path and path == text:
        return None
    # The names of users are looked up, where a zero character is an error of another kind.
    return Path(path if "\0" in path else os.path.expanduser(path)).absolute()


def folder_of(place: str) -> str:
    """Return the folder or URL prefix that holds a file."""
    path = local_path(place)
    if path is not None:
        return str(path.parent)
    scheme, _, rest = place.partition("://")
    if scheme.startswith("http"):
        rest = rest.partition("?")[0]
    return f"{scheme}://{rest.rpartition('/')[0]}"


def resolve_place(folder: str, place: str) -> str:
    """Resolve a place relative to ``folder``: an absolute path, or a URL, which is not checked here."""
    place = place.removeprefix("file://")
    if "://" in place:
        return place
    base = local_path(folder)
    if base is not None:
        return str(base / (place if "\0" in place else os.path.expanduser(place)))
    if place.startswith(("/", "~")):
        return str(local_path(place))
    scheme, _, rest = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(posixpath.join(rest, place))}"
