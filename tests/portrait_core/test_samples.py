"""Samples that a flow is trained on, from a generator of no scenes and of scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from portrait_core.attribute_editing.photograph_labels import LOCAL_SOURCES
from portrait_core.attribute_editing.scene_attributes import scene_conditions, scene_labels
from portrait_core.attribute_editing.training_samples import (
    draw_samples,
    frontal_pictures,
    sample_labels,
    training_samples,
)
from portrait_core.errors import InputError
from portrait_core.settings import StyleFlowTrainingSettings
from tests.portrait_core import tiny


def test_samples_are_the_same_in_whatever_range_they_are_drawn() -> None:
    model = tiny.generator()
    z, ws = draw_samples(model, range(6), 3, 0.7)
    for numbers in (range(2), range(2, 6)):
        part = draw_samples(model, numbers, 3, 0.7)
        assert torch.equal(part[0], z[numbers.start : numbers.stop])
        assert torch.equal(part[1], ws[numbers.start : numbers.stop])
    assert not torch.equal(draw_samples(model, range(6), 4, 0.7)[0], z)


def test_samples_are_seen_from_the_front_as_finely_as_asked() -> None:
    model = tiny.generator()
    _, ws = draw_samples(model, range(2), 0, 0.7)
    coarse, own = (frontal_pictures(model, ws, side, tiny.SAMPLING) for side in (16, None))
    assert coarse.shape == (2, 32, 32, 3)
    assert own.shape == (2, tiny.SIZE, tiny.SIZE, 3)
    assert coarse.dtype == np.uint8


def test_labels_of_scenes_are_read_off_z() -> None:
    z, _ = draw_samples(tiny.generator(), range(3), 0, 0.7)
    labels = sample_labels(z, np.zeros((3, 8, 8, 3), np.uint8), None)
    assert np.array_equal(labels, scene_labels(z).numpy())


def test_pictures_without_a_face_teach_nothing() -> None:
    rng = np.random.default_rng(0)
    conditions = scene_conditions()
    latents = rng.normal(size=(10, 1, 4)).astype(np.float32)
    labels = rng.uniform(0.1, 0.9, (10, len(conditions))).astype(np.float32)
    labels[4] = np.nan
    made = np.array([0, 2, 3, 4, 5, 7, 9])
    few = StyleFlowTrainingSettings(held_out=2, batch=4)
    samples, meaning = training_samples(latents, labels, made, True, few)
    kept = [0, 2, 3, 5, 7, 9]
    assert np.array_equal(samples.w.numpy(), latents[kept])
    assert samples.labels.shape == (len(kept), len(meaning))
    assert not {"yaw", "pitch"} & set(meaning.names)
    with pytest.raises(InputError, match="only 6 of 10 samples show a face"):
        training_samples(latents, labels, made, True, StyleFlowTrainingSettings(held_out=3, batch=4))


def test_a_flow_of_photographs_knows_what_the_local_model_reads() -> None:
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(6, 1, 4)).astype(np.float32)
    labels = rng.uniform(0.1, 0.9, (6, len(LOCAL_SOURCES))).astype(np.float32)
    _, meaning = training_samples(
        latents, labels, np.arange(6), False, StyleFlowTrainingSettings(held_out=1, batch=4)
    )
    assert set(meaning.names) == set(LOCAL_SOURCES) - {"yaw", "pitch"}
