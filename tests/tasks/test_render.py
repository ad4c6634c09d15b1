"""What a process holds in memory when it renders one clip after the other."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tasks.fitting
from portrait_core.config import Settings, load_settings
from portrait_core.generators import TriPlaneGenerator, save_generator
from portrait_core.inversion.latent import FirstLatent
from portrait_core.models.cache import forget_models
from tasks.context import done, unit_of, write_frames, write_once
from tasks.fitting import clip_data, features, generator, generator_bytes
from tasks.inversion import Anchor, _packed
from tasks.job import CAMERAS, FIRST, TRACK_ARRAYS, TUNED, Job, Stage
from tasks.render import pose_renderer, render
from tests.portrait_core import tiny
from tests.simulation.stub import stub_job

FRAMES = 4


@pytest.fixture(autouse=True)
def _empty_cache() -> Iterator[None]:
    forget_models()
    yield
    forget_models()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_generator(tiny.generator(), weights)
    small = ["template.size=64", "render.samples=4", "render.importance_samples=2", "device=cpu"]
    return load_settings("embedded", [f"generator.weights={weights}", *small])


def clip(store: Path, name: str, settings: Settings, seed: int) -> Job:
    """A clip that is ready to be rendered, with a generator of its own."""
    job = stub_job(str(store), name, FRAMES, settings)
    rng, size = np.random.default_rng(seed), settings.template.size
    model = tiny.generator(seed)
    track = {
        "expression": np.zeros((1, 52), np.float32),
        "jaw": np.zeros((1, 3), np.float32),
        "rotation": np.eye(3, dtype=np.float32)[None],
        "crop_center_px": np.zeros((1, 2), np.float32),
        "crop_side_px": np.ones(1, np.float32),
        "cameras": tiny.CAMERA.numpy().astype(np.float32).reshape(1, 25),
        "fit_error": np.zeros(1, np.float32),
        "ok": np.ones(1, np.bool_),
    }
    assert track.keys() == set(TRACK_ARRAYS)
    shape = np.zeros((1, tasks.context.head(job).n_shape), np.float32)
    crop = rng.integers(0, 255, (1, size, size, 3), np.uint8)
    write_once(unit_of(job, "portrait"), job.stage_keys["portrait"], track | {"shape": shape, "crop": crop})
    disc = np.asarray(tiny.disc(0.3)[0] * 255).astype(np.uint8)
    masks = {name: np.repeat(disc[None], FRAMES, 0) for name in ("face_mask", "mouth_mask", "uncovered")}
    moves = {name: np.repeat(track[name], FRAMES, 0) for name in ("expression", "jaw")}
    with torch.no_grad():
        ws = model.mapping(torch.randn(FRAMES, model.settings.z_dim), None)
    made: dict[Stage, dict[str, Any]] = {
        "retarget": moves,
        "template": masks | {"template": np.repeat(crop, FRAMES, 0)},
        "inversion": {
            "latents": ws.numpy(),
            "inversion": np.repeat(crop, FRAMES, 0),
            "inversion_loss": np.zeros((FRAMES, 1), np.float32),
        },
    }
    for stage, arrays in made.items():
        write_frames(job, stage, arrays)
    unit = unit_of(job, "render")
    first = Anchor(0, FirstLatent(ws[:1], np.zeros(0, np.float32), []))
    unit.put_bytes(FIRST, _packed(first, job.stage_keys["inversion"]))
    unit.put_bytes(TUNED, generator_bytes(model))
    cameras = store / "cameras.npy"
    np.save(cameras, np.repeat(track["cameras"], FRAMES, 0))
    unit.put_bytes(CAMERAS, cameras.read_bytes())
    return job


def test_one_tuned_generator_at_a_time_and_shared_models_loaded_once(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: Counter[str] = Counter()
    right = tasks.fitting.load_generator

    def load(path: Path, device: Any) -> TriPlaneGenerator:
        loaded["base" if path.name == "tiny.safetensors" else "tuned"] += 1
        return right(path, device)

    monkeypatch.setattr(tasks.fitting, "load_generator", load)
    jobs = [clip(tmp_path, name, settings, seed) for seed, name in enumerate("ab")]
    shared, gone = [], []
    for job in jobs:
        for start in range(0, FRAMES, 2):
            assert render.fn(job=job, start=start, stop=start + 2).frames_done == 2
        assert done(job, "render").all()
        shared.append((id(generator(job)), id(features(job)), id(tasks.context.head(job))))
        renderer = pose_renderer(job)
        gone.append([weakref.ref(one) for one in (renderer, renderer.generator, clip_data(job))])
        del renderer
    assert loaded == {"base": 1, "tuned": 2}, "a clip's generator is loaded once for all its ranges"
    assert shared[0] == shared[1]
    assert [ref() for ref in gone[0]] == [None] * 3, "nothing of the first clip is left"
    assert all(ref() is not None for ref in gone[1])


def test_clips_that_take_turns_on_one_worker_hold_one_generator(tmp_path: Path, settings: Settings) -> None:
    jobs = [clip(tmp_path, name, settings, seed) for seed, name in enumerate("ab")]
    generators: list[weakref.ref[TriPlaneGenerator]] = []
    for start in range(FRAMES):
        for job in jobs:
            assert render.fn(job=job, start=start, stop=start + 1).frames_done == 1
            generators.append(weakref.ref(pose_renderer(job).generator))
            assert sum(ref() is not None for ref in generators) == 1
