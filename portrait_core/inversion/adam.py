"""Adam (Kingma and Ba 2014) by PyTorch's fused operation, whose state lies on the device.

``torch.optim`` computes the same, but its first optimiser imports PyTorch's compiler: four to five CPU
seconds in every process, as long as the embedded profile's first latent takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

EPS = 1e-8
"""Added to the root of the second moment."""


class FusedAdam:
    """Adam over groups of tensors, each group with a rate of its own.

    Args:
        groups: what is optimised, by name, all on one device. A tensor without a gradient stays as it is.
        betas: decay rates of the two moments.
    """

    def __init__(self, groups: Iterable[Mapping[str, Tensor]], betas: tuple[float, float]) -> None:
        self._groups, self._betas = [dict(group) for group in groups], betas
        self._named = {name: value for group in self._groups for name, value in group.items()}
        self._first, self._second = (
            {name: torch.zeros_like(value) for name, value in self._named.items()} for _ in range(2)
        )
        self._steps = {name: torch.zeros((), device=value.device) for name, value in self._named.items()}
        self._rates = [torch.zeros((), device=next(iter(group.values())).device) for group in self._groups]

    def set_rate(self, group: int, rate: float) -> None:
        """Set a group's learning rate. It lies on the device, so that a captured step reads the newest."""
        self._rates[group].fill_(rate)

    def forget_gradients(self) -> None:
        """Take every gradient away."""
        for value in self._named.values():
            value.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every tensor that has a gradient."""
        for group, rate in zip(self._groups, self._rates, strict=True):
            gradients = {name: value.grad for name, value in group.items() if value.grad is not None}
            if not gradients:
                continue
            names = list(gradients)
            steps = [self._steps[name] for name in names]
            torch._foreach_add_(steps, 1)
            torch._fused_adam_(
                [group[name] for name in names],
                list(gradients.values()),
                [self._first[name] for name in names],
                [self._second[name] for name in names],
                [],
                steps,
                lr=rate,
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=0.0,
                eps=EPS,
                amsgrad=False,
                maximize=False,
            )

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return the moments and the counts of steps, by name."""
        return {"first": self._first, "second": self._second, "steps": self._steps}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over a :meth:`state`, from any device."""
        for kind, own in self.state().items():
            for name, value in own.items():
                value.copy_(state[kind][name])
