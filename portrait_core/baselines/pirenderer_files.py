"""The checkpoint of PIRenderer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from portrait_core.baselines.pirenderer import PIRenderer
from portrait_core.weights.file_checks import checking
from portrait_core.weights.readers.torch_files import (
    Shapes,
    State,
    checkpoint_entry,
    network_shapes,
    read_torch,
    select_tensors,
)

_AVERAGED, _TRAINED = "net_G_ema", "net_G"
_DISTRIBUTED = "module."
"""Beginning of names that distributed training saved."""


@dataclass(frozen=True)
class PIRendererWeights:
    """The parts of ``epoch_XXXXX_iteration_XXXXXXXXX_checkpoint.pt`` that are used."""

    net_g: State
    """The generator: 304 entries, ``mapping_net.*``, ``warpping_net.*`` and ``editing_net.*``."""
    averaged: bool
    """True if it is the average over training (``net_G_ema``), which the published method draws with."""


@cache
def pirenderer_shapes() -> Shapes:
    """Give the shapes of the published generator, 304 entries."""
    return network_shapes(PIRenderer)


def read_pirenderer(path: str | Path) -> PIRendererWeights:
    """Read a checkpoint of PIRenderer: its averaged generator, or the trained one where that is absent.

    Optimisers are left aside, and need not exist.

    Raises:
        ModelFileError: if it is missing, holds more than tensors and plain data, or lacks weights.
    """
    with checking(path, "pirenderer"):
        content = read_torch(path)
        averaged = not isinstance(content, Mapping) or _AVERAGED in content or _TRAINED not in content
        name = _AVERAGED if averaged else _TRAINED
        state = _bare(checkpoint_entry(content, name))
        return PIRendererWeights(select_tensors(state, pirenderer_shapes(), name), averaged)


def load_pirenderer(path: str | Path) -> PIRenderer:
    """Build the generator of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        ModelFileError: as :func:`read_pirenderer` raises it.
    """
    return PIRenderer.from_state(read_pirenderer(path).net_g)


def _bare(state: Any) -> Any:
    """Return a state dict without the prefix that distributed training gives all names."""
    if not isinstance(state, Mapping) or not all(str(name).startswith(_DISTRIBUTED) for name in state):
        return state
    return {str(name).removeprefix(_DISTRIBUTED): value for name, value in state.items()}
