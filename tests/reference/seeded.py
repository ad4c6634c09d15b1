"""Seeded weights by the reference folder's own recipe."""

import importlib.util
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.reference.test_eg3d import ROOT


def seeded_state(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """The entries ``shapes`` names, drawn with ``seed``."""
    spec = importlib.util.spec_from_file_location("seeded_weights", ROOT / "seeded_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {
        name: torch.from_numpy(value)
        for name, value in module.seeded_state_dict(
            {name: tuple(shape) for name, shape in shapes.items()}, seed
        ).items()
    }
