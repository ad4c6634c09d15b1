"""Portraits and driving videos of a folder, a pattern or a URL, and what of it is left out."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from portrait_core.errors import InputError
from portrait_core.text.file_names import IMAGES, VIDEOS, are_numbered, is_utf8

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Layout = Literal["files", "voxceleb", "celeba-hq"]

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
        suffixes: :data:`IMAGES` or :data:`VIDEOS`. A folder of numbered pictures beside no video is a video.
        layout: how the files are named.
        used: endings of files that are listed elsewhere, and so not counted as left out.

    Raises:
        InputError: there is no such file, or none of the layout.
    """
    listed = _listed(place)
    if not (listed.names or listed.folders):
        raise InputError(f"{place} {listed.problem()}; check the path")
    sequences = listed.sequences(place) if ".mp4" in suffixes and layout == "files" and not used else {}
    wanted, left_out = listed.without(sequences).wanted(suffixes, used)
    sources = [source for name in wanted if (source := _source(name, layout)) is not None]
    sources += [Source(video, _label(video), (video,)) for video in sequences]
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
    is_folder: bool = False
    is_local: bool = True
    folders: Sequence[str] = ()
    """Folders that match a glob, absolute."""

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

    def problem(self) -> str:
        """Return what a place without files is."""
        if self.hidden:
            return f"holds {self.hidden} hidden files and no other"
        return "holds no file" if self.is_folder else "does not exist, or fits no file"

    def sequences(self, place: str) -> dict[str, list[str]]:
        """Return the files of each video that is a folder of numbered pictures beside no video.

        Of a pattern of pictures, such a video is the pattern in each folder.
        """
        if not self.is_local:
            return {}
        folders: dict[str, list[str]] = defaultdict(list)
        with_videos = set()
        for name in self.names.values():
            folder, _, own = name.rpartition("/")
            ending = PurePosixPath(own).suffix.lower()
            if ending in IMAGES:
                folders[folder].append(own)
            elif ending in VIDEOS:
                with_videos.add(folder)
        found = {
            folder: [f"{folder}/{own}" for own in names]
            for folder, names in folders.items()
            if len(names) > 1 and folder not in with_videos and are_numbered(names)
        }
        if not self.is_folder:
            found = {f"{folder}/{PurePosixPath(place).name}": names for folder, names in found.items()}
        return found | {folder: [] for folder in self.folders if _is_sequence(folder)}

    def without(self, sequences: Mapping[str, Sequence[str]]) -> _Listed:
        """Return the other files."""
        taken = {name for names in sequences.values() for name in names}
        return replace(self, names={path: name for path, name in self.names.items() if name not in taken})

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

    absolute = resolve_place(os.getcwd(), _as_glob(place))
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
    if odd := [name for name in names if not is_utf8(name)]:
        raise InputError(f"{place} holds a file whose name is not UTF-8: {odd[0]!r}; rename it")
    local = local_path(absolute) is not None
    full = {name: name if local else files.unstrip_protocol(name) for name in names}
    folders = [name for name, about in below.items() if about["type"] == "directory"] if local else []
    return _Listed(files, full, len(regular) - len(names), files.isdir(path), local, folders)


def _is_sequence(folder: str) -> bool:
    """Tell whether a folder holds numbered pictures, and no video."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    endings = {name: PurePosixPath(name).suffix.lower() for name in names}
    pictures = [name for name in names if endings[name] in IMAGES and is_utf8(name)]
    videos = [name for name in names if endings[name] in VIDEOS and endings[name] not in IMAGES]
    return len(pictures) > 1 and not videos and are_numbered(pictures)


def _label(video: str) -> str:
    """Return the label of a video that is a folder or a pattern of pictures: the folder's name."""
    from portrait_core.inputs.table import stem

    return stem(video if os.path.isdir(video) else os.path.dirname(video))


def _as_glob(place: str) -> str:
    """Return a pattern of numbers as ffmpeg writes it, ``%04d``, as a glob."""
    if os.path.lexists(place):
        return place
    return re.sub(r"%0?(\d?)d", lambda found: "[0-9]" * int(found[1] or 1) + ("" if found[1] else "*"), place)
