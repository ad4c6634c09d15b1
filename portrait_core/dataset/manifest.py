"""Manifests: tables of portraits and videos to reenact, read and checked as a whole.

A manifest is CSV or Parquet at any path or fsspec URL, with columns of :data:`COLUMNS`. Everything is checked
before any work, and every row that cannot be used is told with its number as a spreadsheet shows it (the
header is row 1) and with what to do.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from portrait_core.attribute_editing.edit_requests import EditRequest, as_override, parse_requests
from portrait_core.errors import InputError
from portrait_core.inputs.sources import CACHE_BYTES, in_threads, local_copy, look, read_bytes
from portrait_core.inputs.table import (
    COLUMNS,
    CONSENT,
    ManifestError,
    Problem,
    Table,
    column_problems,
    read_table,
    stem,
    unique_name,
)
from portrait_core.media import VideoInfo, probe, read_image
from portrait_core.settings import Settings, load_settings
from portrait_core.settings.trust import refuse_steering
from portrait_core.store.keys import is_name
from portrait_core.store.places import folder_of, joined, shown

__all__ = [
    "COLUMNS",
    "Manifest",
    "ManifestError",
    "Problem",
    "Row",
    "check_manifest",
    "read_manifest",
]

SMALLEST_SIDE = 64
"""Pixels; the same as in ``tasks.ingest``, which refuses a smaller picture when its turn comes."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

Told = Callable[[int, int], None]
Role = Literal["portrait", "video"]
Input = tuple[Role, str]
Recipe = tuple[str, tuple[str, ...]]
"""A profile and a row's overrides."""


class Row(BaseModel):
    """One reenactment to make."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """Of the row, as a spreadsheet shows it."""
    portrait: str
    """Absolute path or URL."""
    video: str
    """Absolute path or URL."""
    name: str
    """Of the output: unique, a safe file name."""
    profile: str
    """Name of a profile, or absolute path of its file."""
    overrides: tuple[str, ...] = ()
    """``section.field=value``, on top of the profile and the command's own changes."""
    edit: str = ""
    """Attributes of the portrait to change, ``age=+20; beard=0.8``; they are in ``overrides`` too."""
    licence: str = ""
    """Licence of the subject's pictures."""
    consent: str = ""
    """Reference of the subject's consent."""
    frames: int | None = None
    """Frames to make, when the inputs were opened."""


@dataclass(frozen=True)
class Manifest:
    """A manifest's rows, and what they share."""

    url: str
    rows: tuple[Row, ...]
    digest: str
    """SHA-256 of its cells: the same for CSV and Parquet, wherever the manifest lies."""
    clips: Mapping[str, VideoInfo] = field(default_factory=dict)
    """What was found in each video, when the inputs were opened."""

    @property
    def portraits(self) -> dict[str, int]:
        """Distinct portraits, and how many rows use each."""
        return dict(Counter(row.portrait for row in self.rows))

    @property
    def videos(self) -> dict[str, int]:
        """Distinct videos, and how many rows use each."""
        return dict(Counter(row.video for row in self.rows))

    @property
    def frames(self) -> int | None:
        """Frames to make in all rows together, or None while they are not known."""
        known = [row.frames for row in self.rows if row.frames is not None]
        return sum(known) if len(known) == len(self.rows) else None


