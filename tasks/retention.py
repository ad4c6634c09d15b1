"""What has to be made and what need not be kept: dropping arrays that nobody reads, and making them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.context import DROPPED, aside, available, done, finished, key_of, unit_of
from tasks.history import note_stored
from tasks.job import Job, Stage

Policy = Literal["pictures", "clip"]

POLICIES: Mapping[Policy, tuple[Stage, ...]] = {
    "pictures": ("template", "render"),
    "clip": ("retarget", "template", "inversion", "tuning", "pose", "render"),
}
"""Stages of a reenactment whose arrays and files go when its clip is encoded and measured. ``pictures``: the
templates and rendered frames, most of the bytes; latents and tuned generator stay, so that a clip with other
settings of the output takes minutes. ``clip``: everything but the clip itself and what was measured on it."""


def missing(job: Job) -> dict[Stage, NDArray[np.bool_]]:
    """Which frames every stage will do when the job is run ``[total]``, by stage: what is not finished, can
    be done and was not set aside; and all of a stage whose dropped data one of the others will read."""
    will: dict[Stage, NDArray[np.bool_]] = {}
    for stage in job.stages:
        reach = available(job, stage)
        if (before := job.frame_input(stage)) is not None:
            reach = reach | will[before]
        will[stage] = ~done(job, stage) & ~aside(job, stage) & reach
    for stage in reversed(job.stages):
        read = any(will[later].any() and stage in job.reads(later) for later in job.stages)
        if read and dropped(job, stage):
            will[stage] = np.ones(job.total(stage), np.bool_)
    return will


def dropped(job: Job, stage: Stage) -> bool:
    """Whether something that a stage had finished was dropped."""
    gone = unit_of(job, stage).read_meta(DROPPED) or {}
    return any(gone.get(name) == key_of(job, stage) for name in job.kept(stage))


def restore(job: Job, stage: Stage) -> None:
    """Make a stage unfinished whose data was dropped."""
    unit = unit_of(job, stage)
    unit.uncommit(stage, range(job.total(stage)))
    gone = unit.read_meta(DROPPED) or {}
    unit.write_meta(DROPPED, {name: key for name, key in gone.items() if name not in job.kept(stage)})


def droppable(job: Job, policy: Policy) -> dict[str, int]:
    """Arrays and files (``files/NAME``) of a reenactment that a policy allows to drop now, with their bytes:
    none before the clip is encoded and measured, and none of an edit or a flow."""
    if job.goal != "clip" or not finished(job):
        return {}
    names = [name for stage in POLICIES[policy] for name in job.kept(stage)]
    sizes = unit_of(job, "encode").sizes()
    return {name: sizes[name] for name in names if sizes.get(name)}


def drop(job: Job, policy: Policy) -> int:
    """Drop what :func:`droppable` names; the bytes that were freed.

    What is dropped is noted before it goes: killed in between, the next call finishes.
    """
    names = droppable(job, policy)
    if not names:
        return 0
    unit = unit_of(job, "encode")
    keys = {name: job.stage_keys[stage] for stage in POLICIES[policy] for name in job.kept(stage)}
    unit.write_meta(DROPPED, (unit.read_meta(DROPPED) or {}) | {name: keys[name] for name in names})
    for name in names:
        if name.startswith("files/"):
            unit.drop_file(name.removeprefix("files/"))
        else:
            unit.drop_array(name)
    note_stored(job)
    return sum(names.values())
