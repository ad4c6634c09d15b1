"""StyleFlow's conditional flow (Abdal et al. 2021; FFJORD, Grathwohl et al. 2019) as functions of a state
dict with the published names: numpy in double precision, one row at a time, scipy's solver."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

Array = NDArray[np.float64]
Params = Mapping[str, Array]


def velocity(params: Params, t: float, x: Array, condition: Array, tangents: Array) -> tuple[Array, Array]:
    """f(t, x) ``[d]`` and its Jacobian times ``tangents [d,k]``."""
    context = np.concatenate([[t], condition])
    layers = len([name for name in params if name.endswith("_layer.weight")])
    jacobian = tangents
    for i in range(layers):
        prefix = f"chain.1.odefunc.diffeq.layers.{i}."
        weight, bias = params[prefix + "_layer.weight"], params[prefix + "_layer.bias"]
        argument = params[prefix + "_hyper_gate.weight"] @ context + params[prefix + "_hyper_gate.bias"]
        gate = 1 / (1 + np.exp(-argument))
        x = (weight @ x + bias) * gate + params[prefix + "_hyper_bias.weight"] @ context
        jacobian = gate[:, None] * (weight @ jacobian)
        if i + 1 < layers:
            x = np.tanh(x)
            jacobian = (1 - x**2)[:, None] * jacobian
    return x, jacobian


def norm(params: Params, name: str, x: Array, reverse: bool) -> tuple[Array, float]:
    """One of the two norms, and the logarithm of how much it stretches volumes."""
    mean, variance = params[name + ".running_mean"], params[name + ".running_var"] + 1e-4
    weight, bias = params[name + ".weight"], params[name + ".bias"]
    stretch = float(np.sum(weight - 0.5 * np.log(variance)))
    if reverse:
        return (x - bias) / np.exp(weight) * np.sqrt(variance) + mean, -stretch
    return (x - mean) / np.sqrt(variance) * np.exp(weight) + bias, stretch


def flow(
    params: Params, x: Array, condition: Array, noise: Array | None = None, *, reverse: bool = False
) -> tuple[Array, float]:
    """w ``[d]`` to z, or back, and what is to be subtracted from the log-density; the trace is exact unless
    ``noise [d]`` is given."""
    end = float(params["chain.1.sqrt_end_time"]) ** 2
    tangents = np.eye(len(x)) if noise is None else noise[:, None]

    def change(t: float, state: Array) -> Array:
        speed, products = velocity(params, t, state[:-1], condition, tangents)
        return np.append(speed, -np.sum(tangents * products))

    first, last = ("chain.2", "chain.0") if reverse else ("chain.0", "chain.2")
    x, stretch = norm(params, first, x, reverse)
    span = (end, 0.0) if reverse else (0.0, end)
    state = solve_ivp(change, span, np.append(x, -stretch), method="DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
    x, stretch = norm(params, last, state[:-1], reverse)
    return x, float(state[-1]) - stretch
