"""Precision and compilation of a loaded generator. Weights stay float32 whatever is chosen."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from portrait_core.generators.layers import SynthesisBlock

Precision = Literal["fp32", "tf32", "bf16"]
Network = TypeVar("Network", bound=nn.Module)


def resolved_precision(choice: Precision | Literal["auto"], device: str | torch.device) -> Precision:
    """Return what ``auto`` means on ``device``: TF32 on CUDA, IEEE float32 elsewhere. Any other choice stays.

    TF32 rounds the factors of matrix products and convolutions to 10 bits of mantissa and sums in float32.
    Against float32, with seeded weights of the FFHQ-512 architecture (``tests/benchmarks/generator.py``, one
    image; TF32 emulated on a CPU): TF32 gives the 512 x 512 image at a PSNR of 65.9 dB with a peak of 2, and
    the gradient to ws within 0.16 %; bf16 gives 49.4 dB and 1.9 %.
    """
    if choice != "auto":
        return choice
    return "tf32" if torch.device(device).type == "cuda" else "fp32"


def memory_format(device: str | torch.device, precision: Precision) -> torch.memory_format:
    """Return the layout in which convolutions are to find feature maps and weights.

    Channels-last on a CPU, whose convolutions are quickest at it, and wherever tensor cores run (TF32 and
    bfloat16 on CUDA), which want a pixel's channels side by side. Contiguous for IEEE float32 on CUDA, where
    cuDNN's channels-last kernels are often the slower ones; that was not measured here.
    """
    ieee = torch.device(device).type == "cuda" and precision == "fp32"
    return torch.contiguous_format if ieee else torch.channels_last


def shared_view(network: Network, own: Iterable[Tensor] = ()) -> Network:
    """Return a copy of a network that shares every parameter and buffer, apart from those in ``own``.

    Those in ``own`` are copied.
    """
    apart = {id(tensor) for tensor in own}
    every = (*network.parameters(), *network.buffers())
    return copy.deepcopy(network, {id(t): t for t in every if id(t) not in apart})


def at_precision(network: Network, precision: Precision) -> Network:
    """Return the same network, sharing every parameter, whose convolutions run at ``precision``.

    ``bf16``: feature maps and convolution weights in bfloat16, where the published code takes float16 with
    clamping; styles, demodulation, the skip connections that sum up planes and image, and the volume
    rendering stay float32. ``fp32`` and ``tf32`` differ only under
    :func:`~portrait_core.runtime.matrix_precision.matrix_precision` and in the :func:`memory_format` that
    they take on CUDA. The weights are laid out in that format in place, on the
    device where they are, so the given network's lie differently too; its numbers stay.

    Raises:
        ValueError: for another precision.
    """
    if precision not in ("fp32", "tf32", "bf16"):
        raise ValueError(f"precision must be fp32, tf32 or bf16, got {precision!r}")
    view = shared_view(network)
    layout = memory_format(next(network.parameters()).device, precision)
    view.to(memory_format=layout)  # type: ignore[call-overload]
    for module in view.modules():
        if isinstance(module, SynthesisBlock):
            module.compute_dtype = torch.bfloat16 if precision == "bf16" else None
            module.memory_format = layout
    return view


def compiled(network: Network) -> Network:
    """Compile the parts of a tri-plane generator that take the time, in place, at their next calls.

    The first call of each shape takes a minute or so; later ones save the passes over memory between
    operations. Values agree with the uncompiled path to rounding.
    """
    for name, module in network.named_modules():
        if name in ("backbone.synthesis", "synthesis", "superresolution", "decoder"):
            module.compile()
    return network
