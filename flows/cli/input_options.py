"""Options that choose persons and a part of the driving video, shared by commands, and their settings."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer


def _moment(given: str | None) -> str | None:
    from portrait_core.settings.input_sections import MOMENT

    if given is not None and not re.fullmatch(MOMENT, given):
        raise typer.BadParameter(
            f"{given!r} is no place in a video; give seconds (12.5), minutes and seconds (1:02.5), or a "
            "frame counted from 0 (300f)"
        )
    return given


def _rate(given: str | None) -> str | None:
    from portrait_core.settings.input_sections import RATE

    if given is not None and not re.fullmatch(RATE, given):
        raise typer.BadParameter(f"{given!r} is no rate; give frames per second, such as 25 or 30000/1001")
    return given


DriverFace = Annotated[
    str | None,
    typer.Option(
        "--driver-face",
        metavar="WHO",
        help="Who drives, where the video shows several people: `largest` (the default), a number as "
        "`portrait check` shows it, or `like:IMAGE`.",
    ),
]
PortraitFace = Annotated[
    str | None,
    typer.Option(
        "--portrait-face",
        metavar="WHO",
        help="Who is animated, where the portrait shows several people: a number counted from the left, "
        "`like:IMAGE`, or `largest`.",
    ),
]
AnyFace = Annotated[
    bool,
    typer.Option("--any-face", help="Go on with a face that is hardly a human one: a dog's, a monkey's."),
]
Begin = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="WHEN",
        callback=_moment,
        help="Where in the video to begin: seconds (`12.5`), `1:02.5`, or a frame counted from 0 (`300f`).",
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="WHEN",
        callback=_moment,
        help="Before which place in the video to end, likewise.",
    ),
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="N",
        callback=_rate,
        help="Frames per second, where VIDEO is a folder or a pattern of pictures (`frames/*.png`); by "
        "default 25.",
    ),
]


def chosen_faces(driver_face: str | None, portrait_face: str | None, any_face: bool) -> list[str]:
    """Return the changes of settings that choose persons."""
    chosen = {"driver_face": driver_face, "portrait_face": portrait_face}
    changes = [f"tracking.{name}={_like(face)}" for name, face in chosen.items() if face is not None]
    return [*changes, "tracking.any_face=true"] if any_face else changes


def _like(face: str) -> str:
    """Return a choice of a person, with the picture to compare with as the disk spells it."""
    from portrait_core.inputs.spelling import as_on_disk

    word, mark, place = face.partition(":")
    return f"{word}:{as_on_disk(place)}" if mark and word == "like" else face


def chosen_range(begin: str | None, end: str | None, rate: str | None) -> list[str]:
    """Return the changes of settings that choose a part of the video, and the rate of one of pictures."""
    chosen = {"begin": begin, "end": end, "rate": rate}
    return [f"media.{name}={value!r}" for name, value in chosen.items() if value is not None]


def unused_rate(rate: str | None, source: dict[str, Any], own: str) -> str:
    """Return a note where a rate was asked for and the video has its own, else nothing.

    Args:
        rate: the option.
        source: what is known of the driving video (:attr:`Job.source`).
        own: frames per second of the video.
    """
    if rate is None or "files" in source:
        return ""
    return f"--rate {rate} does not apply: it is for a folder or a pattern of pictures; the video has {own}"
