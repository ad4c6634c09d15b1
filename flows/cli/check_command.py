"""``portrait check``: what a run would use of two files, before any work."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.outcome import BAD_INPUT, OK, make_console, prepared_settings, reported_errors

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.pipeline import Job
    from tasks.checking import CheckedPortrait, CheckedVideo

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
        from tasks.checking import check_portrait, check_video, face_reader
        from tasks.ingest import ingest

        with tempfile.TemporaryDirectory(prefix="portrait-check-") as store:
            job = ingest(portrait, video, store, settings)
            reader = face_reader(job)
            sides = check_portrait(job, reader), check_video(job, reader, frames)
        show_checked(job, *sides, console)
        _write(*sides, out, console)
    raise typer.Exit(BAD_INPUT if any(side.refused for side in sides) else OK)


def show_checked(job: Job, portrait: CheckedPortrait, video: CheckedVideo, console: Console) -> None:
    """Print what was found out."""
    say = partial(console.print, soft_wrap=True)
    if portrait.seen is not None:
        say(f"portrait  {job.portrait}: {portrait_line(portrait)}")
    if video.info is not None:
        say(f"video     {job.video}: {video_line(job, video)}")
    if video.followed is not None:
        say(f"persons   {persons_line(job, video)}")
    for side in (portrait, video):
        for warning in side.warnings:
            say(f"note      {warning}")
        if side.refused:
            say(f"refused   {side.refused}")


def portrait_line(portrait: CheckedPortrait) -> str:
    """Describe a portrait's sizes; empty where it is refused."""
    from tasks.checking import face_width

    if portrait.seen is None:
        return ""
    _, _, width, height = portrait.seen.about["whole"]
    shown = "x".join(map(str, portrait.seen.about["shown"]))
    return f"{width}x{height} pixels, shown at {shown}, face {face_width(portrait.seen.points[0]):.0f} wide"


def video_line(job: Job, video: CheckedVideo) -> str:
    """Describe a video's size, length, rate and sound; empty where it cannot be read."""
    info = video.info
    if info is None:
        return ""
    sound = f"sound of {info.audio_duration_s:.2f} s" if info.has_audio else "no sound"
    rate = f"{float(job.rate):.5g} frames per second ({job.frame_rate})"
    length = f"{job.frames} frames, {rate}, {float(job.frames / job.rate):.2f} s"
    return f"{info.width}x{info.height} pixels, {length}, {sound}"


def persons_line(job: Job, video: CheckedVideo) -> str:
    """Describe who is in a video; empty where it is refused."""
    if video.followed is None:
        return ""
    about = video.followed.about()
    unusable = sum(map(len, about["held"].values()))
    reasons = ", ".join(f"{name.replace('_', ' ')} {len(which)}" for name, which in about["held"].items())
    looked_at = f"looked at {len(video.looked_at)} of {job.frames} frames"
    return (
        f"{about['persons']}, number {about['driver']} drives; {looked_at}, {unusable} cannot be used"
        f"{': ' if reasons else ''}{reasons}"
    )


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
