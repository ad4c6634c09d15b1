"""Look at the inputs of a manifest's rows: faces, persons, sizes, and what would be refused."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence

from flows.display.checked import persons_line, portrait_line, video_line
from portrait_core.dataset.manifest import Row
from portrait_core.report.input_page import InputEntry
from portrait_core.settings import Settings
from portrait_core.settings.trust import settings_of_row
from portrait_core.store.places import redact_place
from tasks.checking import (
    CheckedPortrait,
    CheckedVideo,
    check_portrait,
    check_video,
    face_reader,
    strip_of,
)
from tasks.ingest import ingest

FRAMES = 12
"""Frames of a video that are looked at."""


def check_inputs(
    rows: Sequence[Row],
    overrides: Sequence[str],
    command: Settings,
    told: Callable[[int, int], None],
) -> list[InputEntry]:
    """Look at every distinct portrait and video once, with the settings of the first row that has it.

    Args:
        rows: sound rows of a manifest.
        overrides: ``section.field=value`` strings of the command.
        command: settings of the command.
        told: called with the numbers of finished and of all inputs.
    """
    uses: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        uses["portrait", row.portrait].append(row)
        uses["video", row.video].append(row)
    entries = []
    for done, ((kind, place), users) in enumerate(uses.items(), 1):
        entries.append(_entry(kind, place, users, overrides, command))
        told(done, len(uses))
    return entries


def _entry(
    kind: str, place: str, users: Sequence[Row], overrides: Sequence[str], command: Settings
) -> InputEntry:
    """Return what was found out of an input; whatever goes wrong with it is its own problem."""
    row = users[0]
    numbers, name = tuple(user.number for user in users), redact_place(place)
    try:
        settings = settings_of_row(row.profile, overrides, row.overrides, command)
        with tempfile.TemporaryDirectory(prefix="portrait-check-") as store:
            job = ingest(row.portrait, row.video, store, settings)
            reader = face_reader(job)
            side: CheckedPortrait | CheckedVideo
            if kind == "portrait":
                side = check_portrait(job, reader)
                about, picture = portrait_line(side), next(iter(side.tiles.values()), None)
            else:
                side = check_video(job, reader, FRAMES)
                about = f"{video_line(job, side)}. Persons: {persons_line(job, side)}"
                picture = strip_of(side)
    except Exception as error:
        return InputEntry(kind, name, numbers, "", refused=str(error) or type(error).__name__)
    return InputEntry(kind, name, numbers, about, tuple(side.warnings), side.refused, picture)
