"""Limits on what a file may ask of this machine, checked before memory is taken for it.

A picture, a video, a manifest, a record of a store or a file of weights may be a stranger's, and a few bytes
can announce gigabytes. Every reader compares the announced number with the limits of its process, which
:func:`use_limits` sets from the settings of the command, never from a stored job or a manifest.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from portrait_core.errors import InputError
from portrait_core.settings.base import Section

Limit = Annotated[int, Field(ge=1)]


class Limits(Section):
    """Largest numbers that a file may announce; none of them changes a result.

    The last word of each name is its unit.
    """

    picture_bytes: Limit = 1 << 30
    """Bytes of a picture's file."""
    picture_pixels: Limit = 100_000_000
    """Pixels of a picture, width times height."""
    video_bytes: Limit = 1 << 37
    """Bytes of a video's file."""
    video_pixels: Limit = 36_000_000
    """Pixels of a frame of a video; 8K has 33 million."""
    video_frames: Limit = 1_000_000
    """Frames of a video at its constant rate, gaps between time stamps included."""
    table_bytes: Limit = 1 << 28
    """Bytes of a manifest or a table of labels, as a file and, of Parquet, decoded."""
    table_rows: Limit = 1_000_000
    """Rows of such a table."""
    table_columns: Limit = 1_000
    """Columns of such a table."""
    cell_characters: Limit = 32_767
    """Characters of a cell of such a table."""
    settings_bytes: Limit = 1 << 20
    """Bytes of a profile's file."""
    record_bytes: Limit = 1 << 26
    """Bytes of a record of a store: a note, a lease, a plan."""
    job_bytes: Limit = 1 << 22
    """Bytes of a job in a store, of its state, and of facts about an input."""
    chunk_bytes: Limit = 1 << 30
    """Bytes of a chunk of a stored array, decoded."""
    object_bytes: Limit = 1 << 36
    """Bytes of a file in a store: a clip, a tuned generator, a packed array."""
    weights_bytes: Limit = 1 << 34
    """Bytes of a file of weights, and of all that it holds, decoded."""


_current = Limits()


def current_limits() -> Limits:
    """Return the limits of this process."""
    return _current


def use_limits(limits: Limits) -> None:
    """Make limits those of this process, for all of its threads."""
    global _current
    _current = limits


def over_limit(name: str, found: int) -> str:
    """Return what is wrong with a number that exceeds a limit, else nothing.

    Args:
        name: name of a field of :class:`Limits`.
        found: the number that a file announces, in the field's unit.

    Returns:
        Words that follow the file's name, with both numbers and the setting that raises the limit.
    """
    allowed = getattr(_current, name)
    if found <= allowed:
        return ""
    unit = name.rpartition("_")[2]
    return (
        f"holds {found:,} {unit}, more than the {allowed:,} that limits.{name} allows; if it is meant to be "
        f"that large, raise the limit with --set limits.{name}={found}"
    )


def refuse_beyond(name: str, found: int, what: str) -> None:
    """Compare a number that a file announces with a limit.

    Args:
        name: name of a field of :class:`Limits`.
        found: the number, in the field's unit.
        what: name of the file, for the message.

    Raises:
        InputError: the number exceeds the limit.
    """
    if problem := over_limit(name, found):
        raise InputError(f"{what} {problem}")
