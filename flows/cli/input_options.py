"""Options that choose persons and a part of the driving video, shared by commands, and their settings."""

from __future__ import annotations

from typing import Annotated

import typer

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
        help="Where in the video to begin: seconds (`12.5`), `1:02.5`, or a frame counted from 0 (`300f`).",
    ),
]
End = Annotated[
    str | None, typer.Option("--to", metavar="WHEN", help="Before which place in the video to end, likewise.")
]
Rate = Annotated[
    str | None,
    typer.Option(
        "--rate",
        metavar="N",
        help="Frames per second, where VIDEO is a folder or a pattern of pictures (`frames/*.png`); by "
        "default 25.",
    ),
]


def chosen_faces(driver_face: str | None, portrait_face: str | None, any_face: bool) -> list[str]:
    """Return the changes of settings that choose persons."""
    chosen = {"driver_face": driver_face, "portrait_face": portrait_face}
    changes = [f"tracking.{name}={face}" for name, face in chosen.items() if face is not None]
    return [*changes, "tracking.any_face=true"] if any_face else changes


def chosen_range(begin: str | None, end: str | None, rate: str | None) -> list[str]:
    """Return the changes of settings that choose a part of the video, and the rate of one of pictures."""
    chosen = {"begin": begin, "end": end, "rate": rate}
    return [f"media.{name}={value!r}" for name, value in chosen.items() if value is not None]
