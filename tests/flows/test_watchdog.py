"""Tasks that stop making progress, listings that lag, and tasks whose flow is not theirs any more."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.engine.runners
import flows.engine.watchdog
import tasks.running
from flows.engine.clusters import dask_client
from flows.engine.runners import DaskRunner, open_runner
from flows.engine.stages import Functions, StageError, StageRunner
from flows.engine.watchdog import Watchdog
from portrait_core.pipeline import Job
from portrait_core.pipeline.classification import StalledTaskError
from portrait_core.pipeline.ledger import Ledger
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.runtime import cancellation
from portrait_core.runtime.cancellation import StopRequested
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Lease, Unit
from portrait_core.store.files import Files
from tasks.running import Call, StageFunction, run_call, stage_function
from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job

HANGS = "PORTRAIT_TEST_HANGS"
_free = threading.Event()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(ENVIRONMENT, StubSettings(size=32, generator_mb=0.01).model_dump_json())
    _free.clear()
    yield
    _free.set()
    assert not cancellation.requested()


def _functions(function: StageFunction) -> Functions:
    return (STUBS | {function.stage: (function,)}).__getitem__


def _settings(*changes: str) -> Settings:
    return load_settings("embedded", ("runner.workers=1", "runner.retry_delay_s=0", *changes))


@stage_function("tuning")
def hangs(job: Job) -> StageResult:
    """Tune, but hang before it."""
    _free.wait(600)
    return STUBS["tuning"][0](job=job)


@stage_function("tuning")
def hangs_once(job: Job) -> StageResult:
    """Tune, but hang before it the first time that any process tries."""
    try:
        Path(os.environ[HANGS]).touch(exist_ok=False)
    except FileExistsError:
        return STUBS["tuning"][0](job=job)
    time.sleep(600)
    raise AssertionError("nobody ended this worker")


def test_a_thread_that_gets_no_further_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.engine.runners, "CHECK_INTERVAL_S", 0.05)
    settings = _settings("runner.stall_s=0.5")
    job = stub_job(str(tmp_path), "clip", 2, settings)
    with open_runner(settings) as runner:
        with pytest.raises(StageError, match=r"tuning got no further for .*runner\.stall_s") as stopped:
            StageRunner(job, runner, functions=_functions(hangs)).run_all()
        assert isinstance(stopped.value.__cause__, StalledTaskError)
        _free.set()
    assert Ledger(job).done_frames("inversion").all(), "what was finished is kept"


@stage_function("template")
def hangs_in_a_range(job: Job, start: int, stop: int) -> StageResult:
    """Draw templates, but hang before them."""
    _free.wait(600)
    return STUBS["template"][0](job=job, start=start, stop=stop)


@pytest.mark.timeout(120)
def test_a_hung_range_is_noticed_while_the_next_one_waits_for_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.engine.runners, "CHECK_INTERVAL_S", 0.05)
    settings = _settings("runner.stall_s=0.5", "runner.frames_per_task=1")
    job = stub_job(str(tmp_path), "clip", 3, settings)
    with open_runner(settings) as runner:
        with pytest.raises(StageError, match=r"template got no further for .*runner\.stall_s"):
            StageRunner(job, runner, functions=_functions(hangs_in_a_range)).run_all()
        _free.set()


def test_time_without_workers_is_no_time_without_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watchdog = Watchdog(stub_job(str(tmp_path), "clip", 2, _settings("runner.stall_s=100")), "template")
    for seconds in (20, 20, 500, 20, 20):  # nobody asks while there are no workers
        now[0] += seconds
        watchdog.check()
    for _ in range(2):
        now[0] += 20
        watchdog.check()
    now[0] += 25
    with pytest.raises(StalledTaskError):
        watchdog.check()


def test_a_worker_that_learns_too_late_who_has_the_work_leaves_the_next_task_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, told = threading.Event(), threading.Event(), threading.Event()
    job = stub_job(str(tmp_path), "clip", 2, _settings("runner.lease_s=0.03"))

    def slow(unit: Unit) -> Any:
        asked.set()
        assert answer.wait(60)
        told.set()
        return SimpleNamespace(owner="another flow")

    monkeypatch.setattr(tasks.running, "_in_worker_process", lambda: True)
    monkeypatch.setattr(tasks.running, "read_holder", slow)
    call = Call(__name__, "loops", {"job": job}, lease="this flow", stage="tuning")
    with tasks.running._while_wanted(call):
        assert asked.wait(60)
    answer.set()
    assert told.wait(60)
    time.sleep(0.2)
    assert not cancellation.requested()


def test_a_call_that_dask_logs_shows_no_secrets(tmp_path: Path) -> None:
    job = stub_job(str(tmp_path), "clip", 2, _settings('runner.storage_options={"secret": "SESAME"}'))
    job = job.model_copy(update={"portrait": "https://host/a.png?X-Amz-Signature=SESAME"})
    assert "SESAME" not in repr(Call(__name__, "hangs", {"job": job}))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_gets_no_further_is_ended_and_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.engine.runners, "CHECK_INTERVAL_S", 0.2)
    monkeypatch.setenv(HANGS, str(tmp_path / "hung"))
    settings = _settings("runner.kind=local_cluster", "runner.stall_s=5")
    job = stub_job(str(tmp_path / "store"), "clip", 2, settings)
    said: list[str] = []
    with dask_client(settings) as client:
        functions = _functions(hangs_once)
        StageRunner(job, DaskRunner(client, settings.runner), said.append, functions=functions).run_all()
    assert Ledger(job).is_finished()
    assert any("got no further" in line or "the worker died" in line for line in said), said


def test_markers_that_are_listed_late_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS: the host of the flow lists a folder as it was a moment before."""
    settings, listed = _settings(), list[str]()
    job = stub_job(str(tmp_path), "clip", 4, settings)
    sizes = Files.sizes

    def late(self: Files, folder: str) -> dict[str, int]:
        found = sizes(self, folder)
        if "/render." not in folder or not any(name.startswith("done/") for name in found):
            return found
        listed.append(folder)
        hidden = threading.current_thread() is threading.main_thread() and len(listed) < 6
        return {name: size for name, size in found.items() if not (hidden and name.startswith("done/"))}

    monkeypatch.setattr(Files, "sizes", late)
    with open_runner(settings) as runner:
        StageRunner(job, runner, functions=STUBS.__getitem__).run_all()
    assert Ledger(job).is_finished()


