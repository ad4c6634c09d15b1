"""What a process holds in memory when it renders one clip after the other."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import portrait_core.generators.prepared
from portrait_core.generators import TriPlaneGenerator, VolumeGenerator, load_generator, save_generator
from portrait_core.pipeline.ledger import done_frames
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import Settings, load_settings
from tasks.context import head
from tasks.fitting import clip_data, features, generator
from tasks.stages.render import pose_renderer, render, tuned_generator
from tests.portrait_core import tiny
from tests.simulation.ready import ready_clip

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
    small = [
        "output.frame=crop",
        "output.size=64",
        "template.size=64",
        "render.samples=4",
        "render.importance_samples=2",
        "device=cpu",
    ]
    return load_settings("embedded", [f"generator.weights={weights}", *small])


def test_one_tuned_generator_at_a_time_and_shared_models_loaded_once(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: Counter[str] = Counter()

    def load(path: Path, device: Any, *, kind: None) -> TriPlaneGenerator:
        loaded["base" if path.name == "tiny.safetensors" else "tuned"] += 1
        loaded_generator = load_generator(path, device, kind=kind)
        assert isinstance(loaded_generator, TriPlaneGenerator)
        return loaded_generator

    monkeypatch.setattr(portrait_core.generators.prepared, "load_generator", load)
    jobs = [ready_clip(str(tmp_path), name, FRAMES, settings, seed) for seed, name in enumerate("ab")]
    shared, gone = [], []
    for job in jobs:
        for start in range(0, FRAMES, 2):
            assert render(job=job, start=start, stop=start + 2).frames_done == 2
        assert done_frames(job, "render").all()
        shared.append((id(generator(job)), id(features(job)), id(head(job))))
        renderer = pose_renderer(job)
        gone.append([weakref.ref(one) for one in (renderer, renderer.generator, clip_data(job))])
        del renderer
    assert loaded == {"base": 1, "tuned": 2}, "a clip's generator is loaded once for all its ranges"
    assert shared[0] == shared[1]
    assert [ref() for ref in gone[0]] == [None] * 3, "nothing of the first clip is left"
    assert all(ref() is not None for ref in gone[1])


def test_clips_that_take_turns_on_one_worker_hold_one_generator(tmp_path: Path, settings: Settings) -> None:
    jobs = [ready_clip(str(tmp_path), name, FRAMES, settings, seed) for seed, name in enumerate("ab")]
    generators: list[weakref.ref[VolumeGenerator]] = []
    for start in range(FRAMES):
        for job in jobs:
            assert render(job=job, start=start, stop=start + 1).frames_done == 1
            generators.append(weakref.ref(pose_renderer(job).generator))
            assert sum(ref() is not None for ref in generators) == 1


def test_a_renderer_does_not_keep_its_generator_when_another_clip_wants_only_that(
    tmp_path: Path, settings: Settings
) -> None:
    one, other = (ready_clip(str(tmp_path), name, FRAMES, settings, seed) for seed, name in enumerate("ab"))
    first = weakref.ref(pose_renderer(one).generator)
    assert tuned_generator(other) is not first()
    assert first() is None
