"""Output of the commands on a store."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.display.console import styled_line
from portrait_core.errors import StoreError
from portrait_core.pipeline import FrameRange, Job, Policy, Stage, find_pipeline
from portrait_core.pipeline.ledger import Ledger, exclude_names
from portrait_core.pipeline.plan import StagePlan, plan
from portrait_core.pipeline.ranges import missing_runs
from portrait_core.pipeline.retention import drop, droppable_bytes, stale_outputs
from portrait_core.pipeline.state import Condition, JobState, record_state
from portrait_core.store import KINDS, Declared, Store, Unit, repair_unit, verify_unit
from portrait_core.store.refusals import is_of_one_object
from portrait_core.text.redaction import redact_values

_NAMED = 10
"""Maximum number of names in one line."""
_SHOWN = 40
"""Maximum number of clips listed one by one; unfinished clips come first."""


def table(*titles: str) -> Table:
    """Return an open table whose first column is text and whose others are numbers."""
    columns = Table(box=None, pad_edge=False, header_style="dim")
    for i, title in enumerate(titles):
        columns.add_column(title, justify="left" if i == 0 else "right", overflow="fold")
    return columns


def show_plan(job: Job, console: Console, forced: Sequence[str] = ()) -> None:
    """Print what a run would do and why, first of the portrait's edit where there is one."""
    edit = plan(job.edited) if job.edited is not None else []
    plans = [*edit, *plan(job, forced)]
    rows = table("stage", "to do", "of", "time", "disk")
    rows.add_column("why", overflow="fold")
    for i, one in enumerate(plans):
        why = "; ".join(
            f"{_ranges(part.runs)}: {part.reason}" if one.total > 1 else part.reason for part in one.parts
        )
        if one.quarantined:
            why = "; ".join(filter(None, [why, f"{one.quarantined} set aside (`portrait retry`)"]))
        todo = str(one.frames) if one.frames else "-"
        title = f"{'edit: ' if i < len(edit) else ''}{one.title}"
        rows.add_row(title, todo, str(one.total), duration(one.seconds), size(one.bytes), why)
    console.print(rows)
    console.print(_plan_total(plans))


def _plan_total(plans: Sequence[StagePlan]) -> str:
    if not any(one.frames for one in plans):
        return "nothing to do: everything is finished"
    unknown = [one.title for one in plans if one.frames and one.seconds is None]
    known = sum(one.seconds or 0.0 for one in plans), sum(one.bytes or 0.0 for one in plans)
    estimate = f"about {duration(known[0])} and {size(known[1])} by this store's history"
    if not unknown:
        return estimate
    if len(unknown) == sum(1 for one in plans if one.frames):
        return "no estimate: this store has no history of this profile yet"
    return f"{estimate}, without {', '.join(unknown)}, for which it has no history"


def _stage(state: JobState, stage: str) -> Stage | None:
    """Return a stage of a stored state; None where another version of the program had it."""
    with contextlib.suppress(ValueError):
        return find_pipeline(state.goal).stage(stage)
    return None


def _title(state: JobState, stage: str) -> str:
    declared = _stage(state, stage)
    return stage if declared is None else declared.title


def show_clip(state: JobState, job: Job | None, console: Console) -> None:
    """Print one job, stage by stage."""
    by = f" by {state.at_work}" if state.state == "running" else ""
    console.print(styled_line((state.label, "bold"), f": {state.state}{by}"), soft_wrap=True)
    rows = table("stage", "done", "failed", "of", "")
    for stage in state.stages:
        failed = Text(str(stage.failed), "red") if stage.failed else "-"
        running = "running" if stage.running else ""
        rows.add_row(_title(state, stage.stage), str(stage.done), failed, str(stage.total), running)
    console.print(rows)
    if state.held:
        console.print(f"{state.held} frames of the clip show a neighbour")
    for line in _last_failures(job) if job is not None else []:
        console.print(line, soft_wrap=True)
    kept = f", {size(state.bytes)} stored" if state.bytes else ""
    console.print(f"{duration(state.seconds)} spent on it{kept}")


def _last_failures(job: Job, shown: int = 5) -> list[str]:
    lines: list[str] = []
    for kind, name in {job.unit_of(stage): None for stage in job.stages}:
        rows = job.open_store().unit(kind, name).failures()
        rows = rows[rows["key"] == rows["stage"].map(job.stage_keys)]
        for (stage, cls, message), group in rows.groupby(["stage", "cls", "message"], sort=False):
            frames = sorted({int(f) for f in group["frame"].dropna()})
            where = f" {frame_list(frames)}" if frames else ""
            lines.append(f"{stage}{where}: {cls}: {message}")
    return lines[-shown:]


