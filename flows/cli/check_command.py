"""``portrait check``: what a run would use of two files, before any work."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.outcome import BAD_INPUT, OK, make_console, prepared_settings, reported_errors

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.pipeline import Job
    from tasks.checking import Checked

STRIP = "check.png"


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(check)


def check(
    portrait: Annotated[str, typer.Option(help="As for `portrait reenact`.")],
    video: Annotated[str, typer.Option(help="As for `portrait reenact`.")],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for check.png, which shows both with their faces numbered, and for a "
            "picture of each person, which `--driver-face like:PICTURE` takes."
        ),
    ] = Path("out/check"),
    frames: Annotated[int, typer.Option(min=1, help="Frames of the video to look at.")] = 60,
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
        settings = prepared_settings(profile, change)
        import tasks.pipelines  # noqa: F401 - registers the pipelines
        from tasks.checking import check_pair
        from tasks.ingest import ingest

        with tempfile.TemporaryDirectory(prefix="portrait-check-") as store:
            job = ingest(portrait, video, store, settings)
            checked = check_pair(job, frames)
        show_checked(job, checked, console)
        _write(checked, out, console)
    raise typer.Exit(BAD_INPUT if checked.refused else OK)


def show_checked(job: Job, checked: Checked, console: Console) -> None:
    """Print what was found out."""
    from tasks.checking import face_width

    seen, info, followed = checked.portrait, checked.video, checked.followed
    if seen is not None:
        _, _, width, height = seen.about["whole"]
        face, shown = face_width(seen.points[0]), "x".join(map(str, seen.about["shown"]))
        sizes = f"{width}x{height} pixels, shown at {shown}, face {face:.0f} wide"
        console.print(f"portrait  {job.portrait}: {sizes}")
    if info is not None:
        sound = f"sound of {info.audio_duration_s:.2f} s" if info.has_audio else "no sound"
        rate = f"{float(job.rate):.5g} frames per second ({job.frame_rate})"
        length = f"{job.frames} frames, {rate}, {float(job.frames / job.rate):.2f} s"
        console.print(f"video     {job.video}: {info.width}x{info.height} pixels, {length}, {sound}")
    if followed is not None:
        about = followed.about()
        unusable = sum(map(len, about["held"].values()))
        reasons = ", ".join(f"{name.replace('_', ' ')} {len(which)}" for name, which in about["held"].items())
        looked_at = f"looked at {len(checked.looked_at)} of {job.frames} frames"
        console.print(
            f"persons   {about['persons']}, number {about['driver']} drives; {looked_at}, {unusable} cannot "
            f"be used{': ' if reasons else ''}{reasons}"
        )
    for warning in checked.warnings:
        console.print(f"note      {warning}")
    for why in checked.refused:
        console.print(f"refused   {why}")


def _write(checked: Checked, out: Path, console: Console) -> None:
    """Write the strip, and a picture of each person where there are several."""
    from portrait_core.report.pictures import png_bytes

    if checked.strip is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    pictures = {STRIP: checked.strip}
    if len(checked.persons) > 1:
        pictures |= {f"person_{number}.png": face for number, face in checked.persons.items()}
    for name, picture in pictures.items():
        (out / name).write_bytes(png_bytes(picture))
        console.print(f"{'picture' if name == STRIP else 'person':<10}{out / name}")
