"""Settings of a StyleFlow: its architecture, the solver of its equation and its training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Tolerance = Annotated[float, Field(gt=0.0, lt=1.0)]


class Frozen(BaseModel):
    """Base of these settings: unknown fields are refused, values are immutable, infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class StyleFlowArchitecture(Frozen):
    """Architecture of a StyleFlow. The defaults are the published ones."""

    width: Count = 512
    """Dimensions of w and z."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (512,) * 5
    """Widths of the hidden layers."""
    context: Count = 17
    """Number of attributes of a condition."""


class SolverSettings(Frozen):
    """Solver of the equation. The defaults are the published ones.

    Where gradients are computed, ``dopri5`` and ``bosh3`` take steps half as long as the tolerances ask for:
    gradients are less exact than the solution.
    """

    method: Literal["dopri5", "bosh3", "rk4", "midpoint"] = "dopri5"
    """``dopri5`` and ``bosh3`` choose their steps by the tolerances; ``rk4`` (four evaluations per step) and
    ``midpoint`` (two) take ``steps`` equal ones."""
    rtol: Tolerance = 1e-5
    """Relative tolerance of ``dopri5`` and ``bosh3``."""
    atol: Tolerance = 1e-5
    """Absolute tolerance of ``dopri5`` and ``bosh3``."""
    steps: Count = 4
    """Number of equal steps of ``rk4`` and ``midpoint``."""
    max_steps: Count = 1000
    """Number of steps after which ``dopri5`` and ``bosh3`` fail."""
    adjoint: bool = False
    """Compute gradients by solving backward in time (Chen et al. 2018): memory does not grow with the
    evaluations, at several times the cost; otherwise gradients go through the solver's own steps."""

    @property
    def adaptive(self) -> bool:
        """True if the tolerances choose the steps."""
        return self.method in ("dopri5", "bosh3")


class StyleFlowTrainingOptions(Frozen):
    """Options of the training by maximum likelihood.

    Batch, rate and betas are the published ones, epochs the paper's (section 4.2).
    """

    epochs: Count = 20
    """Number of passes over the samples."""
    batch: Count = 5
    """Samples per step; those left over at the end of a pass are not used in it."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Learning rate of Adam."""
    decay_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Last fraction of the steps over which the rate falls to 0; 0 keeps it constant, as published."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of Adam."""
    shuffle: bool = True
    """Draw a new order per pass. The published code keeps the order of the samples."""
    noise: Literal["gaussian", "rademacher"] = "gaussian"
    """Distribution of the trace estimate's noise: ``rademacher`` (signs) has less variance, ``gaussian`` is
    published."""
    jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Deviation of Gaussian noise added to w, relative to w's root-mean-square deviation; 0 as published. A
    generator whose z is narrower than its w leaves directions of w nearly empty: their density is
    unbounded, and without noise the equation becomes stiff."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of order and noise."""
    checkpoint_s: Annotated[float, Field(ge=0.0)] = 300.0
    """Seconds between two checkpoints."""
    solver: SolverSettings = SolverSettings()
    """Solver of the equation in training."""
