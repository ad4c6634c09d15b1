"""One resumable Adam loop, shared by the latent optimisation, pivotal tuning and the training of flows.

A GPU computes while the host prepares what comes next, as long as the host asks it for no value. So a step
writes its loss into a tensor on the device; the host reads a block of :data:`READ_EVERY` losses at a time.
A checkpoint is due by time rather than by steps, and a thread writes it.
"""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from portrait_core.inversion.adam import FusedAdam
from portrait_core.inversion.capture import Capture
from portrait_core.runtime import cancellation
from portrait_core.weights.readers.torch_files import read_torch_file

READ_EVERY = 50
"""Steps of a block: losses are read, and a block's inputs prepared, once per block. Blocks begin at multiples
of it, so that ``step % READ_EVERY`` is a step's place in its block."""
CHECKPOINT_S = 300.0
"""Seconds between two checkpoints where nothing else is said."""

_log = logging.getLogger(__name__)

Objective = Callable[[int], Tensor]
"""Function from a step's number to its loss ``[]``."""
OnStep = Callable[[int, float | None], None]
"""Callback of the number of steps done and the newest loss that was read, None before the first reading."""


class Checkpoint(Protocol):
    """Place of a loop's state. Writes must be atomic; they come from a thread, one after the other."""

    def read(self) -> bytes | None:
        """Return the newest state, or None."""
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
        groups: what is optimised, all on one device. Names must be unique over all groups.
        steps: number of steps in all.
        rate: learning rate of a step.
        rng: the generator that the objective draws from, on the parameters' device. What the objective draws
            elsewhere has to depend on the step alone.
        checkpoint: place of the state; None keeps none.
        checkpoint_s: seconds between two checkpoints; 0 keeps one after every step.
        betas: Adam's.
        kept: further tensors by name that the objective changes itself, such as running statistics; they are
            checkpointed beside the parameters.
        prepare: called with a block's steps before the first of them; what a step needs from the host is
            brought to the device here.
        after: called at the end of every step, on the device's side.
        capture: captures a step as a graph and replays it; None takes every step plainly. The objective must
            then have the same operations and shapes at every step of one ``variant``, and take what differs
            between steps from tensors on the device (:attr:`at`).
        variant: what makes a step's operations differ from another's.
    """

    groups: list[ParameterGroup]
    steps: int
    rate: Callable[[int], float]
    rng: torch.Generator
    checkpoint: Checkpoint | None = None
    checkpoint_s: float = CHECKPOINT_S
    betas: tuple[float, float] = (0.9, 0.99)
    kept: dict[str, Tensor] = field(default_factory=dict)
    prepare: Callable[[range], None] | None = None
    after: Callable[[], None] | None = None
    capture: Capture | None = None
    variant: Callable[[int], Hashable] = lambda step: None

    def __post_init__(self) -> None:
        self._named = {name: p for group in self.groups for name, p in group.parameters.items()}
        self._device = next(iter(self._named.values())).device
        self._adam = FusedAdam([group.parameters for group in self.groups], self.betas)
        self.done = 0
        self.at = torch.zeros(1, dtype=torch.int64, device=self._device)
        """Number of the step at work ``[1]``, on the device."""
        self._recorded = torch.zeros(self.steps, device=self._device)
        self._read: list[float] = []
        data = self.checkpoint.read() if self.checkpoint else None
        if data is not None:
            self._restore(data)

    @property
    def losses(self) -> list[float]:
        """Loss of every step that is done, resumed ones included. Waits for the device.

        Raises:
            FloatingPointError: if one is not finite.
        """
        first = len(self._read)
        if first < self.done:
            self._read += self._recorded[first : self.done].tolist()
        for step in range(first, self.done):
            if not math.isfinite(self._read[step]):
                raise FloatingPointError(
                    f"the loss is {self._read[step]} at step {step}; lower the learning rate"
                )
        return self._read

    def run(self, objective: Objective, on_step: OnStep | None = None) -> list[float]:
        """Take the steps that are left, and return the loss of every step, resumed ones included.

        Raises:
            FloatingPointError: if a loss is not finite, at the end of its block; the state of the last
                checkpoint is kept.
            StopRequested: when the process was asked to stop; the state after the last step is kept.
        """
        take = _Steps(self, objective)
        with _Keeper(self.checkpoint) as keeper:
            kept = time.monotonic()
            while self.done < self.steps:
                step = self.done
                if self.prepare is not None and (step % READ_EVERY == 0 or step == take.first):
                    self.prepare(range(step, min(self.steps, step - step % READ_EVERY + READ_EVERY)))
                take(step)
                self.done += 1
                if self.done % READ_EVERY == 0 or self.done == self.steps:
                    self.losses  # noqa: B018 - reads the block, and refuses what is not finite
                due = time.monotonic() - kept >= self.checkpoint_s or cancellation.requested()
                if self.checkpoint and due and self.done < self.steps:
                    keeper.put(self._state())
                    kept = time.monotonic()
                if on_step is not None:
                    on_step(self.done, self._read[-1] if self._read else None)
                if self.done < self.steps:
                    cancellation.check()
        return self.losses

    def set_rate(self, step: int) -> None:
        """Set the learning rate of a step."""
        for i, group in enumerate(self.groups):
            self._adam.set_rate(i, self.rate(step) * group.factor)

    def step(self, objective: Objective, step: int) -> None:
        """Take one step on the device: everything that a graph of it holds."""
        self._adam.forget_gradients()
        loss = objective(step)
        loss.backward()
        self._adam.step()
        if self.after is not None:
            self.after()
        self._recorded.index_copy_(0, self.at, loss.detach().reshape(1).to(self._recorded.dtype))
        self.at += 1

    def _state(self) -> dict[str, Any]:
        losses = self.losses  # before anything is kept: a state that has diverged is worth nothing
        state = {
            "parameters": {name: p.detach() for name, p in self._named.items()},
            "kept": self.kept,
            "adam": self._adam.state(),
            "rng": self.rng.get_state(),
            "losses": torch.tensor(losses, dtype=torch.float64),
        }
        return dict(tree_map(_on_cpu, state))

    def _restore(self, data: bytes) -> None:
        state: dict[str, Any] = read_torch_file(io.BytesIO(data))
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(state["parameters"][name])
            for name, tensor in self.kept.items():
                tensor.copy_(state["kept"][name])
        self._adam.restore(state["adam"])
        self._read = state["losses"].tolist()
        self.done = len(self._read)
        if state["rng"].shape == self.rng.get_state().shape:
            self.rng.set_state(state["rng"])
        else:  # of another kind of device, which draws other numbers and keeps another state
            self.rng.manual_seed(self.rng.initial_seed() + self.done)
        self.at.fill_(self.done)


class _Steps:
    """Takes a loop's steps: plainly, or where the loop has a capture, as graphs, one per variant."""

    def __init__(self, loop: AdamLoop, objective: Objective) -> None:
        self._loop, self._objective, self.first = loop, objective, loop.done
        self._plain: dict[Hashable, int] = {}
        self._replays: dict[Hashable, Callable[[], None]] = {}

    def __call__(self, step: int) -> None:
        loop = self._loop
        loop.set_rate(step)
        if loop.capture is None:
            loop.step(self._objective, step)
            return
        kind = loop.variant(step)
        if kind not in self._replays:
            taken = self._plain[kind] = self._plain.get(kind, 0) + 1
            if taken <= loop.capture.plain_steps:
                loop.capture.warm(lambda: loop.step(self._objective, step))
                return
            self._replays[kind] = loop.capture.record(lambda: loop.step(self._objective, step), loop.rng)
        self._replays[kind]()


