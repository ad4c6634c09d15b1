"""Checks of ``--out`` and ``--store`` before any work: what they name, and that it can be written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from portrait_core.errors import InputError

_ENDINGS = (
    ".mp4",
    ".mov",
    ".m4v",
    ".mkv",
    ".webm",
    ".avi",
    ".gif",
    ".apng",
    ".webp",
    ".png",
    ".jpg",
    ".jpeg",
)
"""Endings that nobody means as a folder's."""
_FORMAT = "store.json"


def check_places(
    store: str | None, out: Path | None = None, default_store: bool = False, write: bool = True
) -> None:
    """Check the places that a command writes to. Nothing is left there.

    Args:
        store: path or URL of the store; None where the command has none.
        out: folder of the results; None where the command has none.
        default_store: the store is the command's own choice, inside of ``out``.
        write: whether the command will write to them.

    Raises:
        InputError: one of them is a file or cannot be written, or ``out`` ends as a media file does, or lies
            in the store.
    """
    from portrait_core.store.places import local_path

    folder = local_path(store) if store is not None else None
    if out is not None:
        _check_out(out, None if default_store else folder)
        if write:
            _refuse_unwritable("--out", out)
    if folder is not None and not default_store:
        _refuse_file("--store", folder)
        if write and not (folder / _FORMAT).exists():  # a finished store may be one that is only read
            _refuse_unwritable("--store", folder)


def _check_out(out: Path, store: Path | None) -> None:
    folder = out.expanduser().absolute()
    _refuse_file("--out", out)
    if folder.suffix.lower() in _ENDINGS and not folder.is_dir():
        raise InputError(
            f"--out {out} ends like a file, and it names a folder, in which the clip is reenactment.mp4; "
            f"give `--out {out.with_suffix('')}`"
        )
    if store is not None and (
        store.resolve() == folder.resolve() or store.resolve() in folder.resolve().parents
    ):
        raise InputError(
            f"--out {out} lies in --store {store}, which holds only what the program keeps there; give "
            "another folder to one of them (the store may lie in --out)"
        )


def _refuse_file(option: str, given: Path) -> None:
    for place in _and_parents(given):
        if place.exists() and not place.is_dir():
            above = "" if place == given.expanduser().absolute() else f": {place}"
            raise InputError(f"{option} {given}{above} is a file; give a folder")


def _refuse_unwritable(option: str, given: Path) -> None:
    """Refuse a folder in which, or in whose nearest existing parent, nothing can be made."""
    nearest = next(place for place in _and_parents(given) if place.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".portrait-", dir=nearest):
            pass
    except OSError as error:
        verb = "cannot be written" if nearest == given.expanduser().absolute() else "cannot be made"
        raise InputError(
            f"{option} {given} {verb} ({error.strerror or error}: {nearest}); give another folder, or change "
            "its permissions"
        ) from error


def _and_parents(given: Path) -> Iterator[Path]:
    place = given.expanduser().absolute()
    yield place
    yield from place.parents
