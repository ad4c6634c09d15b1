"""Dropping what a finished job need not keep, finding what no job names, and packing the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from portrait_core.pipeline.job import Job
from portrait_core.pipeline.ledger import DROPPED, Ledger
from portrait_core.pipeline.stage import Policy
from portrait_core.store import KINDS, Output, Store

_DROPPED_BY: dict[Policy, tuple[Policy, ...]] = {"pictures": ("pictures",), "clip": ("pictures", "clip")}
"""Values of ``Stage.drop_with`` that each policy drops."""


def droppable_bytes(job: Job, policy: Policy) -> dict[str, int]:
    """Return the bytes that a policy may drop now, by stage; nothing before the job is finished."""
    ledger = Ledger(job)
    if not ledger.is_finished():
        return {}
    sizes: dict[str, int] = {}
    for stage in job.stages:
        if job.stage(stage).drop_with not in _DROPPED_BY[policy]:
            continue
        ledger.done_frames(stage)
        contents, declared = ledger.contents[stage], job.declared(stage)
        names = set(contents.described) | set(contents.packed) | set(contents.chunks) | set(contents.files)
        if names & {*declared.arrays, *declared.files}:
            sizes[stage] = contents.bytes
    return sizes


def drop(job: Job, policy: Policy) -> int:
    """Drop the data that :func:`droppable_bytes` names.

    The note of it is written before the data goes: if this process is killed in between, the next call
    finishes.

    Returns:
        Number of freed bytes.
    """
    sizes, ledger = droppable_bytes(job, policy), Ledger(job)
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
    if not ledger.is_finished():
        return
    for stage in job.stages:
        ledger.done_frames(stage)
        if ledger.contents[stage].chunks.keys() & set(job.declared(stage).per_frame):
            ledger.output(stage).pack(job.declared(stage))


def stale_outputs(store: Store, jobs: Iterable[Job]) -> Iterator[tuple[Output, int]]:
    """List the folders of stages that none of the jobs names, each with its bytes.

    Raises:
        ValueError: the pipeline of a job is not known; nothing may count as stale then.
    """
    named: set[str] = set()
    for job in jobs:
        for any_job in filter(None, (job, job.edited)):
            ledger = Ledger(any_job)
            named |= {ledger.output(stage).path for stage in any_job.stages}
    for kind in KINDS:
        for name in store.units(kind):
            for output in store.unit(kind, name).outputs():
                if output.path not in named:
                    yield output, output.contents().bytes
