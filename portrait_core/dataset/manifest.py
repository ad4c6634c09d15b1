"""Manifests: tables of portraits and videos to reenact, read and checked as a whole.

A manifest is CSV, an Excel workbook or Parquet at any path or fsspec URL, with columns of :data:`COLUMNS`.
Everything is checked before any work. Every unusable row is reported with its number as a spreadsheet shows
it (the header is row 1) and with advice. A video may be a folder or a pattern of pictures. Names of files may
be spelled as another system does (:mod:`portrait_core.inputs.spelling`).
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from portrait_core.attribute_editing.edit_requests import EditRequest, as_override, parse_requests
from portrait_core.errors import InputError, clipped
from portrait_core.inputs.known import BYTES_LIMIT, Kind
from portrait_core.inputs.problems import MAX_HELD
from portrait_core.inputs.sources import (
    CACHE_BYTES,
    files_status,
    in_threads,
    inspect_files,
    is_of_files,
    local_copy,
    read_bytes,
)
from portrait_core.inputs.spelling import Spellings, written_with_slashes
from portrait_core.inputs.table import (
    COLUMNS,
    CONSENT,
    ManifestError,
    Problem,
    Problems,
    Table,
    column_problems,
    read_table,
    stem,
    unique_name,
)
from portrait_core.media import VideoInfo, probe, read_image
from portrait_core.media.kinds import kind_at
from portrait_core.media.rates import clip_range
from portrait_core.settings import load_settings
from portrait_core.settings.input_sections import MediaSettings
from portrait_core.settings.limits import over_limit
from portrait_core.settings.trust import refuse_steering
from portrait_core.store.keys import is_name
from portrait_core.store.places import folder_of, redact_place, resolve_place

__all__ = [
    "COLUMNS",
    "Manifest",
    "ManifestError",
    "Problem",
    "Row",
    "check_manifest",
    "read_manifest",
]

MIN_SIDE = 64
"""Shortest accepted side in pixels; the same as in ``tasks.ingest``, which refuses a smaller picture when it
is read."""
MAX_OVERRIDES = 64
"""Number of ``section.field=value`` strings of a row."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

Told = Callable[[int, int], None]
"""Callback with the numbers of finished and of all items."""
Role = Literal["portrait", "video"]
Input = tuple[Role, str]
"""Role and place of an input."""
_KINDS: Mapping[Role, Kind] = {"portrait": "image", "video": "video"}
Recipe = tuple[str, tuple[str, ...]]
"""A profile and a row's overrides."""
Media = Mapping[Recipe, MediaSettings]
"""The settings ``media`` of every valid recipe."""


class Row(BaseModel):
    """One reenactment to make."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    """Number of the row, as a spreadsheet shows it."""
    portrait: str
    """Absolute path or URL of the portrait."""
    video: str
    """Absolute path or URL of the driving video."""
    name: str
    """Name of the output: unique, a safe file name."""
    profile: str
    """Name of a profile, or absolute path of its file."""
    overrides: tuple[str, ...] = ()
    """``section.field=value`` strings, applied after the profile and the command's own."""
    edit: str = ""
    """Changes of the portrait's attributes, ``age=+20; beard=0.8``; they are in ``overrides`` too."""
    licence: str = ""
    """Licence of the subject's pictures."""
    consent: str = ""
    """Reference of the subject's consent."""
    frames: int | None = None
    """Number of frames to make; None until the inputs are opened."""


