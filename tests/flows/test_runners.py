"""The same stages under Dask and under Prefect."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.testing.utilities import prefect_test_harness
from typer.testing import CliRunner

from flows.cli.main import app
from flows.engine.environment import QUIET, closed_temporary_server
from flows.engine.runners import open_runner
from flows.engine.stages import StageRunner
from flows.engine.task_runs import as_task_run
from portrait_core.pipeline import Job
from portrait_core.pipeline.state import read_jobs
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Store
from tasks.pipelines import CLIP
from tests.flows.conftest import Arguments
from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job


def _frames(store: Path) -> np.ndarray:
    (job,) = read_jobs(Store(store), "", Settings())
    return job.output("render").read("frames")


@flow(persist_result=False, validate_parameters=False)
def _stubbed(job: Job) -> list[str]:
    """Run a job of stubs; the stages that did something."""
    with open_runner(job.settings) as runner:
        stages = StageRunner(job, runner, functions=STUBS.__getitem__)
        stages.run_all()
    return list(stages.records)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_prefect_sees_a_task_run_per_stage_and_keeps_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, StubSettings(size=32, generator_mb=0.01).model_dump_json())
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    job = stub_job(
        str(tmp_path / "store"), "clip", 4, load_settings("embedded", ["runner.frames_per_task=2"])
    )
    with prefect_test_harness(server_startup_timeout=180):
        assert _stubbed(job) == list(CLIP.names)
        assert _stubbed(job) == []  # a stage without anything to do is no task run
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(limit=200)
    assert sorted(run.name for run in runs) == sorted(f"clip: {stage.title}" for stage in CLIP.stages)
    assert {tag for run in runs for tag in run.tags} == {"clip", *(f"stage:{name}" for name in CLIP.names)}
    for run in runs:
        assert run.state is not None
        assert run.state.is_completed()
        assert run.cache_key is None


def test_outside_a_flow_run_a_stage_is_called_plainly() -> None:
    assert as_task_run("render", "clip: {render}", ("clip",), lambda: 7) == 7


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_dask_and_threads_give_the_same_frames(tmp_path: Path, arguments: Arguments) -> None:
    threads, dask = tmp_path / "threads", tmp_path / "dask"
    # Equally many threads: with another number PyTorch sums in another order, and pixels move by a level.
    CliRunner().invoke(app, arguments(threads, tmp_path / "out1", "runner.workers=1"))
    ended = CliRunner().invoke(
        app, arguments(dask, tmp_path / "out2", "runner.kind=local_cluster", "runner.workers=1")
    )
    assert ended.exit_code == 1, ended.output  # one frame is held: see test_reenact
    np.testing.assert_array_equal(_frames(dask), _frames(threads))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_prefect_records_the_flow_run_and_its_tasks(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with prefect_test_harness(server_startup_timeout=180):
        ended = CliRunner().invoke(app, arguments(tmp_path / "s", tmp_path / "out", "runner.prefect=always"))
        assert ended.exit_code == 1, ended.output
        with get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs()
            stages = [tag for task in client.read_task_runs(limit=200) for tag in task.tags]
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["profile"] == "embedded"
    assert sorted(tag for tag in stages if tag.startswith("stage:")) == sorted(
        f"stage:{name}" for name in CLIP.names
    )


@flow
def _asked() -> tuple[str, list[int]]:
    """Where Prefect's temporary server is, and what it answers to someone without its password."""
    as_task_run("render", "one", (), lambda: 7)
    (server,) = SubprocessASGIServer._instances.values()
    asked = (
        httpx.post(f"{server.api_url}/flow_runs/filter", json={}),
        httpx.get(f"{server.api_url}/variables/"),
    )
    return server.api_url, [answer.status_code for answer in asked]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_temporary_server_answers_this_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    places = {PREFECT_HOME: tmp_path, PREFECT_API_URL: None, PREFECT_SERVER_EPHEMERAL_ENABLED: True}
    with temporary_settings(places | {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 180}):
        with closed_temporary_server():
            address, answers = _asked()
            with get_client(sync_client=True) as client:
                (run,) = client.read_flow_runs()
        for server in list(SubprocessASGIServer._instances.values()):
            server.stop()
    assert address.startswith("http://127.0.0.1:")
    assert answers == [401, 401]
    assert run.state is not None
    assert run.state.is_completed()
