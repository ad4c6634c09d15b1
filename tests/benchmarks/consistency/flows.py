"""Flows of both generators, trained as the paper trains StyleFlow (section 4.2), on exact labels."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.attribute_editing.conditions import Conditions
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.scene_attributes import sample_scenes
from portrait_core.attribute_editing.settings import (
    SolverSettings,
    StyleFlowArchitecture,
    StyleFlowTrainingOptions,
)
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.attribute_editing.styleflow_files import load_styleflow, save_styleflow
from portrait_core.attribute_editing.styleflow_training import LabelledLatents, StyleFlowTrainer

TRUNCATION = 1.0
"""Of people and lights toward the average: none, where the paper has 0.7. A StyleGAN2 brings every z to
one length, so that it would show people near the average as others, and poses too large."""
HIDDEN, BATCH, RATE, JITTER = (128, 128), 64, 1e-3, 0.1
SOLVER = SolverSettings(method="rk4", steps=2)
_POSE_DEVIATION, _POSE_LIMIT = np.array([0.4, 0.22]), np.array([0.8, 0.45])


def draw_scenes(count: int, seed: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Latents ``[count,119]`` of random people, and the yaw and pitch ``[count,2]`` in radians that the 2D
    generator first shows them at."""
    pose = np.random.default_rng(seed).normal(size=(count, 2)) * _POSE_DEVIATION
    return sample_scenes(count, 0, seed, TRUNCATION), np.clip(pose, -_POSE_LIMIT, _POSE_LIMIT)


def trained_flow(
    path: Path, w: Tensor, labels: Tensor, conditions: Conditions, epochs: int
) -> tuple[StyleFlowModel, str]:
    """The flow in ``path`` or, where there is none yet, one trained on ``w [N,D]`` and ``labels [N,C]``, kept
    there; and a line that says what it took."""
    if path.exists():
        return load_styleflow(path), f"{path}: read"
    torch.manual_seed(0)
    start = time.perf_counter()
    flow = StyleFlow(StyleFlowArchitecture(width=w.shape[1], hidden=HIDDEN, context=len(conditions)), SOLVER)
    conditions = conditions.standardised(labels)
    settings = StyleFlowTrainingOptions(
        epochs=epochs, batch=BATCH, learning_rate=RATE, jitter=JITTER, solver=SOLVER, decay_fraction=0.5
    )
    learnt, kept = LabelledLatents(w[:, None], labels).split(min(256, len(w) // 10))
    trainer = StyleFlowTrainer(flow, conditions, learnt, settings, kept)
    before = trainer.held_out_density()
    trainer.run()
    model = StyleFlowModel(flow, conditions)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_styleflow(model, path, {"licence": "Apache-2.0"})
    seconds, after = time.perf_counter() - start, trainer.held_out_density()
    return (
        model,
        f"{path}: {len(learnt)} samples, {seconds:.0f} s, held-out density {before:.0f} -> {after:.0f}",
    )
