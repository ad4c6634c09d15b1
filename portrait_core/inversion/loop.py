"""One resumable Adam loop, shared by the latent optimisation, pivotal tuning and the training of flows."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from portrait_core import stopping


class Checkpoint(Protocol):
    """Where a loop's state is kept. Writes must be atomic."""

    def read(self) -> bytes | None:
        """The newest state, or None."""
        ...

    def write(self, data: bytes) -> None:
        """Replace the state."""
        ...


@dataclass(frozen=True)
class ParameterGroup:
    """Tensors to optimise, by name, and their learning-rate factor."""

    parameters: dict[str, Tensor]
    factor: float = 1.0


@dataclass
class AdamLoop:
    """Runs Adam for a fixed number of steps and can be stopped anywhere.

    A checkpoint holds parameters, optimiser and random state, so that a resumed run takes the very steps an
    uninterrupted one takes (bit-equal on a CPU).

    Attributes:
        groups: what is optimised. Names must be unique over all groups.
        steps: how many steps in all.
        rate: learning rate at a step.
        rng: the generator that every random draw of the objective comes from.
        checkpoint: where to keep the state; None keeps none.
        every: steps between two checkpoints.
        betas: Adam's.
        kept: further tensors by name that the objective changes itself, such as running statistics; they are
            checkpointed beside the parameters.
    """

    groups: list[ParameterGroup]
    steps: int
    rate: Callable[[int], float]
    rng: torch.Generator
    checkpoint: Checkpoint | None = None
    every: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    losses: list[float] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._named = {name: p for group in self.groups for name, p in group.parameters.items()}
        groups = [{"params": list(g.parameters.values()), "factor": g.factor} for g in self.groups]
        self._adam = torch.optim.Adam(groups, lr=self.rate(0), betas=self.betas, fused=True)
        data = self.checkpoint.read() if self.checkpoint else None
        if data is not None:
            self._restore(data)

    def run(
        self, objective: Callable[[int], Tensor], on_step: Callable[[int, float], None] | None = None
    ) -> list[float]:
        """Take the steps that are left, and return the loss of every step, resumed ones included.

        Raises:
            FloatingPointError: if the loss is not finite; the state of the last checkpoint is kept.
            StopRequested: when the process was asked to stop; the state after the last step is kept.
        """
        while len(self.losses) < self.steps:
            step = len(self.losses)
            for group in self._adam.param_groups:
                group["lr"] = self.rate(step) * group["factor"]
            self._adam.zero_grad(set_to_none=True)
            loss = objective(step)
            value = float(loss.detach())
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {value} at step {step}; lower the learning rate")
            loss.backward()
            self._adam.step()
            self.losses.append(value)
            due = len(self.losses) % self.every == 0 or stopping.requested()
            if self.checkpoint and due and len(self.losses) < self.steps:
                self.checkpoint.write(self._state())
            if on_step is not None:
                on_step(len(self.losses), value)
            if len(self.losses) < self.steps:
                stopping.check()
        return self.losses

    def _state(self) -> bytes:
        state = {
            "parameters": {name: p.detach() for name, p in self._named.items()},
            "kept": self.kept,
            "adam": self._adam.state_dict(),
            "rng": self.rng.get_state(),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def _restore(self, data: bytes) -> None:
        state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(state["parameters"][name])
            for name, tensor in self.kept.items():
                tensor.copy_(state["kept"][name])
        self._adam.load_state_dict(state["adam"])
        self.rng.set_state(state["rng"])
        self.losses = state["losses"].tolist()


def ramp(step: int, steps: int, warmup: int, decay_fraction: float) -> float:
    """Linear warm-up over ``warmup`` steps and linear decay over the last ``decay_fraction`` of them, as a
    factor in (0,1]."""
    up = min(1.0, (step + 1) / max(1, warmup))
    left = (steps - step) / max(1.0, steps * decay_fraction)
    return up * min(1.0, left)
