"""Checkpoints of the networks that tracking uses: DECA's and Deep3DFaceRecon's.

Names and shapes are those of our own networks, which take the published entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from portrait_core.tracking.deca import DecaEncoder
from portrait_core.tracking.deep3d import Deep3DEncoder
from portrait_core.weights.file_checks import checking
from portrait_core.weights.readers.torch_files import (
    Shapes,
    State,
    checkpoint_entry,
    network_shapes,
    read_torch,
    select_tensors,
)


@dataclass(frozen=True)
class DecaWeights:
    """The parts of ``deca_model.tar`` that are used."""

    e_flame: State
    """The coefficient encoder: 322 entries, ``encoder.conv1.weight`` to ``layers.2.bias`` (236 outputs)."""


@dataclass(frozen=True)
class Deep3DWeights:
    """The parts of ``epoch_20.pth`` that are used."""

    net_recon: State
    """The coefficient regressor: 332 entries, ``backbone.*`` and ``final_layers.{0..6}.*``."""


@cache
def deca_encoder_shapes() -> Shapes:
    """Give the shapes of DECA's coefficient encoder, 322 entries."""
    return network_shapes(DecaEncoder)


@cache
def deep3d_shapes() -> Shapes:
    """Give the shapes of Deep3DFaceRecon's coefficient regressor, 332 entries."""
    return network_shapes(Deep3DEncoder)


def read_deca(path: str | Path) -> DecaWeights:
    """Read ``deca_model.tar``, which is no tar archive. Its optimiser and detail networks are left aside.

    Raises:
        ModelFileError: if it is missing, holds more than tensors and plain data, or lacks weights.
    """
    with checking(path, "deca"):
        state = checkpoint_entry(read_torch(path), "E_flame")
        return DecaWeights(select_tensors(state, deca_encoder_shapes(), "E_flame"))


def read_deep3d(path: str | Path) -> Deep3DWeights:
    """Read ``epoch_20.pth`` of Deep3DFaceRecon. Its optimiser is left aside.

    Raises:
        ModelFileError: if it is missing, holds more than tensors and plain data, or lacks weights.
    """
    with checking(path, "deep3d"):
        return Deep3DWeights(
            select_tensors(checkpoint_entry(read_torch(path), "net_recon"), deep3d_shapes(), "net_recon")
        )
