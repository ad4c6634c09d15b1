"""Contents of an output's folder, read from the names of its objects alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from portrait_core.settings.limits import current_limits
from portrait_core.store import arrays

_MARKER = re.compile(r"(\d{8,12})(?:-(\d{8,12}))?")
_FILE = re.compile(r"(.*?)\.([0-9a-f]{32})(\.[^.]*)?")
_PACKED = re.compile(r"c(/0)+")


@dataclass(frozen=True)
class Contents:
    """Contents of an output's folder, from one listing."""

    done: frozenset[int] = frozenset()
    """Frames that are marked as done."""
    chunks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Chunks that are objects of their own, by the array's name."""
    packed: frozenset[str] = frozenset()
    """Names of arrays that are packed."""
    described: frozenset[str] = frozenset()
    """Names of arrays whose ``zarr.json`` exists."""
    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Digests in the names of every file's objects, by the file's name: the first 32 hexadecimal digits of
    the content's SHA-256."""
    notes: frozenset[str] = frozenset()
    """Names of notes."""
    bytes: int = 0
    """Bytes of all objects."""
    objects: int = 0
    """Number of objects."""


@dataclass(frozen=True)
class Declared:
    """Names that an output's folder has to contain for a frame to be done."""

    per_frame: tuple[str, ...] = ()
    """Names of arrays with one chunk per frame."""
    whole: tuple[str, ...] = ()
    """Names of arrays that are one chunk."""
    files: tuple[str, ...] = ()
    """Names of files."""
    notes: tuple[str, ...] = ()
    """Names of notes."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of all arrays."""
        return (*self.per_frame, *self.whole)


def parse_contents(sizes: Mapping[str, int]) -> Contents:
    """Determine the contents of a folder from its objects' names, relative to it, and their bytes.

    An array with both a packed object and separate chunks is returned with both: only its document says which
    form counts. Names that the store does not use are ignored.
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
    """Tell which of ``total`` frames are done according to the contents of a folder.

    A frame of a packed array counts as present: arrays are packed only with all frames that are marked.

    Returns:
        ``[total]`` bool.
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


# Files, whose objects' names carry the digest of the content


def stored_name(name: str, value: bytes) -> str:
    """Return the name of a file's object in ``files/``."""
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.sha256(value).hexdigest()[:32]
    return f"{stem}.{digest}.{suffix}" if dot else f"{name}.{digest}"


def file_name(stored: str) -> str | None:
    """Return a file's name from that of its object; None when it has no digest."""
    match = _FILE.fullmatch(stored)
    return None if match is None else match[1] + (match[3] or "")


def fits_digest(path: str, sha256: str) -> bool:
    """Tell whether the SHA-256 of a file's content, in hexadecimal, fits the digest in its object's name."""
    match = _FILE.fullmatch(path.rpartition("/")[2])
    return match is not None and sha256[:32] == match[2]


# Markers, named after a frame's number or the first and last frame of a run


def marker_name(first: int, last: int | None = None) -> str:
    """Return the name of the marker of a frame, or of the run of frames ``first`` to ``last``."""
    return f"{first:08d}" if last is None or first == last else f"{first:08d}-{last:08d}"


def marker_spans(names: Iterable[str]) -> dict[str, range]:
    """Return the frames that markers stand for, by the marker's name; other names are left out.

    So are markers of more frames than ``limits.video_frames``: those of a stranger cannot exhaust memory.
    """
    spans: dict[str, range] = {}
    most = current_limits().video_frames
    for name in names:
        if match := _MARKER.fullmatch(name):
            span = range(int(match[1]), int(match[2] or match[1]) + 1)
            if len(span) > 0 and span.stop <= most:
                spans[name] = span
    return spans


def marked_frames(names: Iterable[str]) -> set[int]:
    """Return all frames that markers stand for."""
    frames: set[int] = set()
    end = 0
    for span in sorted(marker_spans(names).values(), key=lambda span: (span.start, span.stop)):
        frames.update(range(max(end, span.start), span.stop))  # spans may overlap, any number of times
        end = max(end, span.stop)
    return frames


def consecutive_runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and last frame of every run of consecutive frames.

    Args:
        frames: frames in ascending order.
    """
    runs: list[tuple[int, int]] = []
    for frame in frames:
        if runs and runs[-1][1] == frame - 1:
            runs[-1] = runs[-1][0], frame
        else:
            runs.append((frame, frame))
    return runs