@dataclass(frozen=True)
class Manifest:
    """Rows of a manifest, and their common data."""

    url: str
    rows: tuple[Row, ...]
    digest: str
    """SHA-256 of its cells: the same for CSV and Parquet, wherever the manifest lies."""
    clips: Mapping[str, VideoInfo] = field(default_factory=dict)
    """Properties of each video, by place, when the inputs were opened."""
    notes: tuple[str, ...] = ()
    """Remarks for a person on how the file was read."""

    @property
    def portraits(self) -> dict[str, int]:
        """Distinct portraits, each with the number of its rows."""
        return dict(Counter(row.portrait for row in self.rows))

    @property
    def videos(self) -> dict[str, int]:
        """Distinct videos, each with the number of its rows."""
        return dict(Counter(row.video for row in self.rows))

    @property
    def frames(self) -> int | None:
        """Number of frames to make in all rows together; None while it is unknown."""
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
        url: path or fsspec URL of CSV (also with semicolons or tabs), of an Excel workbook's first sheet, or
            of Parquet.
        profile: profile of rows that name none.
        require_consent: refuse rows without licence and consent.
        deep: also open every distinct portrait and video once, which fetches remote ones, and count frames.
        changes: ``section.field=value`` strings of the command, applied before each row's own.
        told: called, with ``deep``, with the numbers of opened and of all inputs.
        cache_bytes: limit of the copies of remote inputs that are kept.

    Raises:
        ManifestError: a row is unusable; the error holds every problem of every row.
    """
    manifest, problems = check_manifest(url, profile, require_consent, deep, changes, told, cache_bytes)
    if problems:
        raise ManifestError(url, problems, problems.more)
    return manifest


def check_manifest(
    url: str,
    profile: str = "embedded",
    require_consent: bool = True,
    deep: bool = False,
    changes: Sequence[str] = (),
    told: Told | None = None,
    cache_bytes: int = CACHE_BYTES,
) -> tuple[Manifest, Problems]:
    """Read a manifest as :func:`read_manifest` does; return its sound rows, and the first of its problems.

    Whatever is wrong with a row or a file is the problem of that row, or of those that name the file.

    Args:
        url: path or fsspec URL of the manifest.
        profile: profile of rows that name none.
        require_consent: refuse rows without licence and consent.
        deep: also open every distinct input once.
        changes: ``section.field=value`` strings of the command.
        told: called, with ``deep``, with the numbers of opened and of all inputs.
        cache_bytes: limit of the copies of remote inputs that are kept.

    Raises:
        ManifestError: there is no table with portraits and videos.
    """
    try:
        table = read_table(read_bytes(url, "manifest"))
    except InputError as error:
        raise ManifestError(url, [Problem(0, str(error).removeprefix(f"{redact_place(url)} "))]) from error
    table.restore_numbers()
    problems = table.problems
    for problem in column_problems(url, table, require_consent):
        problems.add(problem.row, problem.text)
    if not table.records:
        if not problems:
            problems.add(0, "holds no row; give each pair a row below the header")
        raise ManifestError(url, problems.ordered(), problems.more)
    spellings = Spellings()
    rows = _rows(table, folder_of(url), profile, problems, spellings)
    needed = ("portrait", "video", *(name for name in CONSENT if require_consent and name in table.columns))
    _check_cells(rows, needed, problems)
    _check_names(rows, problems)
    _check_duplicates(rows, problems)
    media = _check_settings(rows, changes, problems)
    problem_of, remote_bytes = _find_problems(rows)
    clips: dict[str, VideoInfo] = {}
    if deep:
        items = dict.fromkeys(item for row in rows for item in _inputs(row) if item not in problem_of)
        clips, unreadable = _open_all(list(items), remote_bytes, cache_bytes, told)
        problem_of |= unreadable
        rows = [_with_frames(row, clips, media) for row in rows]
    for row in rows:
        for item in _inputs(row):
            if item in problem_of:
                problems.add(row.number, f"the {item[0]} {problem_of[item]}")
    sound = tuple(row for row in rows if row.number not in problems.rows)
    return Manifest(url, sound, table.digest(), clips, tuple(table.notes)), problems.ordered()


# Rows


def _inputs(row: Row) -> list[Input]:
    both: list[Input] = [("portrait", row.portrait), ("video", row.video)]
    return [item for item in both if item[1]]


def _rows(table: Table, folder: str, profile: str, problems: Problems, spellings: Spellings) -> list[Row]:
    taken = {name.casefold() for _, cells in table.records if (name := cells.get("name", ""))}
    rows = []
    for number, cells in table.records:
        try:
            rows.append(_row(number, cells, folder, profile, taken, spellings))
        except Exception as error:
            problems.add(number, _told(error))
    return rows


def _told(error: Exception) -> str:
    """Return the message of an error that a row or a file raised, which may be of any kind."""
    if isinstance(error, ValueError | OSError) and str(error):
        return str(error)
    return f"cannot be used ({type(error).__name__}: {error}); check it"


def _row(
    number: int,
    cells: Mapping[str, str],
    folder: str,
    profile: str,
    taken: set[str],
    spellings: Spellings,
) -> Row:
    """Return the row that a record of the table describes.

    Raises:
        InputError: a cell is beyond what a row may hold.
    """
    values = {name: cells.get(name, "") for name in COLUMNS}
    identity = "\n".join(values[name] for name in ("portrait", "video", "profile", "overrides"))
    edit = _edit(values["edit"])
    words = [".".join(request.slug for request in edit)] if edit else []
    preferred = "--".join([stem(values["portrait"]), stem(values["video"]), *words])
    changes = [text.strip() for text in values["overrides"].split(";") if text.strip()]
    if len(changes) > MAX_OVERRIDES:
        raise InputError(
            f"the cell 'overrides' sets {len(changes)} values; put more than {MAX_OVERRIDES} into a profile"
        )
    own_profile = values["profile"]
    if own_profile.endswith((".yaml", ".yml")):
        own_profile = resolve_place(folder, own_profile)
    return Row(
        number=number,
        portrait=spellings.resolve(folder, values["portrait"]),
        video=spellings.resolve(folder, values["video"]),
        name=values["name"] or unique_name(preferred, identity, taken),
        profile=own_profile or profile,
        overrides=(*changes, as_override(edit)) if edit else tuple(changes),
        edit=values["edit"],
        licence=values["licence"],
        consent=values["consent"],
    )


def _edit(cell: str) -> tuple[EditRequest, ...]:
    """Parse a row's edit; empty where it cannot be read, which :func:`_check_cells` reports."""
    with suppress(InputError):
        return parse_requests([cell])
    return ()


