"""Clips on the second device, from portrait to composite: the store holds what the plain CPU makes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.outcome import OK
from portrait_core.pipeline import Job
from portrait_core.pipeline.redo import mark_undone
from portrait_core.pipeline.state import read_jobs
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import Settings
from portrait_core.store import Store
from tests import official_files
from tests.flows.conftest import Arguments
from tests.flows.test_paper_profile import FEW

STAGES: tuple[str, ...] = (
    *("portrait", "layers", "landmarks", "person", "fit", "retarget", "template"),
    *("inversion", "tuning", "pose", "render"),
)
"""Those up to the composite."""
ON_DEVICE: tuple[str, ...] = ("inversion", "tuning", "pose", "render")
"""Stages that are made again on the device. With the embedded tracker a CPU does what is before them; the
paper's tracker is in :mod:`tests.second_device.test_tracking`."""
Contents = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _nothing_in_memory(second: torch.device, plain_cpu: None) -> None:
    forget_models()


def the_job(store: Path) -> Job:
    """The only job of a store."""
    (job,) = read_jobs(Store(store), "", Settings())
    return job


def contents(store: Path) -> Contents:
    """Every array and every file that stages keep in a store, by stage and name."""
    found: Contents = {}
    job = the_job(store)
    for stage in STAGES:
        output, declared = job.output(stage), job.declared(stage)
        for name in declared.arrays:
            found[f"{stage}/{name}"] = output.read(name)
        for name in declared.files:
            found[f"{stage}/files/{name}"] = np.frombuffer(output.get_bytes(name) or b"", np.uint8)
    return found


def on_both(line: list[str], profile: str, folder: Path) -> tuple[Contents, Contents]:
    """Make a clip on the CPU, and on the second device what is computed there."""
    here, there = folder / "cpu", folder / "second"

    def call(store: Path, device: str) -> Contents:
        only = [part for stage in STAGES for part in ("--only", stage)]
        changes = ["--set", f"device={device}", "--set", "runner.workers=1", "--set", "media.max_frames=2"]
        places = ["--profile", profile, "--store", str(store), "--out", str(folder / f"{device}-out")]
        forget_models()
        ended = CliRunner().invoke(app, [*line, *changes, *places, *only])
        assert ended.exit_code == OK, ended.output
        return contents(store)

    plain = call(here, "cpu")
    shutil.copytree(here, there)
    assert mark_undone(the_job(there), ON_DEVICE)
    return plain, call(there, "second")


def compare(here: Contents, there: Contents) -> None:
    assert here.keys() == there.keys()
    different = [name for name in here if not np.array_equal(here[name], there[name], equal_nan=True)]
    assert different == []


@pytest.mark.slow
@pytest.mark.each_change
@pytest.mark.timeout(600)
def test_a_clip_of_the_embedded_profile_is_the_cpus(
    arguments: Arguments, portrait: Path, driver: Path, tmp_path: Path
) -> None:
    line = arguments(tmp_path / "unused", tmp_path / "unused", "inversion.steps=1", "tuning.locality=0.1")
    compare(*on_both(line, "embedded", tmp_path))


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_clip_of_the_published_profile_is_the_cpus(
    portrait: Path, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official_files.write_paper(tmp_path / "models", official_files.QUIET)
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    changes = (*FEW, "inversion.noise_maps=true", "tuning.locality=0.1")
    line = ["reenact", "--portrait", str(portrait), "--video", str(driver)]
    line += [part for change in changes for part in ("--set", change)]
    here, there = on_both(line, "paper", tmp_path)
    assert here["inversion/latents"].shape[1] == 1  # one vector for all layers
    compare(here, there)
