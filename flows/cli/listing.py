"""Portraits and driving videos of a folder, a pattern or a URL, and what of it is left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from portrait_core.errors import InputError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Layout = Literal["files", "voxceleb", "celeba-hq"]

IMAGES = (
    ".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif",
)  # fmt: skip
"""Endings of portraits. An animated WebP is a video."""
VIDEOS = (
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv",
    ".3gp", ".ogv", ".gif", ".apng", ".webp", ".y4m",
)  # fmt: skip
"""Endings of driving videos. Of ``.ts`` and ``.webp`` the content tells whether they are."""
_LOOKED_INTO = (".ts", ".webp")
_VOXCELEB = re.compile(r"(?:.*/)?(id\d+)(?:/([^/#]+)/([^/#]+)|#([^/#]+)#([^/]+))\.mp4")
_CELEBA_HQ = re.compile(r"(?:.*/)?(\d{1,6})\.(?:jpg|jpeg|png)")


@dataclass(frozen=True)
class Source:
    """An image or a video of a listing."""

    place: str
    """Absolute path or URL."""
    label: str
    """Its part of the rows' names."""
    order: tuple[int | str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Files of a folder or a pattern."""

    sources: list[Source]
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of files that are left out, by what they are: an ending, ``hidden``, another layout."""

    def told(self, what: str) -> str:
        """Return a line about what is left out, else nothing; ``what`` is what is listed."""
        counts = [f"{count} {kind}" for kind, count in self.left_out.most_common()]
        return f"left out of the {what}: {', '.join(counts)}" if counts else ""


def gather(
    place: str, suffixes: Sequence[str], layout: Layout = "files", used: Sequence[str] = ()
) -> Listing:
    """List files with one of the suffixes in a folder and below, or those that match a glob, in order.

    Args:
        place: folder, glob or URL.
        suffixes: :data:`IMAGES` or :data:`VIDEOS`.
        layout: how the files are named.
        used: endings of files that are listed elsewhere, and so not counted as left out.

    Raises:
        InputError: there is no such file, or none of the layout.
    """
    listed = _listed(place)
    wanted, left_out = listed.wanted(suffixes, used)
    sources = [source for name in wanted if (source := _source(name, layout)) is not None]
    if len(sources) < len(wanted):
        left_out[f"not named as --layout {layout} says"] = len(wanted) - len(sources)
    if not sources:
        expected = {
            "files": f"no file ending in {', '.join(suffixes)}",
            "voxceleb": f"{len(wanted)} videos but none named idN/VIDEO/CLIP.mp4 or idN#VIDEO#CLIP.mp4",
            "celeba-hq": f"{len(wanted)} images but none named by a number (00000.jpg)",
        }
        counts = ", ".join(f"{count} {kind}" for kind, count in left_out.most_common())
        more = f" (it holds {counts})" if counts and layout == "files" else ""
        raise InputError(f"{place} holds {expected[layout]}{more}; check the path, or give another --layout")
    return Listing(sorted(sources, key=lambda source: source.order), left_out)


def _source(name: str, layout: Layout) -> Source | None:
    """Return a file as a source; None where it is not named as the layout says."""
    from portrait_core.inputs.table import stem

    if layout == "files":
        return Source(name, stem(name), (name,))
    if layout == "voxceleb" and (match := _VOXCELEB.fullmatch(name)):
        parts = tuple(part for part in match.groups() if part)
        return Source(name, re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts)), parts)
    if layout == "celeba-hq" and (match := _CELEBA_HQ.fullmatch(name)):
        return Source(name, match[1], (int(match[1]), name))
    return None


@dataclass(frozen=True)
class _Listed:
    """Files of a folder and below, or those that match a glob."""

    files: AbstractFileSystem
    names: Mapping[str, str]
    """Absolute path or URL of each file, by its path in the file system."""
    hidden: int

    def wanted(self, suffixes: Sequence[str], used: Sequence[str]) -> tuple[list[str], Counter[str]]:
        """Return the files with one of the suffixes, and the numbers of the others."""
        found, others = [], Counter[str]()
        for path, name in self.names.items():
            ending = PurePosixPath(name).suffix
            kind = ending.lower()
            fits = kind in suffixes and (
                kind not in _LOOKED_INTO or self._moves(path) == (".mp4" in suffixes)
            )
            if fits:
                found.append(name)
            elif kind not in used:
                others[self._about(ending, kind in suffixes, ".mp4" in suffixes)] += 1
        if self.hidden:
            others["hidden"] = self.hidden
        return found, others

    def _moves(self, path: str) -> bool:
        """Tell by its content whether a file is a video."""
        from portrait_core.media.kinds import HEAD_BYTES, kind_of

        try:
            return kind_of(self.files.cat_file(path, 0, HEAD_BYTES)).family == "video"
        except Exception:  # file systems raise their own classes; reading it later says why
            return False

    def _about(self, ending: str, by_content: bool, videos: bool) -> str:
        if by_content:
            return f"{ending} ({'not a video' if videos else 'animated'})"
        return ending or "without an ending"


def _listed(place: str) -> _Listed:
    """List a folder, a glob or a URL. Hidden files are counted alone."""
    from portrait_core.inputs.sources import local_path, reach, resolve_place

    absolute = resolve_place(os.getcwd(), place)
    files, path = reach(absolute)
    below: Mapping[str, Mapping[str, Any]]
    try:
        if files.isdir(path):
            top, below = path, files.find(path, detail=True)
        elif files.isfile(path):
            top, below = path, {path: files.info(path)}
        else:
            top, below = re.split(r"[*?\[]", path)[0].rpartition("/")[0], files.glob(path, detail=True)
    except Exception as error:  # file systems raise their own classes
        raise InputError(f"cannot list {place} ({error}); check the path and your access") from error
    regular = [name for name, about in below.items() if about["type"] == "file"]
    names = [name for name in regular if "/." not in name[len(top) :]]
    if odd := [name for name in names if not _is_text(name)]:
        raise ValueError(f"{place} holds a file whose name is not UTF-8: {odd[0]!r}; rename it")
    local = local_path(absolute) is not None
    full = {name: name if local else files.unstrip_protocol(name) for name in names}
    return _Listed(files, full, len(regular) - len(names))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
