"""What the commands on a store print."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
from rich.console import Console
from rich.table import Table

from flows.terminal import TITLES
from portrait_core.store import KINDS, Store, Unit, repair_unit, verify_unit
from tasks.context import DROPPED, finished
from tasks.job import FILES, Job, Stage
from tasks.plan import StagePlan, plan
from tasks.ranges import FrameRange, missing_runs
from tasks.retention import Policy, drop, droppable, dropped
from tasks.status import ClipState, State, jobs

_SHOWN = 40
"""Clips listed one by one; of more, those that are not done come first."""


def table(*titles: str) -> Table:
    """An open table whose first column is text and whose others are numbers."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for i, title in enumerate(titles):
        made.add_column(title, justify="left" if i == 0 else "right", overflow="fold")
    return made


def show_plan(job: Job, console: Console, forced: Sequence[Stage] = ()) -> None:
    """Print what a run would do and why: of the portrait's edit first, where there is one."""
    edit = plan(job.edited) if job.edited is not None else []
    plans = [*edit, *plan(job, forced)]
    rows = table("stage", "to do", "of", "time", "disk")
    rows.add_column("why", overflow="fold")
    for i, one in enumerate(plans):
        why = "; ".join(
            f"{_ranges(part.runs)}: {part.reason}" if one.total > 1 else part.reason for part in one.parts
        )
        if one.aside:
            why = "; ".join(filter(None, [why, f"{one.aside} set aside (`portrait retry`)"]))
        todo = str(one.frames) if one.frames else "-"
        title = f"{'edit: ' if i < len(edit) else ''}{TITLES[one.stage]}"
        rows.add_row(title, todo, str(one.total), duration(one.seconds), size(one.bytes), why)
    console.print(rows)
    console.print(_plan_total(plans))


def _plan_total(plans: Sequence[StagePlan]) -> str:
    if not any(one.frames for one in plans):
        return "nothing to do: everything is finished"
    unknown = [TITLES[one.stage] for one in plans if one.frames and one.seconds is None]
    known = sum(one.seconds or 0.0 for one in plans), sum(one.bytes or 0.0 for one in plans)
    said = f"about {duration(known[0])} and {size(known[1])} by this store's history"
    if not unknown:
        return said
    if len(unknown) == sum(1 for one in plans if one.frames):
        return "no estimate: this store has no history of this profile yet"
    return f"{said}, without {', '.join(unknown)}, of which it has none"


def show_clip(state: ClipState, console: Console) -> None:
    """Print one reenactment, stage by stage."""
    console.print(f"[bold]{state.name}[/bold]: {state.state}{_by(state)}", soft_wrap=True)
    rows = table("stage", "done", "failed", "of", "")
    for stage in state.stages:
        failed = f"[red]{stage.failed}[/red]" if stage.failed else "-"
        rows.add_row(
            TITLES[stage.stage], str(stage.done), failed, str(stage.total), "running" if stage.running else ""
        )
    console.print(rows)
    if state.held:
        console.print(f"{state.held} frames of the clip show a neighbour")
    if state.job is not None:
        for line in _last_failures(state.job):
            console.print(line, markup=False, soft_wrap=True)
    kept = f", {size(state.bytes)} stored" if state.bytes else ""
    console.print(f"{duration(state.seconds)} spent on it{kept}")


def _by(state: ClipState) -> str:
    return f" by {state.holder}" if state.state == "running" else ""


def _last_failures(job: Job, shown: int = 5) -> list[str]:
    lines: list[str] = []
    for kind, name in {job.unit_of(stage): None for stage in job.stages}:
        rows = Store(job.store).unit(kind, name).failures()
        rows = rows[rows["key"] == rows["stage"].map(job.stage_keys)]
        for (name, cls, message), group in rows.groupby(["stage", "cls", "message"], sort=False):
            frames = sorted({int(f) for f in group["frame"].dropna()})
            where = f" {frame_list(frames)}" if frames else ""
            lines.append(f"{name}{where}: {cls}: {message}")
    return lines[-shown:]


def show_clips(states: Sequence[ClipState], console: Console) -> None:
    """Print many reenactments, a line each, those first that are not done."""
    order: dict[State, int] = {"failed": 0, "running": 1, "unfinished": 2, "done": 3}
    ordered = sorted(states, key=lambda state: order[state.state])
    rows = table("clip", "state", "frames", "failed", "held", "spent", "stored", "at")
    for state in ordered[:_SHOWN]:
        rendered = next(stage for stage in state.stages if stage.stage in ("render", "edit", "sample"))
        at = next((TITLES[s.stage] for s in state.stages if s.done < s.total), "-")
        rows.add_row(
            state.name,
            state.state,
            f"{rendered.done}/{rendered.total}",
            str(sum(stage.failed for stage in state.stages) or "-"),
            str(state.held or "-"),
            duration(state.seconds),
            size(state.bytes) if state.bytes else "-",
            "-" if state.state == "done" else at,
        )
    console.print(rows)
    counts = Counter(state.state for state in states)
    said = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    spent = duration(sum(state.seconds for state in states))
    console.print(f"{len(states)} clips: {said}; {spent} spent, {size(_bytes(states))} stored")
    if len(states) > _SHOWN:
        console.print(f"{len(states) - _SHOWN} more are not listed; --json lists all")


