"""Training of a StyleFlow by maximum likelihood (Abdal et al. 2021, section 4; paper section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from portrait_core.attribute_editing.conditions import Conditions
from portrait_core.attribute_editing.settings import SolverSettings, StyleFlowTrainingOptions
from portrait_core.attribute_editing.styleflow import LOG_2PI, StyleFlow, standard_normal
from portrait_core.errors import InputError
from portrait_core.inversion.loop import AdamLoop, Checkpoint, OnStep, ParameterGroup, ramp

_HELD_OUT_BATCH = 256
"""Number of held-out samples solved together; it changes the result within the solver's tolerance."""


@dataclass(frozen=True)
class LabelledLatents:
    """Latents and their labels, from which a StyleFlow learns.

    Attributes:
        w: ``[N,L,D]`` latents, truncated as those that will be edited are; L = 1 for a single w (rows are
            independent: one row of a repeated w teaches as much as all do).
        labels: ``[N,C]`` attributes of the pictures, in their units.
    """

    w: Float[Tensor, "n l d"]
    labels: Float[Tensor, "n context"]

    def __post_init__(self) -> None:
        if self.w.ndim != 3 or self.labels.ndim != 2 or len(self.w) != len(self.labels):
            raise InputError(
                f"samples have latents {list(self.w.shape)} and labels {list(self.labels.shape)}, "
                "expected [N, rows, width] and [N, attributes]"
            )
        if not torch.isfinite(self.w).all():
            raise InputError("latents have values that are not finite; draw those samples again")

    def __len__(self) -> int:
        return len(self.w)

    def at(self, index: Int[Tensor, " n"]) -> LabelledLatents:
        """Return the samples at positions ``index``."""
        return LabelledLatents(self.w[index], self.labels[index])

    def split(self, held_out: int, seed: int = 0) -> tuple[LabelledLatents, LabelledLatents]:
        """Split off ``held_out`` samples drawn with ``seed``; both parts keep their order.

        Returns:
            The samples to train on, and the held-out ones.

        Raises:
            InputError: one of them would be empty.
        """
        if not 0 < held_out < len(self):
            raise InputError(f"cannot hold out {held_out} of {len(self)} samples; name 1 to {len(self) - 1}")
        # drawn on the CPU, so that every device holds out the same samples
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed)).to(self.w.device)
        return self.at(order[held_out:].sort().values), self.at(order[:held_out].sort().values)


class Likelihood(NamedTuple):
    """Negative log-likelihood of a batch and its terms, in nats."""

    loss: Float[Tensor, ""]
    """Mean of ``-(prior - delta)`` over the batch."""
    prior: Float[Tensor, " b"]
    """log N(z) per sample, summed over its rows."""
    delta: Float[Tensor, " b"]
    """Change of log-density along the path, summed over rows."""


def negative_log_likelihood(
    flow: StyleFlow,
    w: Float[Tensor, "b l d"],
    conditions: Float[Tensor, "b context"],
    noise: Float[Tensor, "b l d"],
    solver: SolverSettings | None = None,
) -> Likelihood:
    """Compute the training loss, with the proper constant; :func:`published_offset` gives the published one.

    In training mode the norms' running statistics learn from the batch, after it was normalised by the
    previous ones.
    """
    z, change = flow(w, conditions, torch.zeros_like(w[..., :1]), noise=noise, solver=solver)
    prior, delta = standard_normal(z).sum(1), change[..., 0].sum(1)
    return Likelihood((delta - prior).mean(), prior, delta)


def published_offset(width: int, rows: int) -> float:
    """Return by how much the published loss exceeds this one.

    It adds the constant of a whole row, ``width / 2 log(2 pi)``, once per element of the row. Gradients are
    not affected.
    """
    return 0.5 * LOG_2PI * rows * width * (width - 1)


