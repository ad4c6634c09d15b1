"""How precisely, and how compiled, a loaded generator computes. Weights stay float32 whatever is chosen."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

import torch
from torch import nn

from portrait_core.generators.layers import SynthesisBlock

Precision = Literal["fp32", "tf32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)


def at_precision(network: Network, precision: Precision) -> Network:
    """The same network, sharing every parameter, whose convolutions run at ``precision``.

    ``bf16``: feature maps and convolution weights in bfloat16, where the published code takes float16 with
    clamping; styles, demodulation, the skip connections that sum up planes and image, and the volume
    rendering stay float32. ``fp32`` and ``tf32`` differ only under :func:`use_matrix_precision`.

    Raises:
        ValueError: for another precision.
    """
    if precision not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"precision must be fp32, tf32 or bf16, got {precision!r}")
    shared = {id(t): t for t in (*network.parameters(), *network.buffers())}
    view = copy.deepcopy(network, shared)
    for module in view.modules():
        if isinstance(module, SynthesisBlock):
            module.compute_dtype = torch.bfloat16 if precision == "bf16" else None
    return view


def use_matrix_precision(precision: Precision) -> None:
    """Let CUDA multiply float32 in TF32 (``tf32``, ``bf16``) or exactly (``fp32``), in this process from now
    on: the switches are PyTorch's own. On a CPU it changes nothing."""
    for switch in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
        switch.fp32_precision = "ieee" if precision == "fp32" else "tf32"


def compiled(network: Network) -> Network:
    """Compile the parts of a tri-plane generator that take the time, in place, at their next calls.

    The first call of each shape takes a minute or so; later ones save the passes over memory between
    operations. Values agree with the uncompiled path to rounding.
    """
    for name, module in network.named_modules():
        if name in ("backbone.synthesis", "synthesis", "superresolution", "decoder"):
            module.compile()
    return network


def resolved_precision(choice, device):
    return ("fp32" if str(device) != "cuda" else "tf32") if choice == "auto" else choice
