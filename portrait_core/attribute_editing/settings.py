"""Settings of a flow, of the solver of its equation and of its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Tolerance = Annotated[float, Field(gt=0.0, lt=1.0)]


class Frozen(BaseModel):
    """Base: unknown fields are refused, values do not change, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class StyleFlowArchitecture(Frozen):
    """What fixes a flow's parameters, apart from their values. The defaults are the published ones."""

    width: Count = 512
    """Dimensions of w and z."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (512,) * 5
    """Widths of the hidden layers."""
    context: Count = 17
    """Numbers of a condition."""


class SolverSettings(Frozen):
    """How the equation is solved. The defaults are the published ones."""

    method: Literal["dopri5", "bosh3", "rk4", "midpoint"] = "dopri5"
    """``dopri5`` and ``bosh3`` choose their steps by the tolerances; ``rk4`` (four evaluations a step) and
    ``midpoint`` (two) take ``steps`` equal ones."""
    rtol: Tolerance = 1e-5
    """Relative tolerance of ``dopri5`` and ``bosh3``."""
    atol: Tolerance = 1e-5
    """Absolute tolerance of the same."""
    steps: Count = 4
    """Equal steps of ``rk4`` and ``midpoint``."""
    max_steps: Count = 1000
    """``dopri5`` and ``bosh3`` give up after so many."""
    adjoint: bool = False
    """Take gradients by solving backward in time (Chen et al. 2018): memory does not grow with the
    evaluations, at several times the work; without it they go through the solver's own steps."""

    @property
    def adaptive(self) -> bool:
        """Whether the tolerances choose the steps."""
        return self.method in ("dopri5", "bosh3")


class StyleFlowTrainingOptions(Frozen):
    """Training by maximum likelihood. Batch, rate and betas are the published ones, epochs the paper's
    (section 4.2).
    """

    epochs: Count = 20
    """Passes over the samples."""
    batch: Count = 5
    """Samples a step; those left over at the end of a pass sit it out."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Adam's."""
    decay_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The rate falls to nothing over this last share of the steps; 0 keeps it, as published."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's."""
    shuffle: bool = True
    """Draw a new order every pass. The published code takes the samples as they come."""
    noise: Literal["gaussian", "rademacher"] = "gaussian"
    """Of the trace estimate: ``rademacher`` (signs) has less variance, ``gaussian`` is published."""
    jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Gaussian noise added to w, as a share of w's root-mean-square deviation; 0 as published. A generator
    whose z is narrower than its w leaves directions of w nearly empty: their density has no bound, and
    without noise the equation grows stiff in its chase."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of order and noise."""
    checkpoint_s: Annotated[float, Field(ge=0.0)] = 300.0
    """Seconds between two checkpoints."""
    solver: SolverSettings = SolverSettings()
    """How the equation is solved in training."""
