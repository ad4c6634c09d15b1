"""Lines of text about a portrait and a driving video that were looked at."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flows.display.terminal import source_lines
from tasks.checking import CheckedPortrait, CheckedVideo, face_width

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.pipeline import Job


def show_checked(job: Job, portrait: CheckedPortrait, video: CheckedVideo, console: Console) -> None:
    """Print what was found out."""
    say = partial(console.print, soft_wrap=True)
    if portrait.seen is not None:
        say(f"portrait  {job.portrait}: {portrait_line(portrait)}")
    if video.info is not None:
        say(f"video     {job.video}: {video_line(job, video)}")
        for line in source_lines(job):
            say(f"          {line}")
    if video.followed is not None:
        say(f"persons   {persons_line(job, video)}")
    for side in (portrait, video):
        for warning in side.warnings:
            say(f"note      {warning}")
        if side.refused:
            say(f"refused   {side.refused}")


def portrait_line(portrait: CheckedPortrait) -> str:
    """Describe a portrait's sizes; empty where it is refused."""
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
