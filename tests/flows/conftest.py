"""A whole run, small: real portrait, real driver, an untrained generator of the embedded architecture."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli.main import app
from portrait_core.generators import save_generator
from portrait_core.generators.scene_latents_2d import LAYOUT_2D
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import load_settings
from portrait_core.store import KINDS, Output, Store
from tasks.ingest import ingest_2d
from tests.conftest import FfmpegRunner
from tests.portrait_core import tiny

FRAMES = 6

os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded generator's architecture at 64 pixels, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(tiny.generator(), path)
    return path


@pytest.fixture(scope="session")
def driver(ffmpeg_to: FfmpegRunner, carphone: Path) -> Path:
    """Six frames of the sample video at 30000/1001 with 0.2 s of sound; frame 3 shows no face."""
    return ffmpeg_to(
        "driver.mp4",
        *("-i", carphone, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=44100:duration=0.2002"),
        *("-vf", "drawbox=color=black:t=fill:enable='eq(n,3)'", "-frames:v", FRAMES, "-c:v", "libx264"),
        *("-crf", "10", "-pix_fmt", "yuv420p", "-c:a", "aac", "-map", "0:v", "-map", "1:a"),
    )


@pytest.fixture(scope="session")
def small(tiny_generator: Path) -> list[str]:
    """Settings that make a run a matter of seconds."""
    return [
        f"generator.weights={tiny_generator}",
        "generator.samples=8",
        "generator.importance_samples=6",
        "template.size=64",
        "output.frame=crop",
        "output.size=64",
        "template.supersample=1",
        "inversion.first_steps=3",
        "tuning.steps=4",
        "tuning.patch=16",
        "runner.checkpoint_s=0",
        "tuning.novel_view_rays=32",
        "render.samples=8",
        "render.importance_samples=4",
        "runner.frames_per_task=2",
        "runner.workers=2",
        "runner.retry_delay_s=0",
        "runner.prefect=never",
        "device=cpu",
    ]


Arguments = Callable[..., list[str]]


@pytest.fixture(scope="session")
def arguments(portrait: Path, driver: Path, small: list[str]) -> Arguments:
    """``arguments(store, out, *changes)``: the command line of a small run."""

    def make(store: Path, out: Path, *changes: str) -> list[str]:
        settings = [part for change in (*small, *changes) for part in ("--set", change)]
        places = ["--portrait", portrait, "--video", driver, "--store", store, "--out", out]
        return ["reenact", *map(str, places), *settings]

    return make


@pytest.fixture(scope="session")
def tiny_2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2D generator with the embedded one's latents at 64 pixels, with random weights."""
    path = tmp_path_factory.mktemp("weights") / "tiny_2d.safetensors"
    save_generator(tiny.flat(scene=True), path, latent_layout=LAYOUT_2D)
    return path


JobMaker2d = Callable[..., Job]


@pytest.fixture(scope="session")
def job_2d(portrait: Path, driver: Path, small: list[str], tiny_2d: Path) -> JobMaker2d:
    """``job_2d(store, *changes)``: a small clip of three frames by a 2D generator."""

    def make(store: Path, *changes: str) -> Job:
        own = (f"generator.weights={tiny_2d}", "media.max_frames=3")
        settings = load_settings("embedded", [*small, *own, *changes])
        return ingest_2d(str(portrait), str(driver), str(store), settings)

    return make


@dataclass(frozen=True)
class Run:
    """One call of the command line."""

    result: Result
    store: Path
    out: Path

    @property
    def summary(self) -> dict[str, Any]:
        """What the run wrote down."""
        said: dict[str, Any] = json.loads((self.out / "summary.json").read_text())
        return said

    def computed(self) -> dict[str, int]:
        """Frames computed in this run by stage, without the stages that had nothing to do."""
        return {s["stage"]: s["frames_done"] for s in self.summary["stages"] if s["frames_done"]}

    def output(self, stage: str) -> Output:
        """The folder of a stage of the job that was summarised last, or of the store's only one."""
        if (self.out / "summary.json").exists():
            return stage_output(self.store, stage, self.summary["keys"][stage])
        return stage_output(self.store, stage)


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory, arguments: Arguments) -> Run:
    folder = tmp_path_factory.mktemp("first")
    store, out = folder / "store", folder / "out"
    return Run(CliRunner().invoke(app, arguments(store, out)), store, out)


@pytest.fixture
def again(first: Run, tmp_path: Path) -> Run:
    """A copy of the finished store, to be tampered with, and nothing in memory."""
    forget_models()
    shutil.copytree(first.store, tmp_path / "store")
    return Run(first.result, tmp_path / "store", tmp_path / "out")


def stage_output(store: str | Path, stage: str, key: str | None = None) -> Output:
    """The folder of a stage in a store, under a key or the only one."""
    opened = Store(store)
    found = [
        output
        for kind in KINDS
        for name in opened.units(kind)
        for output in opened.unit(kind, name).outputs()
        if output.stage == stage and key in (None, output.key)
    ]
    assert len(found) == 1, f"{len(found)} outputs of {stage}"
    return found[0]


def markers(store: Path) -> set[str]:
    """Every commit marker of a local store, by its path."""
    found = store.glob("*/*/*/done/*")
    return {str(p.relative_to(store)) for p in found if p.suffix != ".partial"}


def repeat(run: Run, arguments: Arguments, *changes: str) -> Run:
    """Give the command of a run again, with other settings."""
    result = CliRunner().invoke(app, arguments(run.store, run.out, *changes))
    return Run(result, run.store, run.out)
