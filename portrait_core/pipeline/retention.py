"""What need not be kept of a finished job, what no job names any more, and packing what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import DROPPED, Ledger
from portrait_core.pipeline.stage import Policy
from portrait_core.store import KINDS, Output, Store

_WITHIN: dict[Policy, tuple[Policy, ...]] = {"pictures": ("pictures",), "clip": ("pictures", "clip")}
"""Policies under which a stage's output may go, by the policy that was chosen."""


def droppable(job: Job, policy: Policy) -> dict[str, int]:
    """Bytes that a policy allows to drop now, by stage: nothing before the job is finished."""
    ledger = Ledger(job)
    if not ledger.finished():
        return {}
    found: dict[str, int] = {}
    for stage in job.stages:
        if job.stage(stage).drop_with not in _WITHIN[policy]:
            continue
        ledger.done(stage)
        contents, declared = ledger.contents[stage], job.declared(stage)
        names = set(contents.described) | set(contents.packed) | set(contents.chunks) | set(contents.files)
        if names & {*declared.arrays, *declared.files}:
            found[stage] = contents.bytes
    return found


def drop(job: Job, policy: Policy) -> int:
    """Drop what :func:`droppable` names; the bytes that were freed.

    What is dropped is noted before it goes: killed in between, the next call finishes.
    """
    sizes, ledger = droppable(job, policy), Ledger(job)
    for stage in sizes:
        output, declared = ledger.output(stage), job.declared(stage)
        output.write_note(DROPPED, sorted({*declared.arrays, *declared.files}))
        for name in declared.arrays:
            output.drop_array(name)
        for name in declared.files:
            output.drop_file(name)
    return sum(sizes.values())


def pack(job: Job) -> None:
    """Put every array of a finished job into one object (:meth:`Output.pack`)."""
    ledger = Ledger(job)
    if not ledger.finished():
        return
    for stage in job.stages:
        ledger.done(stage)
        if ledger.contents[stage].chunks.keys() & set(job.declared(stage).per_frame):
            ledger.output(stage).pack(job.declared(stage))


def stale_outputs(store: Store, jobs: Iterable[Job]) -> Iterator[tuple[Output, int]]:
    """List the folders of stages that none of the jobs names, each with its bytes.

    Raises:
        ValueError: from a job whose pipeline is not known; nothing may be taken for stale then.
    """
    named: set[str] = set()
    for job in jobs:
        for one in filter(None, (job, job.edited)):
            ledger = Ledger(one)
            named |= {ledger.output(stage).path for stage in one.stages}
    for kind in KINDS:
        for name in store.units(kind):
            for output in store.unit(kind, name).outputs():
                if output.path not in named:
                    yield output, output.contents().bytes
