"""Stages on the second device: they leave in the store what they leave there when a CPU computes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from flows.edit_attributes import prepare_edit
from flows.reenact import run_stages
from flows.train_styleflow import prepare_training
from portrait_core.attribute_editing.styleflow_files import load_styleflow
from portrait_core.generators import save_generator
from portrait_core.media import read_image
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import done_frames
from portrait_core.runtime.model_cache import forget_models
from portrait_core.runtime.package_files import sample_portrait
from portrait_core.settings import Settings, load_settings
from tasks.stages.edit import REPORT, STRIP, edit
from tasks.stages.flow import FLOW_FILE, SHEET, train_flow
from tasks.stages.render import render
from tasks.stages.sample import sample
from tests.portrait_core import tiny
from tests.second_device import counted
from tests.second_device.conftest import take_plain_path
from tests.simulation.ready import ready_clip

pytestmark = [pytest.mark.slow, pytest.mark.each_change]

SAMPLES, FRAMES = 12, 2
_RENDERED = ("frames", "render_mask", "render_depth", "coverage")
_FITTING = ("edit.first_steps=1", "edit.tuning_steps=1", "tuning.locality_patch=8", "tuning.patch=16")


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    forget_models()
    yield
    forget_models()


@pytest.fixture(scope="module", autouse=True)
def _plain_cpu() -> Iterator[None]:
    """The CPU takes the path that every device takes, for fixtures that live as long as this file too."""
    with pytest.MonkeyPatch.context() as patch:
        take_plain_path(patch)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(tiny.generator(), path)
    return path


def _settings(weights: Path, device: str, *changes: str) -> Settings:
    small = ["template.size=64", "template.supersample=1", "render.samples=4", "render.importance_samples=2"]
    small += ["output.frame=crop", "output.size=64"]
    small += ["generator.samples=4", "generator.importance_samples=2", "sample.neural_resolution=16"]
    small += ["runner.workers=1", "runner.threads_per_worker=1"]
    small += ["flow.held_out=4", "flow.batch=4", "flow.epochs=1", "flow.hidden=[8]", "flow.sheet=1"]
    return load_settings("embedded", [f"generator.weights={weights}", *small, f"device={device}", *changes])


def _trained(folder: Path, weights: Path, device: str) -> Job:
    job = prepare_training(str(folder / device), SAMPLES, _settings(weights, device))
    assert sample(job=job, start=0, stop=SAMPLES).frames_done == SAMPLES
    assert train_flow(job=job).frames_done == 1
    return job


def _again(job: Job, stage: str) -> Job:
    """The job on the second device, a stage of it as if it had not been done."""
    job.output(stage).uncommit()
    forget_models()
    return job.model_copy(update={"settings": job.settings.model_copy(update={"device": "second"})})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Job:
    """A flow, trained on the CPU."""
    return _trained(tmp_path_factory.mktemp("flow"), weights, "cpu")


@pytest.mark.usefixtures("second")
def test_samples_and_their_flow_are_the_cpus(trained: Job, tmp_path: Path, weights: Path) -> None:
    jobs = trained, _trained(tmp_path, weights, "second")
    here, there = (job.output("sample") for job in jobs)
    for name in ("latents", "labels", "pictures"):
        np.testing.assert_array_equal(there.read(name), here.read(name), name)
    here, there = (job.output("flow") for job in jobs)
    assert there.get_bytes(SHEET) == here.get_bytes(SHEET)
    flows = []
    for place, output in (("here", here), ("there", there)):
        path = tmp_path / f"{place}.safetensors"
        path.write_bytes(output.get_bytes(FLOW_FILE) or b"")
        flows.append(load_styleflow(path))
    one, other = (made.flow.state_dict() for made in flows)
    assert all(torch.equal(one[name], other[name]) for name in one)
    readers = [made.reader for made in flows if made.reader is not None]
    assert all(map(torch.equal, *(reader.tensors().values() for reader in readers)))


@pytest.mark.usefixtures("second")
def test_the_same_edit_is_made(trained: Job, tmp_path: Path, weights: Path) -> None:
    flow = tmp_path / "flow.safetensors"
    flow.write_bytes(trained.output("flow").get_bytes(FLOW_FILE) or b"")
    asked = [f"edit.flow={flow}", 'edit.attributes=["age=+20","beard=0.9"]', "edit.strip=2", *_FITTING]
    job = prepare_edit(str(sample_portrait()), str(tmp_path / "store"), _settings(weights, "cpu", *asked))
    run_stages(job, lambda line: None)
    output = job.output("edit")

    def kept() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8], object]:
        (tmp_path / "strip.png").write_bytes(output.get_bytes(STRIP) or b"")
        strip = read_image(tmp_path / "strip.png")
        return output.read("edited"), output.read("edited_latents"), strip, output.read_note(REPORT)

    before = kept()
    assert edit(job=_again(job, "edit")).frames_done == 1
    after = kept()
    for one, other in zip(before[:3], after[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    assert after[3] == before[3]


@pytest.mark.usefixtures("second")
def test_the_same_frames_are_rendered(tmp_path: Path, weights: Path) -> None:
    job = ready_clip(str(tmp_path), "clip", FRAMES, _settings(weights, "cpu"))
    assert render(job=job, start=0, stop=FRAMES).frames_done == FRAMES
    output = job.output("render")
    before = {name: output.read(name) for name in _RENDERED}
    with counted() as waits:
        assert render(job=_again(job, "render"), start=0, stop=FRAMES).frames_done == FRAMES
    assert waits.copies, "nothing was computed on the second device"
    assert done_frames(job, "render").all()
    for name, values in before.items():
        np.testing.assert_array_equal(output.read(name), values, name)
