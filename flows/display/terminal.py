"""Terminal output of a run: inputs, one progress bar per stage, results.

The bars query the store rather than the tasks, so they are right wherever the tasks run, and after a restart
they begin where the last run stopped.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from flows.display.views import frame_list
from portrait_core.metrics.follow import Follow, worst_region
from portrait_core.pipeline import find_pipeline, history
from portrait_core.pipeline.ledger import find_output
from portrait_core.tracking.trust import UNTRUSTED
from portrait_core.tracking.turns import TILTED_DEGREES

if TYPE_CHECKING:
    from portrait_core.pipeline import Job
    from portrait_core.report import Summary

_INTERVAL_S = 1.0
_STILL = 0.1
"""Absolute slope below which a movement is called still rather than backward."""
_LIPS_CLOSED = 0.95
"""Fraction of the driver's closed-lips frames from which on nothing is reported about the result's lips."""


class StageProgress:
    """Progress bars of one job; ``refresh`` queries the store once."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self._progress = progress
        self._open: dict[TaskID, tuple[Job, str]] = {}
        for one in filter(None, (job.edited, job)):
            for stage in one.stages:
                title = one.stage(stage).title
                title = f"edit: {title}" if one is not job else title
                self._open[progress.add_task(title, total=_total(one, stage), start=False)] = one, stage

    def refresh(self) -> None:
        """Update every bar that is not full."""
        for bar, (job, stage) in list(self._open.items()):
            total = _total(job, stage)
            done = _count(job, stage, total)
            if done == 0:
                continue
            self._progress.start_task(bar)
            self._progress.update(bar, completed=done)
            if done >= total:
                self._progress.stop_task(bar)
                del self._open[bar]


def _count(job: Job, stage: str, total: int) -> int:
    """Count the finished steps or frames of a stage, with one listing."""
    marked = find_output(job, stage).marked()
    if job.steps(stage) is None or len(marked) >= job.total(stage):
        return total if len(marked) >= job.total(stage) else len(marked)
    return history.read_progress(job, stage)


def _total(job: Job, stage: str) -> int:
    """Return the steps of an optimisation, else the frames."""
    return max(1, job.steps(stage) or job.total(stage))


