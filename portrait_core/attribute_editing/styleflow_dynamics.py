"""The differential equation of a StyleFlow: dx/dt = f(t, x, c), and the trace of f's Jacobian.

The network is FFJORD's (Grathwohl et al. 2019) with layers that time and condition gate and shift, as
StyleFlow uses them (Abdal et al. 2021, section 4). Modules have the names of published checkpoints.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ConditionedNetwork(NamedTuple):
    """The network under one batch of conditions.

    What does not change along the path is computed once, and the gates of all layers are concatenated,
    because small operations cost more than their arithmetic.
    """

    gate: Float[Tensor, "b 1 all"]
    """Arguments of the gates at time 0."""
    gate_rate: Float[Tensor, " all"]
    """Derivative of these with respect to time."""
    shift: Float[Tensor, "b 1 all"]
    shift_rate: Float[Tensor, " all"]
    layers: tuple[Tensor, ...]
    """Weight ``[out,in]`` and bias ``[out]`` of each layer, alternating."""

    def at(self, t: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Return weight, bias, gate ``[B,1,out]`` and shift ``[B,1,out]`` of each layer at time ``t``."""
        weights, biases = self.layers[::2], self.layers[1::2]
        sizes = [len(bias) for bias in biases]
        gates = torch.sigmoid(torch.addcmul(self.gate, self.gate_rate, t)).split(sizes, -1)
        shifts = torch.addcmul(self.shift, self.shift_rate, t).split(sizes, -1)
        return list(zip(weights, biases, gates, shifts, strict=True))

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors whose gradients training needs."""
        return (*self[:4], *self.layers)


class GatedLinear(nn.Module):
    """Computes ``(Wx + b) * sigmoid(gate[t, c]) + shift[t, c]``.

    Time is the first input of gate and shift; the shift has no bias of its own.
    """

    def __init__(self, n_in: int, n_out: int, context: int) -> None:
        super().__init__()
        self._layer = nn.Linear(n_in, n_out)
        self._hyper_bias = nn.Linear(1 + context, n_out, bias=False)
        self._hyper_gate = nn.Linear(1 + context, n_out)


class GatedNetwork(nn.Module):
    """Gated layers with tanh between them."""

    def __init__(self, width: int, hidden: tuple[int, ...], context: int) -> None:
        super().__init__()
        sizes = (width, *hidden, width)
        layers = [GatedLinear(n_in, n_out, context) for n_in, n_out in pairwise(sizes)]
        for value in layers[-1]._layer.parameters():
            nn.init.zeros_(value)  # close to the identity, so that training begins with an easy equation
        self.layers = nn.ModuleList(layers)

    def conditioned(self, conditions: Float[Tensor, "b context"]) -> ConditionedNetwork:
        """Return the network under conditions ``[B,C]``."""
        layers: list[GatedLinear] = list(self.layers)  # type: ignore[arg-type]
        gate = torch.cat([layer._hyper_gate.weight for layer in layers])
        shift = torch.cat([layer._hyper_bias.weight for layer in layers])
        bias = torch.cat([layer._hyper_gate.bias for layer in layers])
        return ConditionedNetwork(
            F.linear(conditions, gate[:, 1:], bias)[:, None],
            gate[:, 0],
            F.linear(conditions, shift[:, 1:])[:, None],
            shift[:, 0],
            tuple(p for layer in layers for p in (layer._layer.weight, layer._layer.bias)),
        )


class Dynamics(nn.Module):
    """Holds the network under its published name, and the number of evaluations of the last solution."""

    def __init__(self, width: int, hidden: tuple[int, ...], context: int) -> None:
        super().__init__()
        self.diffeq = GatedNetwork(width, hidden, context)
        self._num_evals: Tensor
        self.register_buffer("_num_evals", torch.tensor(0.0))


def velocity(network: ConditionedNetwork, t: Tensor, x: Float[Tensor, "b l d"]) -> Float[Tensor, "b l d"]:
    """Evaluate f(t, x) of a network under its conditions."""
    layers = network.at(t)
    for i, (weight, bias, gate, shift) in enumerate(layers):
        x = torch.addcmul(shift, F.linear(x, weight, bias), gate)
        x = x if i + 1 == len(layers) else torch.tanh(x)
    return x


def velocity_and_products(
    network: ConditionedNetwork, t: Tensor, x: Float[Tensor, "b l d"], tangents: Float[Tensor, "k b l d"]
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "k b l d"]]:
    """Evaluate f(t, x) and its Jacobian times each of ``tangents``.

    The tangents are propagated forward with x, in the same matrix products. The usual method, a backward pass
    inside the forward pass, gives the same e'Je but has to be differentiated twice in training.
    """
    layers = network.at(t)
    both = torch.cat([x[None], tangents])
    for i, (weight, bias, gate, shift) in enumerate(layers):
        moved = F.linear(both, weight)
        value, slopes = torch.addcmul(shift, moved[0] + bias, gate), moved[1:] * gate
        if i + 1 < len(layers):
            value = torch.tanh(value)
            both = torch.cat([value[None], slopes * (1 - value * value)])
    return value, slopes


def estimated_trace(
    noise: Float[Tensor, "b l d"], products: Float[Tensor, "1 b l d"]
) -> Float[Tensor, "b l 1"]:
    """Return Hutchinson's estimate e'Je of the trace."""
    return (noise * products[0]).sum(-1, keepdim=True)


def identity_tangents(x: Float[Tensor, "b l d"]) -> Float[Tensor, "d b l d"]:
    """Return the unit vectors for every row, with which the products are the whole Jacobian."""
    d = x.shape[-1]
    return torch.eye(d, dtype=x.dtype, device=x.device)[:, None, None].expand(d, *x.shape)


def exact_trace(jacobian: Float[Tensor, "d b l d"]) -> Float[Tensor, "b l 1"]:
    """Return the sum of the Jacobian's diagonal."""
    return torch.einsum("dbld->bl", jacobian)[..., None]
