"""``portrait check``: what a run would use of two files, before any work."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.input_options import (
    AnyFace,
    Begin,
    DriverFace,
    End,
    PortraitFace,
    Rate,
    chosen_faces,
    chosen_range,
    unused_rate,
)
from flows.cli.outcome import (
    BAD_INPUT,
    OK,
    OptionError,
    make_console,
    prepared_settings,
    reported_errors,
)
from flows.cli.places import check_places

if TYPE_CHECKING:
    from rich.console import Console

    from tasks.checking import CheckedPortrait, CheckedVideo

STRIP = "check.png"


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(check)


def check(
    portrait: Annotated[list[str], typer.Option(help="One image, as for `portrait reenact`.")],
    video: Annotated[list[str], typer.Option(help="One driving video, as for `portrait reenact`.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for check.png, which shows both with their faces numbered, and for a "
            "picture of each person, which `--driver-face like:PICTURE` takes."
        ),
    ] = Path("out/check"),
    frames: Annotated[int, typer.Option(min=1, help="Frames of the video to look at.")] = 60,
    driver_face: DriverFace = None,
    portrait_face: PortraitFace = None,
    any_face: AnyFace = False,
    begin: Begin = None,
    end: End = None,
    rate: Rate = None,
    profile: Annotated[
        str, typer.Option(help="Name of a profile (embedded, paper, fast) or path of a .yaml file.")
    ] = "embedded",
    change: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="As for `portrait reenact`.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Show what `portrait reenact` would use of PORTRAIT and VIDEO: faces, persons, rate, sound, size.

    Takes seconds and keeps nothing but the pictures in OUT. Ends with 2 when a run would be refused.
    """
    console = make_console()
    with reported_errors():
        chosen = chosen_faces(driver_face, portrait_face, any_face) + chosen_range(begin, end, rate)
        settings = prepared_settings(profile, [*change, *chosen])
        check_places(None, out)
        face, clip = _only("portrait", portrait), _only("video", video)
        import tasks.pipelines  # noqa: F401 - registers the pipelines
        from flows.display.checked import show_checked
        from tasks.checking import check_portrait, check_video, face_reader
        from tasks.ingest import ingest

        with tempfile.TemporaryDirectory(prefix="portrait-check-") as store:
            job = ingest(face, clip, store, settings)
            reader = face_reader(job)
            sides = check_portrait(job, reader), check_video(job, reader, frames)
        show_checked(job, *sides, console)
        if note := unused_rate(rate, job.source, job.frame_rate):
            console.print(f"note      {note}", soft_wrap=True)
        _write(*sides, out, console)
    raise typer.Exit(BAD_INPUT if any(side.refused for side in sides) else OK)


def _only(option: str, given: list[str]) -> str:
    """Return the one place that an option names, as the disk spells it.

    Raises:
        OptionError: there are several.
    """
    from portrait_core.inputs.spelling import as_on_disk

    if len(given) > 1:
        raise OptionError(
            option,
            f"it is given {len(given)} times, and this looks at one pair; for many, write a manifest with "
            "`portrait dataset init` and look at it with `portrait dataset check --deep --page FOLDER`",
        )
    return as_on_disk(given[0])


def _write(portrait: CheckedPortrait, video: CheckedVideo, out: Path, console: Console) -> None:
    """Write the strip, and a picture of each person where there are several."""
    from portrait_core.report.pictures import png_bytes
    from tasks.checking import strip_of

    strip = strip_of(portrait, video)
    if strip is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    pictures = {STRIP: strip}
    if len(video.persons) > 1:
        pictures |= {f"person_{number}.png": face for number, face in sorted(video.persons.items())}
    for name, picture in pictures.items():
        (out / name).write_bytes(png_bytes(picture))
        console.print(f"{'picture' if name == STRIP else 'person':<10}{out / name}", soft_wrap=True)