def _check_cells(rows: Sequence[Row], needed: Sequence[str], problems: Problems) -> None:
    for row in rows:
        for name in needed:
            if not getattr(row, name):
                problems.add(row.number, f"the cell {name!r} is empty; fill it in")
        try:
            parse_requests([row.edit])
        except InputError as error:
            problems.add(row.number, str(error))


def _check_names(rows: Sequence[Row], problems: Problems) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if not is_name(row.name) or row.name.endswith(".") or _RESERVED.fullmatch(row.name):
            text = (
                f"the name {clipped(row.name)!r} is not safe in every file system; use letters, digits, '_'"
            )
            problems.add(row.number, f"{text}, '-', '.', beginning with a letter or digit, 200 at most")
        earlier = first.setdefault(row.name.casefold(), row.number)
        if earlier != row.number:
            text = f"the name {clipped(row.name)!r} is that of row {earlier} too; give each row its own"
            problems.add(row.number, text)


def _check_duplicates(rows: Sequence[Row], problems: Problems) -> None:
    first: dict[tuple[Any, ...], int] = {}
    for row in rows:
        if len(_inputs(row)) == 2:
            key = (row.portrait, row.video, row.profile, frozenset(row.overrides))
            earlier = first.setdefault(key, row.number)
            if earlier != row.number:
                text = f"is a duplicate of row {earlier} (portrait, video, profile, overrides); delete one"
                problems.add(row.number, text)