class StyleFlowTrainer:
    """Trains ``flow`` in place, resumably.

    Order and noise depend on the seed and the step alone, and a checkpoint holds parameters, statistics,
    optimiser and random state (bit-equal on a CPU).
    """

    def __init__(
        self,
        flow: StyleFlow,
        conditions: Conditions,
        samples: LabelledLatents,
        settings: StyleFlowTrainingOptions,
        held_out: LabelledLatents | None = None,
    ) -> None:
        """Take a StyleFlow and its samples.

        Args:
            flow: the StyleFlow.
            conditions: schema of the labels.
            samples: samples to learn from.
            settings: options of the training.
            held_out: samples whose density is reported after every pass, and which are not learnt from.

        Raises:
            InputError: the samples do not fit the StyleFlow, or are too few for a batch.
        """
        self.flow, self.conditions, self.settings = flow, conditions, settings
        self.samples = self._encoded(samples)
        self.held_out = None if held_out is None else self._encoded(held_out)
        if len(samples) < settings.batch:
            raise InputError(f"{len(samples)} samples do not fill a batch of {settings.batch}; lower batch")
        if settings.batch * samples.w.shape[1] < 2:
            raise InputError("a batch needs two rows for its variance; use a batch of 2 or more")
        self.steps_per_pass = len(samples) // settings.batch
        self.steps = settings.epochs * self.steps_per_pass
        self.rng = torch.Generator(device=self.samples.w.device).manual_seed(settings.seed)
        self._order: tuple[int, Tensor] | None = None
        deviation = self.samples.w.flatten(0, 1).var(0).mean().sqrt()
        self._jitter = settings.jitter * float(deviation)

    def _encoded(self, samples: LabelledLatents) -> LabelledLatents:
        width, context = self.flow.settings.width, self.flow.settings.context
        if samples.w.shape[-1] != width or len(self.conditions) != context:
            raise InputError(
                f"the StyleFlow has width {width} and {context} attributes; the samples' latents have width "
                f"{samples.w.shape[-1]}, and {len(self.conditions)} attributes are named"
            )
        labels = self.conditions.encode(self.conditions.checked_labels(samples.labels))
        like = next(self.flow.parameters())
        return LabelledLatents(samples.w.to(like), labels.to(like))

    def run(
        self,
        checkpoint: Checkpoint | None = None,
        on_step: OnStep | None = None,
        on_pass: Callable[[int, float, float | None], None] | None = None,
    ) -> list[float]:
        """Train, and return the loss of every step, including resumed ones.

        The StyleFlow ends in eval mode, without gradients.

        Args:
            checkpoint: keeps the state; None keeps none.
            on_step: called with the finished steps and the loss.
            on_pass: called with the finished passes, the mean loss of the pass and the held-out log-density,
                for passes that end in this call.

        Raises:
            FloatingPointError: the loss is not finite or the equation cannot be solved; the state of the last
                checkpoint is kept.
            StopRequested: the process was asked to stop; the state after the last step is kept.
        """

        def after(done: int, loss: float | None) -> None:
            if on_step is not None:
                on_step(done, loss)
            if on_pass is not None and done % self.steps_per_pass == 0:
                mean = sum(loop.losses[-self.steps_per_pass :]) / self.steps_per_pass
                density = None if self.held_out is None else self.held_out_density()
                on_pass(done // self.steps_per_pass, mean, density)

        self.flow.train().requires_grad_(True)
        loop = self._loop(checkpoint)
        losses = loop.run(self._objective, after)
        self.flow.eval().requires_grad_(False)
        return losses

    def _loop(self, checkpoint: Checkpoint | None) -> AdamLoop:
        settings = self.settings

        def rate(step: int) -> float:
            return settings.learning_rate * ramp(step, self.steps, 0, settings.decay_fraction)

        return AdamLoop(
            [ParameterGroup(dict(self.flow.named_parameters()))],
            self.steps,
            rate,
            self.rng,
            checkpoint,
            settings.checkpoint_s,
            settings.betas,
            kept=dict(self.flow.named_buffers()),
        )

    def _objective(self, step: int) -> Tensor:
        places = self._places(step)
        w, labels = self.samples.w[places], self.samples.labels[places]
        noise = draw_noise(w, self.settings.noise, self.rng)
        if self._jitter > 0:
            w = w + self._jitter * draw_noise(w, "gaussian", self.rng)
        return negative_log_likelihood(self.flow, w, labels, noise, self.settings.solver).loss

    def _places(self, step: int) -> Tensor:
        """Return the positions of a step's samples ``[batch]`` int64, copied to the device once per pass."""
        number, place = divmod(step, self.steps_per_pass)
        if not self.settings.shuffle:
            number = 0
        if self._order is None or self._order[0] != number:
            total, shuffled = len(self.samples), self.settings.shuffle
            order = _order(self.settings.seed, number, total) if shuffled else torch.arange(total)
            self._order = number, order.to(self.samples.w.device)
        first = place * self.settings.batch
        return self._order[1][first : first + self.settings.batch]

    @torch.no_grad()
    def held_out_density(self, solver: SolverSettings | None = None) -> float:
        """Return the mean log-density of the held-out rows, in nats, with the same noise at every call.

        Args:
            solver: solver of the equation; default: the flow's own, which may be finer than training's, so
                that a fit to coarse steps becomes visible here.

        Raises:
            ValueError: nothing was held out.
        """
        if self.held_out is None:
            raise ValueError("no samples were held out; give some to StyleFlowTrainer")
        rng = torch.Generator(device=self.held_out.w.device).manual_seed(self.settings.seed)
        training = self.flow.training
        self.flow.eval()
        sums = []
        for first in range(0, len(self.held_out), _HELD_OUT_BATCH):
            w = self.held_out.w[first : first + _HELD_OUT_BATCH]
            labels = self.held_out.labels[first : first + _HELD_OUT_BATCH]
            noise = draw_noise(w, self.settings.noise, rng)
            sums.append(self.flow.log_density(w, labels, noise=noise, solver=solver).double().sum())
        self.flow.train(training)
        return float(sum(sums)) / self.held_out.w[..., 0].numel()


def draw_noise(like: Tensor, kind: str, rng: torch.Generator) -> Tensor:
    """Draw a vector of unit variance for the trace estimate, of the shape and type of ``like``.

    Args:
        like: tensor whose shape, type and device the vector takes.
        kind: ``gaussian``, or ``rademacher`` for signs.
        rng: random state on the device of ``like``.
    """
    if kind == "gaussian":
        return torch.randn(like.shape, generator=rng, device=like.device).to(like)
    return (torch.randint(0, 2, like.shape, generator=rng, device=like.device) * 2 - 1).to(like)


@lru_cache(maxsize=4)
def _order(seed: int, number: int, total: int) -> Tensor:
    """Draw the order of one pass, independently of others; on the CPU, so that devices agree on it."""
    rng = torch.Generator().manual_seed((seed << 20) + number + 1)
    return torch.randperm(total, generator=rng)
