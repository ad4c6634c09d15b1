"""A CUDA error that leaves its process without a GPU: a Dask worker ends and another goes on; a run in
threads ends, and the same command goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.testing.utilities import prefect_test_harness
from typer.testing import CliRunner, Result

import portrait_core.inversion.chain
from flows.cli.main import app
from flows.engine.clusters import dask_client
from flows.engine.environment import QUIET
from flows.engine.runners import DaskRunner, open_runner
from flows.engine.stages import Functions, StageError, StageRunner, gpu_gone
from portrait_core.pipeline import Job
from portrait_core.pipeline.results import StageResult, process_name
from portrait_core.pipeline.state import read_jobs
from portrait_core.runtime import cancellation
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Store
from tasks.running import StageFunction, stage_function
from tests.flows.conftest import Arguments
from tests.flows.test_dataset import COLUMNS, call
from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job

FOLDER = "PORTRAIT_TEST_BROKEN_GPU"
"""Environment variable: where each process that lost its GPU leaves a file, named by the frame."""
BREAKS_AT = 2
MESSAGE = (
    "CUDA error: an illegal memory access was encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below "
    "might be incorrect.\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."
)
AN_HOUR = "runner.retry_delay_s=3600"
"""A wait before a try in the same process would let the test run into its time limit."""


def _left_by(times: int) -> bool:
    """Note that this process loses its GPU, unless so many have already."""
    for time in range(times):
        try:
            with (Path(os.environ[FOLDER]) / str(time)).open("x") as file:
                file.write(process_name())
        except FileExistsError:
            continue
        return True
    return False


def _render(job: Job, start: int, stop: int, times: int) -> StageResult:
    done = STUBS["render"][0](job=job, start=start, stop=min(stop, BREAKS_AT))
    if start <= BREAKS_AT < stop and _left_by(times):
        raise RuntimeError(MESSAGE)
    rest = STUBS["render"][0](job=job, start=max(start, BREAKS_AT), stop=stop)
    return StageResult(**(vars(rest) | {"start": start, "frames_done": done.frames_done + rest.frames_done}))


@stage_function("render")
def breaks_once(job: Job, start: int, stop: int) -> StageResult:
    """Render in a process that loses its GPU between two frames of the range, once in all."""
    return _render(job, start, stop, 1)


@stage_function("render")
def breaks_always(job: Job, start: int, stop: int) -> StageResult:
    """Render with a frame that costs every process its GPU."""
    return _render(job, start, stop, 99)


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    forget_models()
    yield
    forget_models()
    assert not cancellation.requested(), "the loops of this process would stop for ever"


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Names of the processes that lost their GPU so far, in their order."""
    folder = tmp_path / "left"
    folder.mkdir()
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.setenv(ENVIRONMENT, StubSettings(size=32, generator_mb=0.01).model_dump_json())
    return lambda: [path.read_text() for path in sorted(folder.iterdir())]


def _settings(*changes: str) -> Settings:
    changes = ("runner.workers=1", "runner.frames_per_task=4", AN_HOUR, *changes)
    return load_settings("embedded", changes)


def _rendered_by(function: StageFunction) -> Functions:
    """Stubs, but for what renders."""
    return (STUBS | {"render": (function,)}).__getitem__


def _on_dask(job: Job, functions: Functions) -> tuple[StageRunner, list[str]]:
    said: list[str] = []
    with dask_client(job.settings) as client:
        stages = StageRunner(job, DaskRunner(client, job.settings.runner), said.append, functions=functions)
        stages.run_all()
    return stages, said


