"""The differential equation of a conditional flow: dx/dt = f(t, x, c), and the trace of f's Jacobian.

The network is FFJORD's (Grathwohl et al. 2019) with layers that time and condition gate and shift, as
StyleFlow uses them (Abdal et al. 2021, section 4). Names of modules are those of published checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LayerNumbers(NamedTuple):
    """A layer for one batch of conditions: what does not change along the path is worked out once."""

    weight: Float[Tensor, "out in"]
    bias: Float[Tensor, " out"]
    gate: Float[Tensor, "b 1 out"]
    """The gate's argument at time 0."""
    gate_rate: Float[Tensor, " out"]
    """Its change with time."""
    shift: Float[Tensor, "b 1 out"]
    shift_rate: Float[Tensor, " out"]


class GatedLinear(nn.Module):
    """``(Wx + b) * sigmoid(gate[t, c]) + shift[t, c]``; time is the first input of gate and shift, and the
    shift has no bias of its own."""

    def __init__(self, n_in: int, n_out: int, context: int) -> None:
        super().__init__()
        self._layer = nn.Linear(n_in, n_out)
        self._hyper_bias = nn.Linear(1 + context, n_out, bias=False)
        self._hyper_gate = nn.Linear(1 + context, n_out)

    def numbers(self, conditions: Float[Tensor, "b context"]) -> LayerNumbers:
        """What the layer is under these conditions."""
        gate, shift = self._hyper_gate, self._hyper_bias
        return LayerNumbers(
            self._layer.weight,
            self._layer.bias,
            F.linear(conditions, gate.weight[:, 1:], gate.bias)[:, None],
            gate.weight[:, 0],
            F.linear(conditions, shift.weight[:, 1:])[:, None],
            shift.weight[:, 0],
        )


class GatedNetwork(nn.Module):
    """Gated layers with tanh between them."""

    def __init__(self, width: int, hidden: tuple[int, ...], context: int) -> None:
        super().__init__()
        sizes = (width, *hidden, width)
        pairs = zip(sizes[:-1], sizes[1:], strict=True)
        self.layers = nn.ModuleList(GatedLinear(n_in, n_out, context) for n_in, n_out in pairs)

    def numbers(self, conditions: Float[Tensor, "b context"]) -> tuple[LayerNumbers, ...]:
        """Every layer under these conditions."""
        return tuple(layer.numbers(conditions) for layer in self.layers)  # type: ignore[operator]


class Dynamics(nn.Module):
    """Holds the network under its published name, and the count of evaluations of the last solution."""

    def __init__(self, width: int, hidden: tuple[int, ...], context: int) -> None:
        super().__init__()
        self.diffeq = GatedNetwork(width, hidden, context)
        self._num_evals: Tensor
        self.register_buffer("_num_evals", torch.tensor(0.0))


def velocity(
    layers: tuple[LayerNumbers, ...], t: Tensor, x: Float[Tensor, "b l d"]
) -> Float[Tensor, "b l d"]:
    """f(t, x) of a network under its conditions."""
    last = len(layers) - 1
    for i, layer in enumerate(layers):
        x = F.linear(x, layer.weight, layer.bias) * torch.sigmoid(layer.gate + t * layer.gate_rate)
        x = x + (layer.shift + t * layer.shift_rate)
        x = x if i == last else torch.tanh(x)
    return x


def velocity_and_products(
    layers: tuple[LayerNumbers, ...],
    t: Tensor,
    x: Float[Tensor, "b l d"],
    tangents: Float[Tensor, "k b l d"],
) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "k b l d"]]:
    """f(t, x) and its Jacobian times each of ``tangents``.

    The tangents travel forward beside x, in the same matrix products. The usual way, a backward pass inside
    the forward one, gives the same e'Je and has to be differentiated twice in training.
    """
    last = len(layers) - 1
    both = torch.cat([x[None], tangents])
    for i, layer in enumerate(layers):
        gate = torch.sigmoid(layer.gate + t * layer.gate_rate)
        moved = F.linear(both, layer.weight)
        value = torch.addcmul(layer.shift + t * layer.shift_rate, moved[0] + layer.bias, gate)
        slopes = moved[1:] * gate
        if i < last:
            value = torch.tanh(value)
            slopes = slopes * (1 - value * value)
            both = torch.cat([value[None], slopes])
    return value, slopes


def estimated_trace(
    noise: Float[Tensor, "b l d"], products: Float[Tensor, "1 b l d"]
) -> Float[Tensor, "b l 1"]:
    """Hutchinson's estimate e'Je."""
    return (noise * products[0]).sum(-1, keepdim=True)


def identity_tangents(x: Float[Tensor, "b l d"]) -> Float[Tensor, "d b l d"]:
    """The unit vectors, for every row: with them the products are the whole Jacobian."""
    d = x.shape[-1]
    return torch.eye(d, dtype=x.dtype, device=x.device)[:, None, None].expand(d, *x.shape)


def exact_trace(jacobian: Float[Tensor, "d b l d"]) -> Float[Tensor, "b l 1"]:
    """The sum of the diagonal."""
    return torch.einsum("dbld->bl", jacobian)[..., None]
