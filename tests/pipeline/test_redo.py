"""Making work unfinished again, and what is known of a store's jobs when something is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from portrait_core.errors import InputError
from portrait_core.pipeline.ledger import Ledger, record_failures
from portrait_core.pipeline.redo import mark_undone, schedule_retry
from portrait_core.pipeline.state import read_all_jobs, save_job
from portrait_core.settings import Settings
from portrait_core.store import Failure, Store
from tests.simulation.stub import stub_job


def test_a_failure_that_was_taken_up_stays_so_when_its_stage_is_forgotten(tmp_path: Path) -> None:
    job = stub_job(str(tmp_path), "clip", 4, Settings())
    record_failures(job, "render", [Failure("render", 2, "poison", "died", key=job.stage_keys["render"])])
    assert Ledger(job).quarantined_frames("render").tolist() == [False, False, True, False]
    schedule_retry(job, {"render": [2], "template": [1]}, ["poison"], "redo")  # which forgets what follows
    assert not Ledger(job).quarantined_frames("render").any()
    mark_undone(job, ["tuning"])
    assert not Ledger(job).quarantined_frames("render").any()


def test_nothing_is_stale_while_a_job_cannot_be_read(tmp_path: Path) -> None:
    store, jobs = Store(tmp_path), [stub_job(str(tmp_path), name, 2, Settings()) for name in "ab"]
    for job in jobs:
        save_job(job)
    store.write_record("states", jobs[0].id, {"no": "state"})
    assert {job.id for job in read_all_jobs(store, Settings())} == {job.id for job in jobs}
    said = store.read_record("jobs", jobs[1].id)
    assert said is not None
    store.write_record("jobs", jobs[1].id, said | {"goal": "of a later version"})
    with pytest.raises(InputError, match=f"jobs/{jobs[1].id}.json"):
        read_all_jobs(store, Settings())