def show_clips(states: Sequence[JobState], console: Console) -> None:
    """Print many jobs, one per line, unfinished ones first."""
    order: dict[Condition, int] = {"failed": 0, "running": 1, "unfinished": 2, "done": 3}
    ordered = sorted(states, key=lambda state: order[state.state])
    rows = table("clip", "state", "frames", "failed", "held", "spent", "stored", "at")
    for state in ordered[:_SHOWN]:
        rows.add_row(
            state.label,
            state.state,
            _frames(state),
            str(sum(stage.failed for stage in state.stages) or "-"),
            str(state.held or "-"),
            duration(state.seconds),
            size(state.bytes) if state.bytes else "-",
            "-" if state.state == "done" else next(_unfinished(state), "-"),
        )
    console.print(rows)
    counts = Counter(state.state for state in states)
    summary = ", ".join(f"{counts[name]} {name}" for name in order if counts[name])
    spent = duration(sum(state.seconds for state in states))
    stored = size(sum(state.bytes for state in states))
    console.print(f"{len(states)} clips: {summary}; {spent} spent, {stored} stored")
    if len(states) > _SHOWN:
        console.print(f"{len(states) - _SHOWN} more are not listed; --json lists all")


def _frames(state: JobState) -> str:
    """Format the frames of the last stage that has frames, as done of all."""
    declared = [(stage, _stage(state, stage.stage)) for stage in state.stages]
    of_frames = [stage for stage, known in declared if known is not None and known.per_frame]
    return f"{of_frames[-1].done}/{of_frames[-1].total}" if of_frames else "-"


def _unfinished(state: JobState) -> Iterator[str]:
    return (_title(state, stage.stage) for stage in state.stages if stage.done < stage.total)


def as_json(state: JobState) -> str:
    """Format a job's state as one line of JSON."""
    fields = state.model_dump(mode="json", include={"id", "goal", "state", "held", "frames", "message"})
    stages = [
        stage.model_dump(mode="json", include={"stage", "total", "done", "failed", "running", "seconds"})
        for stage in state.stages
    ]
    every = {"clip": state.label, **fields, "seconds": round(state.seconds, 2), "bytes": state.bytes}
    return json.dumps(redact_values(every | {"stages": stages}))  # other characters than ASCII as escapes


def show_verified(
    store: Store, chosen: Sequence[Job], all_units: bool, repair: bool, console: Console
) -> bool:
    """Verify every unit (or those of some jobs), print the findings, and tell whether nothing is damaged.

    A unit that cannot be read, as where a link is in the way, counts as damaged; the others are verified.
    """
    problems: list[str] = []
    chosen, expected = _expected(chosen, problems)
    damaged = False
    for kind in KINDS:
        for name in store.units(kind) if all_units else [name for k, name in expected if k == kind]:
            with _noted(f"{kind}/{name}", problems):
                unit = store.unit(kind, name)
                damaged |= _show_unit(unit, expected.get((kind, name), {}), repair, console)
    for job in chosen:
        with _noted(job.label, problems):
            _show_digest(job, repair and damaged, console)
    if damaged and not repair:
        console.print("damaged: give --repair, then run what is not finished again")
    show_problems(problems, console)
    return not (damaged or problems)


def _show_unit(
    unit: Unit, expected: Mapping[tuple[str, str], Declared], repair: bool, console: Console
) -> bool:
    """Verify a unit, print the findings, and tell whether something is damaged."""
    report = verify_unit(unit, expected)
    console.print(
        f"{report.unit} ({unit.read_label()}): {report.chunks} chunks and {report.files} files, "
        f"{size(report.bytes)} read",
        soft_wrap=True,
    )
    for finding in report.findings:
        where = f"{finding.where} {frame_list(finding.frames)}" if finding.frames else finding.where
        console.print(f"  {finding.kind} {where}: {finding.message}", soft_wrap=True)
    for line in repair_unit(unit, report) if repair else []:
        console.print(f"  {line}", soft_wrap=True)
    return bool(report.damaged)


def _show_digest(job: Job, changed: bool, console: Console) -> None:
    """Print the digest of a finished job; record the state of one whose results changed."""
    if changed:
        record_state(job)
    ledger = Ledger(job)
    if any(ledger.dropped_names(stage) for stage in job.stages):
        console.print(f"no digest of {job.label}: some of its results were dropped", soft_wrap=True)
    elif ledger.is_finished():
        console.print(f"digest {content_digest(job)}  {job.label}", soft_wrap=True)


