"""How precisely a stage computes belongs to its job, whatever else its process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tasks.running
from portrait_core.generators import save_generator
from portrait_core.generators.prepared import volume_of
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import load_settings
from tasks.fitting import generator
from tasks.running import stage_function
from tests.portrait_core import tiny

seen: list[tuple[str, str]] = []


def switches() -> tuple[str, str]:
    """PyTorch's, of matrix products and convolutions on CUDA."""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]  # missing in the stubs


@stage_function("tuning", precision="job")
def notes_the_jobs(job: Job) -> Any:
    seen.append(switches())


@stage_function("flow", precision="fp32")
def notes_exact_ones(job: Job) -> Any:
    seen.append(switches())


def job_at(precision: str, weights: Path) -> Job:
    settings = load_settings(
        "embedded", [f"generator.precision={precision}", f"generator.weights={weights}", "device=cpu"]
    )
    return Job.model_construct(settings=settings, weights={"generator": "digest"})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    forget_models()
    path = tmp_path / "tiny.safetensors"
    save_generator(tiny.generator(), path)
    return path


def test_a_process_keeps_a_generator_per_precision(weights: Path) -> None:
    exact, half = (volume_of(generator(job_at(precision, weights))) for precision in ("fp32", "bf16"))
    assert exact is generator(job_at("fp32", weights))
    assert exact is generator(job_at("auto", weights))  # on a CPU
    ws = exact.mapping(torch.zeros(1, exact.settings.z_dim))
    made = [model.synthesis(ws, tiny.CAMERA)["image"] for model in (exact, half)]
    assert 1e-5 < float((made[0] - made[1]).abs().max()) < 0.5


def test_switches_are_set_by_the_stage_that_needs_them_and_restored(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.running, "device_of", lambda job: "cuda")
    before = switches()
    seen.clear()
    for precision in ("fp32", "auto", "bf16", "fp32"):
        notes_the_jobs(job=job_at(precision, weights))
        notes_exact_ones(job=job_at(precision, weights))
    assert seen[0::2] == [("ieee", "ieee"), ("tf32", "tf32"), ("tf32", "tf32"), ("ieee", "ieee")]
    assert set(seen[1::2]) == {("ieee", "ieee")}
    assert switches() == before