@contextmanager
def shown_progress(job: Job, console: Console) -> Iterator[None]:
    """Show bars while the block runs; where the output is not a terminal, show them once at the end."""
    columns = (
        TextColumn("{task.description:<25}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        bars = StageProgress(job, progress)
        stop = threading.Event()
        thread = threading.Thread(target=_poll, args=(bars, stop), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=5)
            bars.refresh()


def _poll(bars: StageProgress, stop: threading.Event) -> None:
    while not stop.wait(_INTERVAL_S):
        try:
            bars.refresh()
        except Exception:
            continue


def announce(job: Job, console: Console) -> None:
    """Print inputs, profile and store."""
    say = partial(console.print, soft_wrap=True)
    say(f"portrait  {job.portrait}")
    if job.edited is not None:
        say(f"edit      {', '.join(job.settings.edit.attributes)}")
    sound = "with audio" if job.has_audio else "no audio"
    rate = f"{float(job.rate):.5g} frames per second ({job.frame_rate})"
    say(f"video     {job.video}: {job.frames} frames, {rate}, {sound}")
    for line in source_lines(job):
        say(f"          {line}")
    say(f"profile   {job.settings.profile}, {job.settings.template.size} pixels")
    say(f"store     {job.store}: {job.label}")


def source_lines(job: Job) -> list[str]:
    """Describe how the driving video's own pictures and the clip's frames differ; nothing where all agree."""
    source, lines = job.source, []
    if job.first_frame:
        lines.append(f"from frame {job.first_frame} of the video on, {job.start_s:.2f} s after its beginning")
    if "files" in source:
        verb = "is" if source["missing"] == 1 else "are"
        missing = f", {source['missing']} of their numbers {verb} missing" if source["missing"] else ""
        lines.append(f"{source['files']} pictures at {job.frame_rate} per second (--rate){missing}")
        if left_out := source.get("left_out"):
            lines.append(f"{left_out} other files are left out: hidden, or no pictures")
    repeated, dropped = source.get("repeated", 0), source.get("dropped", 0)
    if repeated or dropped:
        why = "its rate varies" if source.get("is_vfr") else "its times are not even"
        lines.append(
            f"{why}: in the whole video {repeated} frames repeat the picture before them, "
            f"{dropped} pictures are left out"
        )
    return lines


def _conclude_motion(summary: Summary, console: Console) -> None:
    """Print what the tracker measured on the result: one line on lips and head pose, one on the regions."""
    result = summary.motion.get("result")
    if result is None:
        console.print("the tracker found no face in the result")
        return
    pose = sum(result["pose_error_deg"]) / 3
    rows = summary.motion.get("follow", {}).get("result")
    console.print(
        f"{lips_line(result, rows)}; head pose off by {pose:.1f} degrees (mean of yaw, pitch, roll)"
    )
    if summary.motion.get("pose_transfer") == "relative":
        console.print(
            "head poses start from the portrait's own and change as the driver's do (render.pose_transfer; "
            "auto chooses this for a portrait that is turned to the side)"
        )
    if (frame := summary.motion.get("frame_of_portrait")) is not None:
        console.print(
            f"frame {frame} of the driver shows the portrait itself: head poses and expressions count from it"
        )
    if rows is not None:
        console.print(expression_line(rows) + lips_clause(summary.motion.get("lips_closed")))


def people_lines(people: Mapping[str, Any]) -> list[str]:
    """Describe what a user should know of the people in both inputs; nothing where all is as usual.

    Args:
        people: ``people`` of the summary.
    """
    driver, portrait = people.get("driver", {}), people.get("portrait", {})
    lines = []
    if driver.get("persons", 1) > 1:
        frames = len(driver.get("frames_with_several", []))
        several = f", {frames} of its frames several at once" if frames else ""
        lines.append(
            f"the video shows {driver['persons']} persons{several}; person {driver['driver']} drives "
            "(--driver-face chooses another)"
        )
    if driver.get("turned_degrees"):
        degrees = driver["turned_degrees"]
        lines.append(f"the driver's face lies turned in the video, which was turned by {degrees} degrees")
    if lying := driver.get("frames_lying", []):
        lines.append(
            f"the driver's face lies on its side or upside down in {len(lying)} frames, {frame_list(lying)}: "
            "the head does too"
        )
    if driver.get("still"):
        lines.append("the driver's face never moves: is it a picture? (--driver-face chooses another person)")
    if (tilt := abs(portrait.get("tilt_degrees", 0))) > TILTED_DEGREES:
        lines.append(
            f"the portrait's face is tilted by {tilt} degrees; turn the photograph if it lies on its side"
        )
    if portrait.get("faces", 1) > 1:
        lines.append(f"the portrait shows {portrait['faces']} faces; one is animated (--portrait-face)")
    if portrait.get("head_cut"):
        lines.append("the head is cut by the edge of the photograph: what is missing is mirrored and blurred")
    if "part" in portrait and portrait["part"] != portrait.get("whole"):
        width, height = portrait["shown"]
        lines.append(
            f"the face is small: the clip shows the part of the photograph around it, {width}x{height} "
            "pixels (--set media.portrait_part=whole shows all of it)"
        )
    return lines


def _reason(name: str) -> str:
    return UNTRUSTED.get(name, name.replace("_", " "))


def lips_line(result: Mapping[str, Any], rows: Mapping[str, object] | None) -> str:
    """Describe how the lips follow; a driver who hardly parts them gives no slope worth naming.

    Args:
        result: the result's figures of ``motion`` in the summary.
        rows: the result's rows of ``motion.follow``, by region that moves; None where they were not measured.
    """
    if rows is not None and "lip gap" not in rows:
        return "the driver's lips hardly part"
    return f"lips follow with correlation {result['lip_correlation']:.2f}, slope {result['lip_slope']:.2f}"


def expression_line(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Describe how many regions of the face move, and which of them follows worst.

    Args:
        rows: the result's rows of ``motion.follow`` in the summary, by region.
    """
    regions = {name: Follow.of_row(row) for name, row in rows.items()}
    worst = worst_region(regions)
    if worst is None:
        return "expression: no region of the driver's face moves"
    one = regions[worst]
    count = "1 region moves" if len(regions) == 1 else f"{len(regions)} regions move"
    explained = abs(one.best_slope - one.slope) >= 0.005
    reader = f"; {one.best_slope:.2f} allowing for the reader" if explained else ""
    figures = f"(slope {one.slope:.2f}{reader}, correlation {one.correlation:.2f})"
    return f"expression: {count}; {worst} {_how(one)} {figures}"


def lips_clause(closed: Mapping[str, int] | None) -> str:
    """Describe in how many frames lips stay open that are closed in the driver; empty where these are few.

    Args:
        closed: ``motion.lips_closed`` of the summary; None where an earlier version measured.
    """
    if closed is None or closed["result_frames"] >= _LIPS_CLOSED * closed["driver_frames"]:
        return ""
    frames = closed["driver_frames"]
    open_frames = frames - closed["result_frames"]
    return f"; lips stay open in {open_frames} of {frames} frames in which the driver's are closed"


def _how(one: Follow) -> str:
    """Describe how the region that follows worst differs from the driver's."""
    if one.shortfall <= 1:
        return "follows least closely"
    if one.correlation_shortfall > one.slope_shortfall:
        return "follows worst"
    if one.best_slope < -_STILL:
        return "moves the wrong way"
    return "is exaggerated most" if one.best_slope > 1 else "arrives least"


def conclude(summary: Summary, out: Path, console: Console) -> bool:
    """Print the results, and tell whether some frames had to be held from a neighbour."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("stage", "seconds", "done now", "of"):
        table.add_column(title, justify="left" if title == "stage" else "right")
    titles = {stage.name: stage.title for stage in find_pipeline("clip").stages}
    for stage in summary.stages:
        done = str(stage.frames_done) if stage.frames_done else "-"
        table.add_row(titles[stage.stage], f"{stage.seconds:.1f}", done, str(stage.frames_total))
    console.print(table)
    computed = any(stage.frames_done for stage in summary.stages)
    spent = f"{summary.seconds:.0f} s in this run" if computed else "everything was done already"
    memory = f"at most {summary.peak_memory_bytes / 2**30:.1f} GiB of memory"
    console.print(f"{spent}, {memory}, {summary.stored_bytes / 1e6:.0f} MB in the store")
    if summary.person_found is False:
        console.print(
            "no person was detected around the face in the photograph: the head's outline is estimated, and "
            "parts of the background may move with it"
        )
    _conclude_motion(summary, console)
    for line in people_lines(summary.people):
        console.print(line)
    for reason, frames in summary.held_frames.items():
        if frames:
            console.print(f"held from a neighbour ({_reason(reason)}): {len(frames)}, {frame_list(frames)}")
    for what, path in summary.files.items():
        console.print(f"{what.replace('_', ' '):<14}{out / path}", soft_wrap=True)
    return any(summary.held_frames.values())