def _check_settings(rows: Sequence[Row], changes: Sequence[str], problems: Problems) -> Media:
    """Load the settings of every combination of profile and overrides once."""
    loaded: dict[Recipe, MediaSettings] = {}
    messages: dict[Recipe, str] = {}
    for row in rows:
        recipe = row.profile, row.overrides
        if recipe not in loaded and recipe not in messages:
            try:
                refuse_steering(row.overrides)
                loaded[recipe] = load_settings(row.profile, [*changes, *row.overrides]).media
            except Exception as error:
                messages[recipe] = _told(error) if len(messages) < MAX_HELD else ""
        if recipe in messages:
            problems.add(row.number, f"profile or overrides: {messages[recipe]}")
    return loaded


def _find_problems(rows: Sequence[Row]) -> tuple[dict[Input, str], int]:
    """Return the problems of inputs by their status alone, and the bytes of remote inputs."""
    items = dict.fromkeys(item for row in rows for item in _inputs(row))
    files = {place: files_status(place) for role, place in items if role == "video" and is_of_files(place)}
    statuses = inspect_files(place for role, place in items if role != "video" or place not in files)
    remote = sum(status.size or 0 for place, status in statuses.items() if "://" in place)
    problem_of: dict[Input, str] = {}
    for role, place in items:
        status = files[place] if role == "video" and place in files else statuses[place]
        why = status.problem + written_with_slashes(place) if status.problem else ""
        why = why or over_limit(BYTES_LIMIT[_KINDS[role]], status.size or 0)
        if why:  # beyond the problems that are kept, no text is needed
            problem_of[role, place] = f"{redact_place(place)} {why}" if len(problem_of) < MAX_HELD else ""
    return problem_of, remote


def _open_all(
    items: Sequence[Input], remote_bytes: int, cache_bytes: int, told: Told | None
) -> tuple[dict[str, VideoInfo], dict[Input, str]]:
    """Open each input once; return the videos' properties, and the problems of inputs."""
    open_one = partial(_open, remote_bytes <= cache_bytes, cache_bytes)
    results = dict(zip(items, in_threads(open_one, items, told), strict=True))
    clips = {place: result for (_, place), result in results.items() if isinstance(result, VideoInfo)}
    return clips, {item: result for item, result in results.items() if isinstance(result, str)}


def _open(kept: bool, cache_bytes: int, item: Input) -> VideoInfo | str | None:
    """Return a video's properties, None for a sound portrait, or its problem.

    Copies of remote inputs stay only if ``kept``, because a whole data set may not fit on this disk.
    """
    role, place = item
    name = redact_place(place)
    with ExitStack() as stack:
        folder = None if kept else stack.enter_context(tempfile.TemporaryDirectory(prefix="portrait-"))
        path: Path | None = None
        try:
            path = local_copy(place, folder, cache_bytes, BYTES_LIMIT[_KINDS[role]])
            clip = probe(path) if role == "video" else None
            height, width = (clip.height, clip.width) if clip else read_image(path).shape[:2]
        except Exception as error:  # a decoder may raise anything; it is this file's problem
            text = _told(error).replace(str(path), name) if path else _told(error)
            return text if name in text else f"{name}: {text}"
    if min(height, width) < MIN_SIDE:
        return f"{name} is {width}x{height} pixels; give one of {MIN_SIDE} and more on its shorter side"
    if clip and clip.frame_count < 2:
        kind = kind_at(path)
        what = f" (it is {kind})" if kind.family == "picture" else ""
        return (
            f"{name} has one frame{what}: there is no motion to take over; give a clip of two frames or more"
        )
    return clip


def _with_frames(row: Row, clips: Mapping[str, VideoInfo], media: Media) -> Row:
    recipe = row.profile, row.overrides
    if recipe not in media or row.video not in clips:
        return row
    clip, chosen = clips[row.video], media[recipe]
    rate = Fraction(chosen.rate) if is_of_files(row.video) else clip.frame_rate
    _, frames = clip_range(chosen.begin, chosen.end, chosen.max_frames, rate, clip.frame_count)
    return row.model_copy(update={"frames": frames})
