"""What is done about the failure of a stage's function, on every runner."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

import tasks.running
from portrait_core.errors import InputError
from portrait_core.pipeline import Array, Job, Stage, all_pipelines
from portrait_core.pipeline.classification import BrokenGpuError, breaks_gpu
from portrait_core.runtime import cancellation
from portrait_core.settings import Settings
from portrait_core.settings.less_memory import MIN_RAYS, with_less_memory
from tasks.running import Call, does, functions_of, run_call, stage_function
from tests.simulation.stub import stub_job

calls: list[str] = []
seen_settings: list[Settings] = []
BROKEN = (
    "CUDA error: an illegal memory access was encountered\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
)


class AcceleratorError(RuntimeError):
    """Named as PyTorch's."""


@stage_function("portrait")
def fails(job: Job, times: int, error: Exception) -> Any:
    """Fails so many times."""
    calls.append("called")
    seen_settings.append(job.settings)
    if len(calls) <= times:
        raise error
    return "finished"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    calls.clear()
    seen_settings.clear()
    return stub_job(str(tmp_path), "clip", 9, Settings())


def _run(parameters: dict[str, Any], retries: int, first_s: float) -> Any:
    """Call what fails, as a worker does."""
    return run_call(Call(__name__, "fails", parameters, retries, first_s))


def test_a_broken_gpu_asks_every_loop_of_the_process_to_stop(job: Job) -> None:
    parameters = {"job": job, "times": 9, "error": AcceleratorError(BROKEN)}
    try:
        with pytest.raises(BrokenGpuError, match=r"an illegal memory access .* cannot use the GPU") as raised:
            _run(parameters, 5, 3600.0)
        assert cancellation.requested()
    finally:
        cancellation.clear()
    assert len(calls) == 1
    assert "CUDA_LAUNCH_BLOCKING" not in str(raised.value)
    copied = pickle.loads(pickle.dumps(raised.value))
    assert breaks_gpu(copied)
    assert str(copied) == str(raised.value)


@pytest.mark.parametrize(
    ("error", "tries"), [(OSError("disk"), 3), (InputError("no face"), 1), (RuntimeError("bug"), 1)]
)
def test_tries(job: Job, error: Exception, tries: int) -> None:
    with pytest.raises(type(error)):
        _run({"job": job, "times": 9, "error": error}, 2, 0.0)
    assert len(calls) == tries


def test_a_transient_failure_is_mended_by_another_try(job: Job) -> None:
    parameters = {"job": job, "times": 2, "error": OSError()}
    assert _run(parameters, 2, 0.0) == "finished"


def test_out_of_memory_is_tried_again_smaller_and_says_so(job: Job) -> None:
    parameters = {"job": job, "times": 2, "error": MemoryError("no more")}
    assert _run(parameters, 0, 0.0) == "finished"
    assert [s.tracking.batch for s in seen_settings] == [16, 8, 4]
    assert [s.template.batch for s in seen_settings] == [8, 4, 2]
    assert [s.generator.ray_chunk for s in seen_settings] == [None, 8192, 4096]
    rows = job.unit("portrait").failures()
    assert rows["cls"].tolist() == ["resource", "resource"]
    assert (
        "tracking.batch 16 -> 8, template.batch 8 -> 4, generator.ray_chunk all -> 8192" in rows["message"][0]
    )
    assert rows["key"].tolist() == [job.stage_keys["portrait"]] * 2


@pytest.mark.slow
@pytest.mark.each_change
def test_out_of_memory_ends_when_nothing_is_left_to_halve(job: Job) -> None:
    with pytest.raises(MemoryError):
        _run({"job": job, "times": 99, "error": MemoryError()}, 5, 0.0)
    least = seen_settings[-1]
    assert (least.tracking.batch, least.template.batch, least.generator.ray_chunk) == (1, 1, MIN_RAYS)
    assert with_less_memory(least) is None


def test_a_wait_before_a_retry_ends_when_the_process_is_asked_to_stop(job: Job) -> None:
    cancellation.request()
    try:
        with pytest.raises(cancellation.StopRequested):
            _run({"job": job, "times": 9, "error": OSError()}, 3, 3600.0)
    finally:
        cancellation.clear()


def test_what_does_every_stage_is_found_by_its_name() -> None:
    for pipeline in all_pipelines():
        for stage in pipeline.stages:
            functions = functions_of(stage.done_by)
            assert functions, stage.name
            for function in functions:
                assert function.stage == stage.name
                assert getattr(sys.modules[function.module], function.name) is function
            assert functions[-1].ranged == stage.parallel_over_frames, stage.name


def test_functions_of_a_stage_go_in_the_order_in_which_they_were_declared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks.running, "_FUNCTIONS", {})
    stage = Stage("two", "two", 1, "reenactment", writes=(Array("x", per="clip"),))

    def first(job: Job) -> Any: ...

    def last(job: Job, start: int, stop: int) -> Any: ...

    made = [does(stage)(first), does(stage)(last)]
    assert list(functions_of("two")) == made
    assert [one.ranged for one in made] == [False, True]
    again = does(stage)(last)  # the module is loaded again
    assert functions_of("two") == (made[0], again)
    assert functions_of("nothing") == ()
