"""The same stages under Dask and under Prefect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from prefect import Task
from prefect.cache_policies import NO_CACHE
from typer.testing import CliRunner

from flows.cli import app
from flows.environment import QUIET
from portrait_core.store import Store
from tasks import encode, inversion, measure, render, template, tracking, tuning
from tests.flows.conftest import FRAMES, Arguments

TASKS = (
    tracking.portrait,
    tracking.landmarks,
    tracking.fit,
    template.retarget,
    template.template,
    inversion.invert_first,
    inversion.invert_range,
    tuning.tune,
    render.render,
    encode.encode,
    measure.measure,
)


def _frames(store: Path) -> np.ndarray:
    (name,) = Store(store).units("reenactment")
    return Store(store).unit("reenactment", name).read("frames", 0, FRAMES)


@pytest.mark.parametrize("stage", TASKS, ids=lambda stage: stage.name)
def test_prefect_keeps_no_results_of_a_stage(stage: Task) -> None:
    assert stage.cache_policy == NO_CACHE
    assert stage.persist_result is False
    assert stage.retry_condition_fn is not None


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
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with prefect_test_harness(server_startup_timeout=180):
        ended = CliRunner().invoke(app, arguments(tmp_path / "s", tmp_path / "out", "runner.prefect=always"))
        assert ended.exit_code == 1, ended.output
        with get_client(sync_client=True) as client:
            (run,) = client.read_flow_runs()
    assert run.state is not None
    assert run.state.is_completed()
    assert run.parameters["profile"] == "embedded"