def _bytes(states: Sequence[ClipState]) -> float:
    return sum(state.bytes or 0 for state in states)


def as_json(state: ClipState) -> str:
    """A reenactment's state as one line of JSON."""
    return json.dumps(
        {
            "clip": state.name,
            "state": state.state,
            "held": state.held,
            "seconds": round(state.seconds, 2),
            "bytes": state.bytes,
            "stages": [asdict(stage) for stage in state.stages],
        }
    )


def show_verified(store: Store, clip: str | None, repair: bool, console: Console) -> bool:
    """Verify every unit (or those of one clip) and print what is wrong; True when nothing is damaged."""
    chosen = [job for job in jobs(store) if job.name.startswith(clip or "")]
    damaged = False
    for kind in KINDS:
        users = {
            job.unit_of(stage)[1]: job
            for job in chosen
            for stage in job.stages
            if job.unit_of(stage)[0] == kind
        }
        for name in users if clip else store.units(kind):
            unit = store.unit(kind, name)
            kept = _kept(users[name], unit) if name in users else {}
            report = verify_unit(unit, kept)
            console.print(
                f"{report.unit}: {report.chunks} chunks and {report.files} files, {size(report.bytes)} read",
                soft_wrap=True,
            )
            for found in report.findings:
                where = f"{found.where} {frame_list(found.frames)}" if found.frames else found.where
                console.print(f"  {found.kind} {where}: {found.message}", markup=False, soft_wrap=True)
            for line in repair_unit(unit, report, kept) if repair else []:
                console.print(f"  {line}", markup=False, soft_wrap=True)
            damaged |= bool(report.damaged)
    for job in chosen:
        if any(dropped(job, stage) for stage in job.stages):
            console.print(f"no digest of {job.name}: parts of it were dropped", soft_wrap=True)
        elif finished(job):
            console.print(f"digest {content_digest(job)}  {job.name}", soft_wrap=True)
    if damaged and not repair:
        console.print("damaged: give --repair, then run again what is not finished")
    return not damaged


def _kept(job: Job, unit: Unit) -> dict[str, list[str]]:
    """What should be in a unit, by stage: what was dropped should not."""
    gone = unit.read_meta(DROPPED) or {}
    stages = [stage for stage in job.stages if job.unit_of(stage) == (unit.kind, unit.name)]
    return {
        stage: [name for name in job.kept(stage) if gone.get(name) != job.stage_keys[stage]]
        for stage in stages
    }


def content_digest(job: Job) -> str:
    """Digest of what a finished job made: a clip's arrays, its generator, the clip."""
    stages = [stage for stage in job.stages if job.unit_of(stage) == job.home]
    names = [name for stage in stages for name in job.arrays(stage)]
    files = [name for stage in stages for name in FILES.get(stage, ())]
    clip = ["reenactment.mp4"] if job.goal == "clip" else []
    return Store(job.store).unit(*job.home).digest(names, [*files, *clip])


def show_cleaned(found: Sequence[Job], policy: Policy, dry_run: bool, console: Console) -> None:
    """Drop what a policy allows and print how much that was."""
    total = 0
    for job in found:
        names = droppable(job, policy)
        freed = sum(names.values()) if dry_run else drop(job, policy)
        total += freed
        if names:
            console.print(f"{job.name}: {size(freed)} ({', '.join(names)})", soft_wrap=True)
        elif not finished(job):
            console.print(f"{job.name}: not finished, nothing dropped", soft_wrap=True)
    store = Store(found[0].store)
    swept = 0 if dry_run else store.sweep()
    verb = "would be freed" if dry_run else "freed"
    console.print(f"{size(total)} {verb}" + (f"; {swept} half-written files deleted" if swept else ""))


def frame_list(frames: Iterable[int]) -> str:
    """``frames 3, 40-99``."""
    which = sorted(frames)
    if not which:
        return "no frames"
    finished = np.ones(which[-1] + 1, np.bool_)
    finished[which] = False
    runs = missing_runs(finished, FrameRange(0, len(finished)))
    return ("frames " if len(which) > 1 else "frame ") + _ranges(runs)


def _ranges(runs: Sequence[FrameRange], shown: int = 6) -> str:
    parts = [str(a) if b - a == 1 else f"{a}-{b - 1}" for a, b in runs[:shown]]
    return ", ".join(parts) + (f" and {len(runs) - shown} more ranges" if len(runs) > shown else "")


def duration(seconds: float | None) -> str:
    """``45 s``, ``12 min``, ``3.4 h``; ``?`` when unknown."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds else "-"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: float | None) -> str:
    """``3.2 MB``; ``?`` when unknown."""
    if count is None:
        return "?"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B" if count else "-"