def read_manifest(
    url: str,
    profile: str = "embedded",
    require_consent: bool = True,
    deep: bool = False,
    changes: Sequence[str] = (),
    told: Told | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> Manifest:
    """Read a manifest and check all of it.

    Args:
        url: path or fsspec URL of CSV (also with semicolons or tabs) or Parquet.
        profile: of rows that name none.
        require_consent: refuse rows without licence and consent.
        deep: also open every distinct portrait and video once, which fetches those that lie elsewhere, and
            count frames.
        changes: ``section.field=value`` of the command, below each row's own.
        told: hears, for ``deep``, how many of how many inputs have been opened.
        cache_bytes: limit of the copies that are kept of inputs that lie elsewhere.

    Raises:
        ManifestError: with every problem of every row.
    """
    manifest, problems = check_manifest(url, profile, require_consent, deep, changes, told, cache_bytes)
    if problems:
        raise ManifestError(url, problems)
    return manifest


def check_manifest(
    url: str,
    profile: str = "embedded",
    require_consent: bool = True,
    deep: bool = False,
    changes: Sequence[str] = (),
    told: Told | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> tuple[Manifest, list[Problem]]:
    """:func:`read_manifest`, but what is wrong is returned beside the rows that can be used.

    Raises:
        ManifestError: there is no table with portraits and videos at all.
    """
    try:
        table = read_table(read_bytes(url, "manifest"))
    except InputError as error:
        raise ManifestError(url, [Problem(0, str(error).removeprefix(f"{shown(url)} "))]) from error
    table.restore_numbers()
    problems = [*table.problems, *column_problems(url, table, require_consent)]
    if not table.records:
        empty = [] if table.problems else [Problem(0, "holds no row; give each pair a row below the header")]
        raise ManifestError(url, [*problems, *empty])
    rows = _rows(table, folder_of(url), profile)
    needed = ("portrait", "video", *(name for name in CONSENT if require_consent and name in table.columns))
    problems += _cell_problems(rows, needed) + _name_problems(rows) + _duplicates(rows)
    settings, wrong = _settings(rows, changes)
    problems += wrong
    bad, remote_bytes = _missing(rows)
    clips: dict[str, VideoInfo] = {}
    if deep:
        items = dict.fromkeys(item for row in rows for item in _inputs(row) if item not in bad)
        clips, unreadable = _opened(list(items), remote_bytes, cache_bytes, told)
        bad |= unreadable
        rows = [_with_frames(row, clips, settings) for row in rows]
    problems += [
        Problem(row.number, f"the {item[0]} {bad[item]}")
        for row in rows
        for item in _inputs(row)
        if item in bad
    ]
    refused = {problem.row for problem in problems}
    sound = tuple(row for row in rows if row.number not in refused)
    return Manifest(url, sound, table.digest(), clips), sorted(set(problems))


# The rows


def _inputs(row: Row) -> list[Input]:
    both: list[Input] = [("portrait", row.portrait), ("video", row.video)]
    return [item for item in both if item[1]]


def _rows(table: Table, folder: str, profile: str) -> list[Row]:
    taken = {name.casefold() for _, cells in table.records if (name := cells.get("name", ""))}
    rows = []
    for number, cells in table.records:
        given = {name: cells.get(name, "") for name in COLUMNS}
        identity = "\n".join(given[name] for name in ("portrait", "video", "profile", "overrides"))
        edit = _edit(given["edit"])
        words = [".".join(request.slug for request in edit)] if edit else []
        wanted = "--".join([stem(given["portrait"]), stem(given["video"]), *words])
        changes = [part.strip() for part in given["overrides"].split(";") if part.strip()]
        own = given["profile"]
        own = joined(folder, own) if own.endswith((".yaml", ".yml")) else own
        rows.append(
            Row(
                number=number,
                portrait=given["portrait"] and joined(folder, given["portrait"]),
                video=given["video"] and joined(folder, given["video"]),
                name=given["name"] or unique_name(wanted, identity, taken),
                profile=own or profile,
                overrides=(*changes, as_override(edit)) if edit else tuple(changes),
                edit=given["edit"],
                licence=given["licence"],
                consent=given["consent"],
            )
        )
    return rows


def _edit(cell: str) -> tuple[EditRequest, ...]:
    """What a row's edit asks for; nothing where it cannot be read, which :func:`_cell_problems` tells."""
    with suppress(InputError):
        return parse_requests([cell])
    return ()


def _cell_problems(rows: Sequence[Row], needed: Sequence[str]) -> list[Problem]:
    problems = []
    for row in rows:
        for name in needed:
            if not getattr(row, name):
                problems.append(Problem(row.number, f"the cell {name!r} is empty; fill it in"))
        try:
            parse_requests([row.edit])
        except InputError as error:
            problems.append(Problem(row.number, str(error)))
    return problems


def _name_problems(rows: Sequence[Row]) -> list[Problem]:
    problems = []
    first: dict[str, int] = {}
    for row in rows:
        if not is_name(row.name) or row.name.endswith(".") or _RESERVED.fullmatch(row.name):
            text = (
                f"the name {row.name!r} is not safe in every file system; use letters, digits, '_', '-', '.'"
            )
            problems.append(Problem(row.number, f"{text}, beginning with a letter or digit, 200 at most"))
        earlier = first.setdefault(row.name.casefold(), row.number)
        if earlier != row.number:
            text = f"the name {row.name!r} is that of row {earlier} too; give each row its own"
            problems.append(Problem(row.number, text))
    return problems


def _duplicates(rows: Sequence[Row]) -> list[Problem]:
    problems = []
    first: dict[tuple[Any, ...], int] = {}
    for row in rows:
        if len(_inputs(row)) == 2:
            key = (row.portrait, row.video, row.profile, frozenset(row.overrides))
            earlier = first.setdefault(key, row.number)
            if earlier != row.number:
                text = f"is a duplicate of row {earlier} (portrait, video, profile, overrides); delete one"
                problems.append(Problem(row.number, text))
    return problems


def _settings(rows: Sequence[Row], changes: Sequence[str]) -> tuple[dict[Recipe, Settings], list[Problem]]:
    """Settings of every combination of profile and overrides, each loaded once."""
    loaded: dict[Recipe, Settings] = {}
    wrong: dict[Recipe, str] = {}
    for recipe in dict.fromkeys((row.profile, row.overrides) for row in rows):
        try:
            refuse_steering(recipe[1])
            loaded[recipe] = load_settings(recipe[0], [*changes, *recipe[1]])
        except (ValueError, OSError) as error:
            wrong[recipe] = str(error)
    return loaded, [
        Problem(row.number, f"profile or overrides: {wrong[row.profile, row.overrides]}")
        for row in rows
        if (row.profile, row.overrides) in wrong
    ]


def _missing(rows: Sequence[Row]) -> tuple[dict[Input, str], int]:
    """What is wrong with which input, by looking; the bytes of those that lie elsewhere."""
    items = dict.fromkeys(item for row in rows for item in _inputs(row))
    found = look(place for _, place in items)
    remote = sum(one.size or 0 for place, one in found.items() if "://" in place)
    bad = {(role, place): f"{shown(place)} {why}" for role, place in items if (why := found[place].problem)}
    return bad, remote


def _opened(
    items: Sequence[Input], remote_bytes: int, cache_bytes: int, told: Told | None
) -> tuple[dict[str, VideoInfo], dict[Input, str]]:
    """Open inputs once each: what the videos hold, and what is wrong with which input."""
    opened = partial(_open, remote_bytes <= cache_bytes, cache_bytes)
    results = dict(zip(items, in_threads(opened, items, told), strict=True))
    clips = {place: found for (_, place), found in results.items() if isinstance(found, VideoInfo)}
    return clips, {item: found for item, found in results.items() if isinstance(found, str)}


def _open(kept: bool, cache_bytes: int, item: Input) -> VideoInfo | str | None:
    """A video's content, None for a sound portrait, or what is wrong with it.

    Copies of what lies elsewhere stay only if ``kept``: a whole data set may not fit on this disk.
    """
    role, place = item
    name = shown(place)
    with ExitStack() as stack:
        folder = None if kept else stack.enter_context(tempfile.TemporaryDirectory(prefix="portrait-"))
        path: Path | None = None
        try:
            path = local_copy(place, folder, cache_bytes)
            clip = probe(path) if role == "video" else None
            height, width = (clip.height, clip.width) if clip else read_image(path).shape[:2]
        except (ValueError, OSError) as error:
            text = str(error).replace(str(path), name) if path else str(error)
            return text if name in text else f"{name}: {text}"
    if min(height, width) < SMALLEST_SIDE:
        return f"{name} is {width}x{height} pixels; give one of {SMALLEST_SIDE} and more on its shorter side"
    if clip and clip.frame_count < 2:
        return f"{name} has one frame: there is no motion to take over; give a clip of two frames or more"
    return clip


def _with_frames(row: Row, clips: Mapping[str, VideoInfo], settings: Mapping[Recipe, Settings]) -> Row:
    chosen = settings.get((row.profile, row.overrides))
    if chosen is None or row.video not in clips:
        return row
    count = clips[row.video].frame_count
    return row.model_copy(update={"frames": min(count, chosen.media.max_frames or count)})
