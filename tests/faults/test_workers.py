"""Dask workers and their scheduler killed in the middle of a run."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tasks.pipelines import CLIP
from tasks.running import WORKER_ENDED
from tests.faults.conftest import MakeBench, Whole
from tests.faults.content import broken, different
from tests.faults.events import done_again
from tests.faults.injected import faults_of, fired_file
from tests.faults.runs import DONE, STOPPED
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
    faults = ",".join(f"kill={stage}:{point}" for stage in CLIP.names)
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
    assert fired == len(CLIP.names)
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
def test_a_worker_whose_gpus_context_breaks(bench: MakeBench, undisturbed: Whole) -> None:
    clip = bench("runner.kind=local_cluster", "runner.workers=2", "runner.retry_delay_s=3600")
    stages = ("landmarks", "inversion", "tuning", "render")
    faults = ",".join(f"cuda={stage}:before-data" for stage in stages)
    run = clip.start(faults, warm=False)
    code = run.wait(1200)
    before = committed_count(clip)
    wrong = different(clip.store, undisturbed(ONE_THREAD).content)
    fired = sum(fired_file(clip.folder / "faults", fault).exists() for fault in faults_of(faults))
    add_row(clip, "CUDA error in a Dask worker", ", ".join(stages), fired, before, wrong, run)
    assert wrong == []
    assert code == DONE, run.output[-3000:]
    assert fired == len(stages)
    assert run.output.count("the GPU's context broke in the worker") == fired
    assert done_again(clip.events) == {}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_worker_without_a_nanny_loses_its_gpu(bench: MakeBench, undisturbed: Whole) -> None:
    port, fault = free_port(), "cuda=render:before-data"
    address = f"runner.address=tcp://{HOST}:{port}"
    clip = bench("runner.kind=address", address, "runner.retry_delay_s=3600")
    dask_scheduler(clip, port)
    first = dask_worker(clip, port, "worker-0", "--no-nanny", faults=fault)
    run = clip.start(warm=False)
    assert first.wait() == WORKER_ENDED, first.output[-3000:]
    assert "the GPU's context broke in the worker" in first.output
    assert run.watch(lambda: "has no worker: the run waits" in run.output), run.output[-3000:]
    before = committed_count(clip)
    dask_worker(clip, port, "worker-1", "--no-nanny")
    code = run.wait()
    wrong = different(clip.store, undisturbed(ONE_THREAD).content)
    add_row(clip, "CUDA error in a Dask worker without a nanny", "render", 1, before, wrong, run)
    assert wrong == []
    assert code == DONE, run.output[-3000:]
    assert fired_file(clip.folder / "faults", faults_of(fault)[0]).exists()
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


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_frame_that_kills_its_workers_is_set_aside(bench: MakeBench, undisturbed: Whole) -> None:
    clip = bench("runner.kind=local_cluster", "runner.workers=2")
    # each pattern strikes once, and all of them mean frame 3 of the rendered frames
    patterns = ("frames", "frame?", "fram??", "fra???", "fr????")
    faults = ",".join(f"kill=*/{name}/c.3.*:before" for name in patterns)
    run = clip.start(faults, warm=False)
    assert run.wait(1800) == STOPPED, run.output[-3000:]
    deaths = sum(fired_file(clip.folder / "faults", fault).exists() for fault in faults_of(faults))
    before = committed_count(clip)
    assert deaths == 3  # with its range, by itself, with nothing beside it
    assert "render, frame 3: set aside" in run.output
    assert "held from a neighbour (not rendered): frames 3" in run.output
    again = clip.start(warm=False)
    assert again.wait(600) == STOPPED
    assert "everything was done already" in again.output, "what was set aside is not tried again by itself"
    retried = clip.start_other([sys.executable, "-m", "flows.cli.main", "retry", clip.store], "retry")
    assert retried.wait(600) == DONE, retried.output
    wrong = different(clip.store, undisturbed(ONE_THREAD).content)
    add_row(
        clip, "a frame that kills its worker", "render, frame 3; `portrait retry`", deaths, before, wrong, run
    )
    assert wrong == []
    twice = {
        place: count
        for place, count in done_again(clip.events).items()
        if place[0] not in ("encode", "measure")
    }
    assert twice == {}  # the clip is encoded and measured again, with the frame in it
