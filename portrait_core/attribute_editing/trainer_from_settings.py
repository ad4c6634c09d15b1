"""The training of a StyleFlow as a run's settings define it."""

from __future__ import annotations

import torch

from portrait_core.attribute_editing.conditions import Conditions
from portrait_core.attribute_editing.settings import (
    SolverSettings,
    StyleFlowArchitecture,
    StyleFlowTrainingOptions,
)
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.attribute_editing.styleflow_training import LabelledLatents, StyleFlowTrainer
from portrait_core.settings import Settings


def make_trainer(
    settings: Settings,
    conditions: Conditions,
    learnt: LabelledLatents,
    held_out: LabelledLatents,
    device: torch.device | str,
) -> StyleFlowTrainer:
    """Make the trainer of a new StyleFlow, whose first weights depend on the seed alone.

    Args:
        settings: settings of the run.
        conditions: schema of the labels.
        learnt: samples to learn from.
        held_out: samples whose density is reported.
        device: device of the training.
    """
    chosen = settings.flow
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        flow = StyleFlow(
            StyleFlowArchitecture(width=learnt.w.shape[-1], hidden=chosen.hidden, context=len(conditions))
        )
    training = StyleFlowTrainingOptions(
        epochs=chosen.epochs,
        batch=chosen.batch,
        learning_rate=chosen.learning_rate,
        decay_fraction=chosen.decay_fraction,
        jitter=chosen.jitter,
        seed=settings.seed,
        checkpoint_s=settings.runner.checkpoint_s,
        solver=SolverSettings(method=chosen.solver, steps=chosen.solver_steps),
    )
    return StyleFlowTrainer(flow.to(device), conditions, learnt, training, held_out)