counted: list[int] = []


@stage_function("tuning")
def counts(job: Job) -> StageResult:
    """Note how many latents this host lists."""
    counted.append(len(job.output("inversion").marked()))
    return Stopwatch("tuning", 0, 1).result(1)


def test_a_worker_elsewhere_begins_when_it_sees_what_the_flow_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = stub_job(str(tmp_path), "clip", 3, _settings())
    output = job.output("inversion")
    output.commit([0])
    later = threading.Timer(0.3, output.commit, ([1, 2],))
    later.start()
    call = Call(__name__, "counts", {"job": job}, host="another host", seen={"inversion": 3}, stage="tuning")
    run_call(call)
    assert counted.pop() == 3, "it began with a part of the latents"
    output.uncommit([2])
    own = Call(__name__, "counts", {"job": job}, host=socket.gethostname(), seen={"inversion": 3})
    run_call(own)
    assert counted.pop() == 2, "a task on the flow's own host has nothing to wait for"


@stage_function("tuning")
def loops(job: Job) -> StageResult:
    """Work until asked to stop."""
    for _ in range(6000):
        cancellation.check()
        time.sleep(0.01)
    raise AssertionError("it went on though another flow has the work")


def test_a_task_stops_when_another_flow_has_taken_its_work_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.running, "_in_worker_process", lambda: True)
    job = stub_job(str(tmp_path), "clip", 3, _settings("runner.lease_s=0.3"))
    call: dict[str, Any] = {
        "module": __name__,
        "name": "loops",
        "parameters": {"job": job},
        "stage": "tuning",
    }
    with Lease(job.unit("tuning"), 5.0) as successor:
        with pytest.raises(StopRequested):
            run_call(Call(**call, lease="the dead flow's"))
        assert not cancellation.requested(), "the worker's next task would stop too"
        stopper = threading.Timer(1.5, cancellation.request)
        stopper.start()
        begin = time.monotonic()
        with pytest.raises(StopRequested):
            run_call(Call(**call, lease=successor.owner))
        assert time.monotonic() - begin > 1, "it stopped though its own flow has the lease"
        cancellation.clear()