@contextlib.contextmanager
def _noted(what: str, problems: list[str]) -> Iterator[None]:
    """Note an error that concerns one unit or job alone, so that the others are gone on with."""
    try:
        yield
    except StoreError as error:
        if not is_of_one_object(error):
            raise
        problems.append(f"{what}: {error}")


def show_problems(problems: Sequence[str], console: Console) -> None:
    """Print what a command could not look at."""
    for problem in problems[:_SHOWN]:
        console.print(problem, soft_wrap=True)
    if len(problems) > _SHOWN:
        console.print(f"{len(problems) - _SHOWN} more such problems")


def show_passed_over(odd: Sequence[str], unread: Sequence[str], console: Console) -> None:
    """Print what is no part of a store, and the records that cannot be read."""
    for names, what in (
        (odd, "no part of a store, and passed over"),
        (unread, "records that cannot be read, and passed over"),
    ):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            listed = ", ".join(names[:_NAMED])
            console.print(f"{len(names)} {what}: {listed}{more}", soft_wrap=True)


def _expected(
    jobs: Sequence[Job], problems: list[str]
) -> tuple[list[Job], dict[tuple[str, str], dict[tuple[str, str], Declared]]]:
    """Return the jobs that can be looked at, and what should be in their units.

    That is by unit, stage and key, without what was dropped. Problems of the other jobs are added to
    ``problems``.
    """
    expected: dict[tuple[str, str], dict[tuple[str, str], Declared]] = {}
    sound: list[Job] = []
    for each in jobs:
        with _noted(each.label, problems):
            for job in filter(None, (each, each.edited)):
                ledger = Ledger(job)
                for stage in job.stages:
                    output = ledger.output(stage)
                    declared = exclude_names(job.declared(stage), ledger.dropped_names(stage))
                    expected.setdefault(job.unit_of(stage), {})[stage, output.key] = declared
            sound.append(each)
    return sound, expected


def content_digest(job: Job) -> str:
    """Return the digest of a finished job's results: of a clip its arrays, its generator and the clip."""
    ledger, digest = Ledger(job), hashlib.sha256()
    output_unit = job.unit_of(job.stages[-1])
    for stage in job.stages:
        if job.unit_of(stage) == output_unit:
            declared = job.declared(stage)
            digest.update(ledger.output(stage).digest(declared.arrays, declared.files).encode())
    return digest.hexdigest()


def show_cleaned(jobs: Sequence[Job], policy: Policy, dry_run: bool, console: Console) -> bool:
    """Drop what a policy allows, print how much that was, and tell whether every job could be looked at."""
    total = 0
    problems: list[str] = []
    for job in jobs:
        with _noted(job.label, problems):
            total += _clean(job, policy, dry_run, console)
    swept = 0 if dry_run else jobs[0].open_store().sweep()
    verb = "would be freed" if dry_run else "freed"
    console.print(f"{size(total)} {verb}" + (f"; {swept} half-written files deleted" if swept else ""))
    show_problems(problems, console)
    return not problems


def _clean(job: Job, policy: Policy, dry_run: bool, console: Console) -> int:
    """Drop what a policy allows of a job, and return the number of freed bytes."""
    names: Mapping[str, int] = droppable_bytes(job, policy)
    freed = sum(names.values()) if dry_run else drop(job, policy)
    if names:
        if not dry_run:
            record_state(job)
        console.print(f"{job.label}: {size(freed)} ({', '.join(names)})", soft_wrap=True)
    elif not Ledger(job).is_finished():
        console.print(f"{job.label}: not finished, nothing dropped", soft_wrap=True)
    return freed


def show_stale(store: Store, jobs: Sequence[Job], dry_run: bool, console: Console) -> bool:
    """Delete what no job names any more, print how much that was, and tell whether all of it could be."""
    total = 0
    problems: list[str] = []
    for output, count in stale_outputs(store, jobs):
        with _noted(output.path, problems):
            if not dry_run:
                output.drop()
            total += count
            console.print(f"{output.path}: {size(count)}", soft_wrap=True)
    console.print(f"{size(total)} {'would be freed' if dry_run else 'freed'}")
    show_problems(problems, console)
    return not problems


def frame_list(frames: Iterable[int]) -> str:
    """Format frames as ``frames 3, 40-99``."""
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
    """Format a duration as ``45 s``, ``12 min`` or ``3.4 h``; ``?`` when unknown."""
    if seconds is None:
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds else "-"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: float | None) -> str:
    """Format a size as ``3.2 MB``; ``?`` when unknown."""
    if count is None:
        return "?"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B" if count else "-"
