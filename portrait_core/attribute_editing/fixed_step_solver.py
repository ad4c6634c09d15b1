"""Solution of a differential equation in equal steps, whose number and places the host knows.

``torchdiffeq`` reads its steps' places back from the device several times per solution, which waits for a GPU
and is not allowed in a CUDA graph. The steps here are those of its ``rk4`` (Kutta's 3/8 rule) and
``midpoint``: solutions are equal bit for bit, gradients up to the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Change = Callable[[float, tuple[Tensor, ...]], tuple[Tensor, ...]]
"""Function that returns the derivative of a state at a fraction of the path, 0 to 1."""


def solve_in_steps(
    change: Change, state: tuple[Tensor, ...], *, method: str, steps: int, reverse: bool
) -> tuple[Tensor, ...]:
    """Move a state from fraction 0 of the path to 1 or, with ``reverse``, from 1 to 0.

    Args:
        change: derivative of the state; it may depend on the state's first tensor only, and the others are
            integrals.
        state: tensors of one floating type, on one device.
        method: ``rk4``, with four evaluations per step, or ``midpoint``, with two.
        steps: number of equal steps.
        reverse: go from 1 to 0.

    Raises:
        ValueError: the method is another one.
    """
    if method not in _METHODS:
        raise ValueError(f"{method!r} has no equal steps; choose one of {', '.join(_METHODS)}")
    dtype = state[0].dtype
    # places are rounded as the state's type rounds them; reverse counts up from -1, as torchdiffeq does
    places = torch.arange(steps + 1, dtype=dtype) * (1 / steps) - (1.0 if reverse else 0.0)
    places[-1] = 0.0 if reverse else 1.0
    sign = -1.0 if reverse else 1.0
    for begin, end in pairwise(places):
        state = _METHODS[method](change, state, begin, end, sign)
    return state


def _rk4(
    change: Change, state: tuple[Tensor, ...], begin: Tensor, end: Tensor, sign: float
) -> tuple[Tensor, ...]:
    """Take one step of Kutta's 3/8 rule."""
    third, step, rest = 1 / 3, float((end - begin) * sign), state[1:]
    length = end - begin
    shares = [float(sign * at) for at in (begin, begin + length * third, begin + length * (2 / 3), end)]
    x = state[0]
    k1 = change(shares[0], state)
    k2 = change(shares[1], (x + step * k1[0] * third, *rest))
    k3 = change(shares[2], (x + step * (k2[0] - k1[0] * third), *rest))
    k4 = change(shares[3], (x + step * (k1[0] - k2[0] + k3[0]), *rest))
    speeds = zip(state, k1, k2, k3, k4, strict=True)
    return tuple(value + (a + 3 * (b + c) + d) * step * 0.125 for value, a, b, c, d in speeds)


def _midpoint(
    change: Change, state: tuple[Tensor, ...], begin: Tensor, end: Tensor, sign: float
) -> tuple[Tensor, ...]:
    """Take one step of the midpoint rule."""
    half = 0.5 * (end - begin)
    first = change(float(sign * begin), state)
    middle = (state[0] + first[0] * float(sign * half), *state[1:])
    speeds = change(float(sign * (begin + half)), middle)
    return tuple(
        value + float(sign * (end - begin)) * speed for value, speed in zip(state, speeds, strict=True)
    )


_METHODS = {"rk4": _rk4, "midpoint": _midpoint}
