"""Dask workers and their scheduler killed in the middle of a run."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tasks.job import STAGES
from tests.faults.conftest import MakeBench, Whole
from tests.faults.content import broken, different
from tests.faults.events import done_again
from tests.faults.injected import faults_of, fired_file
from tests.faults.runs import DONE
from tests.faults.servers import HOST, dask_scheduler, dask_worker, free_port
from tests.faults.table import add_row, committed_count
from tests.faults.test_kills import POINTS

ONE_THREAD = "runner.workers=1"
"""A Dask worker computes with one thread, so the run to compare with must too: with more, PyTorch sums in
another order."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_in_every_stage(bench: MakeBench, undisturbed: Whole, point: str) -> None:
    clip = bench("runner.kind=local_cluster", "runner.workers=2")
    faults = ",".join(f"kill={stage}:{point}" for stage in STAGES)
    run = clip.start(faults, warm=False)
    code = run.wait(1800)
    before = committed_count(clip)
    if code != DONE:
        clip.finish(5, warm=False)
    wrong = different(clip.store, undisturbed(ONE_THREAD).content)
    fired = sum(fired_file(clip.folder / "faults", fault).exists() for fault in faults_of(faults))
    add_row(clip, "SIGKILL of a Dask worker", f"{point}, once in every stage", fired, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    assert broken(Path(clip.store)) == []
    assert code == DONE, f"the flow did not survive {fired} deaths of workers:\n{run.output[-3000:]}"
    assert fired == len(STAGES)
    assert done_again(clip.events) == {}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_worker_of_a_cluster_is_gone_for_good(bench: MakeBench, undisturbed: Whole) -> None:
    port = free_port()
    clip = bench("runner.kind=address", f"runner.address=tcp://{HOST}:{port}")
    dask_scheduler(clip, port)
    first, _ = (dask_worker(clip, port, f"worker-{i}") for i in range(2))
    run = clip.start(warm=False)
    assert run.watch(lambda: clip.reached("template")), run.output
    first.destroy()
    before = committed_count(clip)
    code = run.wait()
    if code != DONE:
        clip.finish(3, warm=False)
    wrong = different(clip.store, undisturbed(ONE_THREAD).content)
    add_row(clip, "SIGKILL of a Dask worker and its nanny", "template", 1, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    assert code == DONE, run.output[-3000:]
    assert done_again(clip.events) == {}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_scheduler_dies(bench: MakeBench, undisturbed: Whole) -> None:
    port = free_port()
    clip = bench("runner.kind=address", f"runner.address=tcp://{HOST}:{port}")
    scheduler = dask_scheduler(clip, port)
    workers = [dask_worker(clip, port, f"worker-{i}") for i in range(2)]
    run = clip.start(warm=False)
    assert run.watch(lambda: clip.reached("inversion")), run.output
    scheduler.send(signal.SIGKILL)
    before = committed_count(clip)
    code = run.wait()
    for worker in workers:
        worker.destroy()
    if code != DONE:
        dask_scheduler(clip, port)
        for i in range(2):
            dask_worker(clip, port, f"worker-{i + 2}")
        clip.finish(1, warm=False)
    wrong = different(clip.store, undisturbed(ONE_THREAD).content)
    add_row(clip, "SIGKILL of the Dask scheduler", "inversion", 1, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    # Dask logs its lost connections with tracebacks; what counts is that the run ends and says how to go on.
    assert code == DONE or "give the same command again" in run.output[-600:].lower(), run.output[-3000:]
    assert done_again(clip.events) == {}
