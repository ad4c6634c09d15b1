"""``runner.kind=local_gpus``: a worker process a GPU, here with names of GPUs that are not there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from distributed import Worker

from flows.engine.clusters import dask_client
from flows.engine.runners import DaskRunner
from flows.engine.stages import Functions, StageRunner
from flows.reenact import prepare, run_job
from portrait_core.errors import InputError
from portrait_core.pipeline import Job
from portrait_core.pipeline.results import StageRecord, process_name
from portrait_core.settings import Settings, load_settings
from tasks.deliver import deliver
from tasks.pipelines import CLIP
from tasks.running import functions_of
from tests.simulation.stub import ENVIRONMENT, STUBS, StubSettings, stub_job

NAMES = ("2", "GPU-5a")
Records = Mapping[str, StageRecord]


@pytest.fixture(autouse=True)
def _gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(NAMES))


def _profiles(dask_worker: Worker) -> bool:
    """Whether a worker looks at its threads' stacks, which in Python 3.11 can stop it for ever."""
    return "profile" in dask_worker.periodic_callbacks


def _on_gpus(job: Job, functions: Functions = functions_of) -> tuple[dict[str, set[str]], Records]:
    """Run a job on such workers: the stages that each GPU's process did, and their records."""
    with dask_client(job.settings) as client:
        seen = client.run(lambda: (process_name(), os.environ["CUDA_VISIBLE_DEVICES"]))
        assert not any(client.run(_profiles).values())
        stages = StageRunner(job, DaskRunner(client, job.settings.runner), functions=functions)
        stages.run_all()
    gpu_of = dict(seen.values())
    assert sorted(gpu_of.values()) == sorted(NAMES)
    did: dict[str, set[str]] = defaultdict(set)
    for stage, record in stages.records.items():
        for result in record.results:
            did[gpu_of[result.process]].add(stage)
    return did, stages.records


def _settings(*changes: str) -> Settings:
    return load_settings("embedded", ["runner.workers=0", *changes, "runner.kind=local_gpus"])


def test_a_worker_sees_one_gpu() -> None:
    with dask_client(_settings("runner.workers=1")) as client:
        seen = client.run(lambda: os.environ["CUDA_VISIBLE_DEVICES"])
        (found,) = client.scheduler_info(n_workers=-1)["workers"].values()
    assert list(seen.values()) == [NAMES[0]]
    assert (found["nthreads"], found["resources"]) == (1, {"GPU": 1})


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_have_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = StubSettings(size=64, seconds={"template": 0.1, "render": 0.1})
    monkeypatch.setenv(ENVIRONMENT, stub.model_dump_json())
    job = stub_job(str(tmp_path), "clip", 8, _settings("runner.frames_per_task=1"))
    did, _ = _on_gpus(job, STUBS.__getitem__)
    assert set(did) == set(NAMES)
    for stages in did.values():
        assert stages >= {"template", "render"}


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match="needs an NVIDIA GPU"), dask_client(_settings()):
        pass


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_clip_is_that_of_threads(tmp_path: Path, portrait: Path, driver: Path, small: list[str]) -> None:
    # Equally many threads: with another number PyTorch sums in another order.
    threads = load_settings("embedded", [*small, "runner.workers=1"])
    inputs = str(portrait), str(driver)
    one = prepare(*inputs, str(tmp_path / "one"), threads)
    run_job(one, tmp_path / "out-one")
    other = prepare(*inputs, str(tmp_path / "other"), _settings(*small, "runner.workers=0"))
    did, records = _on_gpus(other)
    deliver(other, tmp_path / "out-other", records, 0.0)
    assert set(did) == set(NAMES)
    assert set.union(*did.values()) == set(CLIP.names)
    fanned = {stage.name for stage in CLIP.stages if stage.parallel_over_frames}
    for stages in did.values():
        assert stages & fanned
    assert (tmp_path / "out-one" / "reenactment.mp4").read_bytes() == (
        tmp_path / "out-other" / "reenactment.mp4"
    ).read_bytes()