class _Keeper:
    """Writes checkpoints in a thread, one after the other; one that failed fails the loop at the next.

    At the end all are written; a loop that has taken all its steps needs them no more.
    """

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self._checkpoint = checkpoint
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Keeper:
        return self

    def put(self, state: dict[str, Any]) -> None:
        """Keep a state, as soon as the one before it is kept."""
        self._wait()
        self._pending = self._pool.submit(self._write, state)

    def _write(self, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        if self._checkpoint is not None:
            self._checkpoint.write(buffer.getvalue())

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._wait()
        except Exception as error:
            if kind is not None and issubclass(kind, cancellation.StopRequested):
                raise
            _log.warning("the last checkpoint could not be written: %s", error)
        finally:
            self._pool.shutdown()


def _on_cpu(value: Any) -> Any:
    """Copy a tensor, which the next step changes in place."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def ramp(
    step: int,
    steps: int,
    warmup: float,
    decay_fraction: float,
    decay: Literal["linear", "cosine"] = "linear",
) -> float:
    """Return the learning rate of a step as a factor in (0,1].

    It rises linearly over ``warmup`` steps, and falls over the last ``decay_fraction`` of all, linearly or
    along a cosine (Karras et al. 2020, appendix D).
    """
    up = min(1.0, (step + 1) / max(1.0, warmup))
    left = min(1.0, (steps - step) / max(1.0, steps * decay_fraction))
    return up * (left if decay == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))
