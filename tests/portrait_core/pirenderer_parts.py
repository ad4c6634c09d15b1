"""A small PIRenderer with weights of its own, and rows that drive it."""

import numpy as np
import torch
from numpy.typing import NDArray

from portrait_core.baselines.pirenderer import PIRenderer, PIRendererSizes
from portrait_core.baselines.pirenderer_windows import N_ROW, SCALE

Array = NDArray[np.floating]

SIZES = PIRendererSizes(
    descriptor=8,
    mapping_layers=2,
    hidden=6,
    warping=(4, 5, 6, 7),
    doublings=2,
    editing=(4, 5, 6),
    residuals=2,
)


def network(seed: int = 0) -> PIRenderer:
    """The network in float32; all entries are drawn, gains around 1."""
    made = PIRenderer(SIZES)
    rng = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in made.state_dict().items():
        draw = torch.randn(value.shape, generator=rng)
        gain = name.endswith("weight") and value.shape[1:].numel() == 1
        state[name] = 1 + 0.2 * draw if gain else draw / max(value[0].numel(), 4) ** 0.5
    return PIRenderer.from_state(state)


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Coefficient rows ``[count,260]`` of a plausible size."""
    made = 0.3 * np.random.default_rng(seed).normal(size=(count, N_ROW))
    made[:, SCALE] = 0.8 + 0.1 * np.sin(np.arange(count) + seed)
    made[:, SCALE + 1 :] += 120
    return made.astype(np.float32)


def picture(side: int = 24, seed: int = 0) -> np.ndarray:
    """A portrait ``[side,side,3]``."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
