"""A flow of the published layout around seeded values, as the reference numbers have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow
from tests.official_files import seeded_state

SEED = 11


def flow_state(settings: StyleFlowArchitecture, seed: int = SEED) -> dict[str, Tensor]:
    """The recipe's values, changed as the reference folder's README says."""
    with torch.device("meta"):
        shapes = {name: tuple(v.shape) for name, v in StyleFlow(settings).state_dict().items()}
    return mended(seeded_state(shapes, seed))


def mended(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Seeded values made a flow's: a path of about length 1, conditions in raw units, gains about 1."""
    changed = dict(state)
    for name, value in state.items():
        if name.endswith("sqrt_end_time"):
            changed[name] = value + 1
        elif name.endswith(("_hyper_bias.weight", "_hyper_gate.weight")):
            changed[name] = value * 0.1
        elif name in ("chain.0.weight", "chain.2.weight"):
            changed[name] = value - 1
    return changed


def filled(settings: StyleFlowArchitecture, state: Mapping[str, Tensor] | None = None) -> StyleFlow:
    """A flow with these weights, or the seeded ones, in eval mode."""
    flow = StyleFlow(settings)
    flow.load_state_dict(flow_state(settings) if state is None else state)
    return flow.eval().requires_grad_(False)


def tiny(width: int = 6, hidden: Sequence[int] = (9, 8), context: int = 3) -> StyleFlow:
    """A flow in double precision that bends space strongly."""
    settings = StyleFlowArchitecture(width=width, hidden=tuple(hidden), context=context)
    state = flow_state(settings)
    for name in state:
        if "_hyper" in name:
            state[name] = state[name] * 10
    return filled(settings, state).double()