def _arrays(job: Job) -> dict[str, np.ndarray]:
    places = {"frames": "render", "render": "render", "latents": "inversion"}
    return {name: job.output(stage).read(name) for name, stage in places.items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_dask_worker_ends_and_another_process_finishes_its_frames(
    tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    job = stub_job(str(tmp_path / "store"), "clip", 4, _settings("runner.kind=local_cluster"))
    stages, said = _on_dask(job, _rendered_by(breaks_once))
    (lost,) = left()
    results = stages.records["render"].results
    assert lost in {result.process for result in stages.records["template"].results}
    assert lost not in {result.process for result in results}
    assert sum(result.frames_done for result in results) == 2, "what the lost process had done is kept"
    rows = job.unit("render").failures()
    rows = rows[rows["stage"] == "render"]
    assert set(rows["cls"]) == {"transient"}
    assert rows["frame"].isna().all()
    (message,) = [message for message in rows["message"] if "context broke" in message]
    assert lost in message
    assert "illegal memory access" in message
    assert any("the worker died" in line for line in said)

    whole = stub_job(str(tmp_path / "whole"), "clip", 4, _settings())
    with open_runner(whole.settings) as threads:
        StageRunner(whole, threads, functions=STUBS.__getitem__).run_all()
    undisturbed = _arrays(whole)
    for name, values in _arrays(job).items():
        np.testing.assert_array_equal(values, undisturbed[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_frame_that_costs_every_worker_its_gpu_is_set_aside(
    tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    job = stub_job(str(tmp_path / "store"), "clip", 4, _settings("runner.kind=local_cluster"))
    _, said = _on_dask(job, _rendered_by(breaks_always))
    assert len(set(left())) == 3  # with its range, by itself, with nothing beside it
    rows = job.unit("render").failures()
    poison = rows[rows["cls"] == "poison"]
    assert poison[["stage", "frame"]].values.tolist() == [["render", BREAKS_AT]]
    assert any(f"render, frame {BREAKS_AT}: set aside" in line for line in said)


@pytest.mark.timeout(600)
def test_a_worker_in_the_process_of_the_run_ends_the_run_and_not_the_process(
    tmp_path: Path, left: Callable[[], list[str]]
) -> None:
    here = _settings("runner.kind=local_cluster", "runner.cluster={processes: false}")
    job = stub_job(str(tmp_path / "store"), "clip", 4, here)
    try:
        with pytest.raises(StageError, match="cannot use the GPU any more") as raised:
            _on_dask(job, _rendered_by(breaks_once))
        assert cancellation.requested()
    finally:
        cancellation.clear()
    assert gpu_gone(raised.value)
    assert left() == [process_name()]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first frame whose latent is optimised after the first one costs this process its GPU; frames that
    were begun."""
    right, begun = portrait_core.inversion.chain.invert_frame, list[int]()

    def invert(*arguments: Any) -> Any:
        begun.append(arguments[3])
        if len(begun) == 1:
            raise RuntimeError(MESSAGE)
        return right(*arguments)

    monkeypatch.setattr(portrait_core.inversion.chain, "invert_frame", invert)
    return begun


def _assert_told(ended: Result) -> None:
    assert ended.exit_code == 1, ended.output
    said = " ".join(ended.output.split())
    assert "Stopped: " in said
    assert "the stage inversion stopped with" in said
    assert "CUDA error: an illegal memory access was encountered" in said
    assert f"the process {process_name()} cannot use the GPU any more" in said
    assert "Nothing that is finished is lost: give the same command again" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_in_threads_ends_without_another_try_and_goes_on_at_the_same_command(
    tmp_path: Path, arguments: Arguments, breaking: list[int]
) -> None:
    store, whole = tmp_path / "store", tmp_path / "whole"
    command = arguments(store, tmp_path / "out", AN_HOUR, "runner.workers=1")
    _assert_told(CliRunner().invoke(app, command))
    assert len(breaking) == 1
    (job,) = read_jobs(Store(store), "", Settings())
    rows = job.unit("inversion").failures()
    assert rows[["stage", "cls", "attempt"]].values.tolist() == [["inversion", "transient", 1]]

    assert CliRunner().invoke(app, command).exit_code == 1  # no face in frame 3
    assert CliRunner().invoke(app, arguments(whole, tmp_path / "out2", "runner.workers=1")).exit_code == 1
    (undisturbed,) = read_jobs(Store(whole), "", Settings())
    other = _arrays(undisturbed)
    for array, values in _arrays(job).items():
        np.testing.assert_array_equal(values, other[array], array)


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_a_dataset_in_threads_leaves_the_other_clips_to_the_next_run(
    tmp_path: Path, portrait: Path, driver: Path, small: list[str], breaking: list[int]
) -> None:
    image = Image.open(portrait)
    image.save(tmp_path / "left.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "right.png")
    rows = [f"{name}.png,{driver},{name},CC0,form 7\n" for name in ("left", "right")]
    (tmp_path / "manifest.csv").write_text(COLUMNS + "".join(rows))
    changes = [*small, AN_HOUR, "runner.workers=1", "runner.clips=1"]
    settings = [part for change in changes for part in ("--set", change)]
    places: list[str | Path] = ["--store", tmp_path / "store", "--out", tmp_path / "out"]

    first = call("dataset", "run", tmp_path / "manifest.csv", *places, *settings)
    _assert_told(first)
    (begun,) = [job.label for job in read_jobs(Store(tmp_path / "store"), "", Settings())]
    row = {"left": 2, "right": 3}[begun]  # whichever was looked at first
    assert f"row {row}, {begun}: the stage inversion stopped" in first.output
    assert "The next run finds 2 of 2 clips to do" in " ".join(first.output.split())
    assert len(breaking) == 1, "another clip went on in a process without a GPU"

    again = call("dataset", "run", tmp_path / "manifest.csv", *places, *settings)
    assert "2 held" in again.output, again.output  # the driver has a frame without a face; none set aside
    for name in ("left", "right"):
        assert (tmp_path / "out" / name / "reenactment.mp4").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_flow_run_of_prefect_in_threads_ends_the_same(
    tmp_path: Path, arguments: Arguments, breaking: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    with prefect_test_harness(server_startup_timeout=180):
        changes = (AN_HOUR, "runner.workers=1", "runner.prefect=always")
        command = arguments(tmp_path / "store", tmp_path / "out", *changes)
        _assert_told(CliRunner().invoke(app, command))
        assert len(breaking) == 1
        assert CliRunner().invoke(app, command).exit_code == 1  # no face in frame 3
    assert (tmp_path / "out" / "reenactment.mp4").is_file()


@flow(persist_result=False, validate_parameters=False)
def _under_prefect(job: Job) -> list[StageResult]:
    """Run a job whose process loses its GPU once; what its rendering's tasks did."""
    with open_runner(job.settings) as runner:
        stages = StageRunner(job, runner, functions=_rendered_by(breaks_once))
        stages.run_all()
    return stages.records["render"].results


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_task_of_prefect_in_a_dask_worker_ends_it_too(
    tmp_path: Path, left: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    settings = _settings("runner.kind=local_cluster")
    job = stub_job(str(tmp_path / "store"), "clip", 4, settings)
    with prefect_test_harness(server_startup_timeout=180):
        results = _under_prefect(job)
    (lost,) = left()
    assert lost != process_name()
    assert lost not in {result.process for result in results}
    assert sum(result.frames_done for result in results) == 2
