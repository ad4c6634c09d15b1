"""What lies in an output's folder, read off the names of its objects alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from portrait_core.store import arrays

_MARKER = re.compile(r"(\d{8,12})(?:-(\d{8,12}))?")
_LONGEST_RUN = 1_000_000
"""Frames that one marker may stand for: a stranger's marker takes no memory out of proportion."""
_FILE = re.compile(r"(.*?)\.([0-9a-f]{32})(\.[^.]*)?")
_PACKED = re.compile(r"c(/0)+")


@dataclass(frozen=True)
class Contents:
    """What lies in an output's folder, by one listing."""

    done: frozenset[int] = frozenset()
    """Frames that are marked."""
    chunks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Chunks that are objects of their own, by the array's name."""
    packed: frozenset[str] = frozenset()
    """Arrays that are packed."""
    described: frozenset[str] = frozenset()
    """Arrays whose ``zarr.json`` is there."""
    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Digests that the objects of every file carry, by the file's name: its content's SHA-256, the first 32
    hexadecimal digits."""
    notes: frozenset[str] = frozenset()
    """Names of notes."""
    bytes: int = 0
    """Bytes of everything."""
    objects: int = 0
    """Number of objects."""


@dataclass(frozen=True)
class Declared:
    """What has to be in an output's folder for a frame to be done."""

    per_frame: tuple[str, ...] = ()
    """Arrays with a chunk per frame."""
    whole: tuple[str, ...] = ()
    """Arrays that are one chunk."""
    files: tuple[str, ...] = ()
    """Names of files."""
    notes: tuple[str, ...] = ()
    """Names of notes."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """All arrays."""
        return (*self.per_frame, *self.whole)


def parse_contents(sizes: Mapping[str, int]) -> Contents:
    """Read contents off objects' names, relative to the folder, and their bytes.

    An array with both a packed object and chunks of their own is given with both: only its document says
    which of them counts. Names that the store does not give are passed over.
    """
    marks, notes, packed, described = list[str](), set[str](), set[str](), set[str]()
    files, chunks = dict[str, set[str]](), dict[str, set[int]]()
    for path in sizes:
        top, _, rest = path.partition("/")
        if top == "done":
            marks.append(rest)
        elif top == "files" and (match := _FILE.fullmatch(rest)):
            files.setdefault(match[1] + (match[3] or ""), set()).add(match[2])
        elif top == "notes" and rest.endswith(".json"):
            notes.add(rest.removesuffix(".json"))
        elif rest == "zarr.json":
            described.add(top)
        elif _PACKED.fullmatch(rest):
            packed.add(top)
        elif (number := arrays.chunk_number(rest)) is not None:
            chunks.setdefault(top, set()).add(number)
    return Contents(
        frozenset(marked_frames(marks)),
        {name: frozenset(numbers) for name, numbers in chunks.items()},
        frozenset(packed),
        frozenset(described),
        {name: frozenset(digests) for name, digests in files.items()},
        frozenset(notes),
        sum(sizes.values()),
        len(sizes),
    )


def done_mask(contents: Contents, total: int, declared: Declared) -> NDArray[np.bool_]:
    """Tell which of ``total`` frames are done ``[total]`` by what a folder holds.

    A frame of a packed array counts as there: arrays are packed only with all frames that are marked.
    """
    done = np.zeros(total, np.bool_)
    done[[frame for frame in contents.done if frame < total]] = True
    for name in declared.per_frame:
        if name in contents.packed and name in contents.described:
            continue
        present = np.zeros(total, np.bool_)
        if name in contents.described:
            present[[number for number in contents.chunks.get(name, ()) if number < total]] = True
        done &= present
    there = {name for name in contents.described if 0 in contents.chunks.get(name, ())}
    lacking = set(declared.whole) - there
    lacking |= (set(declared.files) - contents.files.keys()) | (set(declared.notes) - contents.notes)
    return done & (not lacking)


# Files: their objects' names carry the digest of the content


def stored_name(name: str, value: bytes) -> str:
    """Name the object of a file inside ``files/``."""
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.sha256(value).hexdigest()[:32]
    return f"{stem}.{digest}.{suffix}" if dot else f"{name}.{digest}"


def file_name(stored: str) -> str | None:
    """Read a file's name off that of its object; None when it has no digest."""
    match = _FILE.fullmatch(stored)
    return None if match is None else match[1] + (match[3] or "")


def is_sound_file(path: str, value: bytes) -> bool:
    """Tell whether a file's content is what its object's name says."""
    match = _FILE.fullmatch(path.rpartition("/")[2])
    return match is not None and hashlib.sha256(value).hexdigest()[:32] == match[2]


# Markers: a frame's number, or the first and last of a run


def marker_name(first: int, last: int | None = None) -> str:
    """Name the marker of a frame, or of a run of frames ``first`` to ``last``."""
    return f"{first:08d}" if last is None or first == last else f"{first:08d}-{last:08d}"


def marker_spans(names: Iterable[str]) -> dict[str, range]:
    """Frames that markers stand for, by the marker's name; other names are left out."""
    found: dict[str, range] = {}
    for name in names:
        if match := _MARKER.fullmatch(name):
            span = range(int(match[1]), int(match[2] or match[1]) + 1)
            if 0 < len(span) <= _LONGEST_RUN:
                found[name] = span
    return found


def marked_frames(names: Iterable[str]) -> set[int]:
    """All frames that markers stand for."""
    return {frame for span in marker_spans(names).values() for frame in span}


def consecutive_runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of every run of consecutive frames, which are given ascending."""
    found: list[tuple[int, int]] = []
    for frame in frames:
        if found and found[-1][1] == frame - 1 and frame - found[-1][0] < _LONGEST_RUN:
            found[-1] = found[-1][0], frame
        else:
            found.append((frame, frame))
    return found
