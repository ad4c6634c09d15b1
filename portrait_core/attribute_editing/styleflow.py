"""StyleFlow: a conditional continuous normalising flow between w and z.

Sources: Abdal et al. 2021 (StyleFlow); Grathwohl et al. 2019 (FFJORD); paper section 3.4, equations 5 and 6.
"Forward" maps w to z, ``reverse=True`` maps z to w. Rows are independent: a W+ latent is as many vectors as
it has rows, under one condition; a 3D GAN's single w is one row. Rows interact only through the choice of the
solver's steps, which moves results within its tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from portrait_core.attribute_editing.fixed_step_solver import solve_in_steps
from portrait_core.attribute_editing.settings import SolverSettings, StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow_dynamics import (
    ConditionedNetwork,
    Dynamics,
    estimated_trace,
    exact_trace,
    identity_tangents,
    velocity,
    velocity_and_products,
)

VARIANCE_FLOOR = 1e-4
"""Constant added to a running variance before its square root is taken."""
STATISTICS_RATE = 0.1
"""Weight of a batch's mean and variance in the running statistics, per training step."""
LOG_2PI = math.log(2 * math.pi)
_ESTIMATE_ORDERS = {"dopri5": 5, "bosh3": 3}
"""Power of the step's length to which a solver's estimate of its error is proportional."""
_ROUNDING = 4.0
"""Smallest tightened tolerance in units of the number type's rounding: the estimate is blind below it."""

State = tuple[Tensor, ...]


class MovingBatchNorm(nn.Module):
    """Computes ``(x - mean) / sqrt(var + 1e-4) * exp(weight) + bias`` with running statistics.

    The running statistics are used in training too, before the batch updates them: the map stays fixed and
    invertible, with a known density.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.step: Tensor
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("step", torch.zeros(1))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(
        self, x: Float[Tensor, "b l d"], logp: Float[Tensor, "b l 1"] | None, *, reverse: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Normalise, or invert the normalisation, and add the change of volume to ``logp``."""
        # copies, so that a later update of the statistics does not disturb this step's gradients
        mean, variance = self.running_mean.clone(), self.running_var + VARIANCE_FLOOR
        growth = (self.weight - 0.5 * variance.log()).sum()
        if reverse:
            x = (x - self.bias) * torch.exp(-self.weight) * variance.sqrt() + mean
            return x, None if logp is None else logp + growth
        if self.training:
            self._learn(x.detach())
        x = (x - mean) / variance.sqrt() * torch.exp(self.weight) + self.bias
        return x, None if logp is None else logp - growth

    @torch.no_grad()
    def _learn(self, x: Tensor) -> None:
        rows = x.flatten(0, 1)
        if len(rows) < 2:
            raise ValueError("a training batch of one row has no variance; give two samples or more")
        self.running_mean.lerp_(rows.mean(0), STATISTICS_RATE)
        self.running_var.lerp_(rows.var(0), STATISTICS_RATE)
        self.step += 1


class ContinuousNormalisingFlow(nn.Module):
    """Moves x along dx/dt = f(t, x, c) from time 0 to ``sqrt_end_time ** 2``, or back."""

    def __init__(self, settings: StyleFlowArchitecture) -> None:
        super().__init__()
        self.sqrt_end_time = nn.Parameter(torch.tensor(1.0))
        self.odefunc = Dynamics(settings.width, settings.hidden, settings.context)

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        conditions: Float[Tensor, "b context"],
        logp: Float[Tensor, "b l 1"] | None,
        noise: Float[Tensor, "b l d"] | None,
        solver: SolverSettings,
        *,
        reverse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Solve the equation; ``logp`` is reduced by the integral of the trace."""
        network = self.odefunc.diffeq.conditioned(conditions)
        end = self.sqrt_end_time.square()
        evaluations = 0

        def change(share: Tensor | float, state: State) -> State:
            nonlocal evaluations
            evaluations += 1
            return _change(network, end, share, state, noise)

        # The path is parametrised over 0..1 and its length multiplies the velocity: the end time then has a
        # gradient like any other parameter, and equal steps fit it.
        state = (x,) if logp is None else (x, logp)
        if solver.adaptive or (solver.adjoint and torch.is_grad_enabled()):
            path = torch.tensor([1.0, 0.0] if reverse else [0.0, 1.0], dtype=x.dtype, device=x.device)
            parameters = (end, *network.tensors())
            wanted = torch.is_grad_enabled() and any(v.requires_grad for v in (*state, *parameters))
            solved = _solve(change, state, path, solver, parameters, gradients=wanted)
        else:
            solved = solve_in_steps(change, state, method=solver.method, steps=solver.steps, reverse=reverse)
        self.odefunc._num_evals.fill_(evaluations)
        return solved[0], None if logp is None else solved[1]


def _change(
    network: ConditionedNetwork, end: Tensor, share: Tensor | float, state: State, noise: Tensor | None
) -> State:
    """Return the state's derivative with respect to the fraction of the path."""
    x, t = state[0], share * end
    if len(state) == 1:
        return (end * velocity(network, t, x),)
    if noise is None:
        speed, products = velocity_and_products(network, t, x, identity_tangents(x))
        trace = exact_trace(products)
    else:
        speed, products = velocity_and_products(network, t, x, noise[None])
        trace = estimated_trace(noise, products)
    return end * speed, -end * trace


def _solve(
    change: Callable[[Tensor, State], State],
    state: State,
    path: Tensor,
    solver: SolverSettings,
    parameters: tuple[Tensor, ...],
    *,
    gradients: bool,
) -> State:
    rtol, atol = (
        _tolerance(value, solver, state[0].dtype, gradients) for value in (solver.rtol, solver.atol)
    )
    first = 0.5 if gradients else 1.0
    common: dict[str, Any] = {"rtol": rtol, "atol": atol, "method": solver.method}
    common["options"] = _options(solver, path[1:], first)
    try:
        if solver.adjoint and torch.is_grad_enabled():
            # the parameters' gradients do not influence the backward steps (Kidger et al. 2021)
            back = _options(solver, path[:1], first) | ({"norm": "seminorm"} if solver.adaptive else {})
            common |= {"adjoint_options": back, "adjoint_params": parameters}
            solution = odeint_adjoint(change, state, path, **common)
        else:
            solution = odeint(change, state, path, **common)
    except AssertionError as error:  # raised by the solver when steps vanish, run out or meet infinities
        raise FloatingPointError(
            f"the flow's equation cannot be solved ({error}); check that the conditions are in their units "
            "and within their ranges, or loosen solver.rtol and solver.atol"
        ) from error
    return tuple(value[-1] for value in solution)


def _tolerance(value: float, solver: SolverSettings, dtype: torch.dtype, gradients: bool) -> float:
    """Return a tolerance of the solver, tightened where gradients are computed.

    The solver's estimate knows the error of the state. The gradients of the early layers have up to fifty
    times the relative error (up to 7e-3 at the default tolerance), so steps are half as long for them.
    """
    if not (gradients and solver.adaptive):
        return value
    tightened = value / 2.0 ** _ESTIMATE_ORDERS[solver.method]
    return max(tightened, min(value, _ROUNDING * torch.finfo(dtype).eps))


def _options(solver: SolverSettings, end: Tensor, first_step: float) -> dict[str, Any]:
    """Return the solver's step options.

    Steps are equal, or the first covers the fraction ``first_step`` of the path and is reduced where its
    error is too large. A step ends where the path does. By default the solver steps past the end and
    interpolates, which costs evaluations and is less exact than its steps.
    """
    if not solver.adaptive:
        return {"step_size": 1 / solver.steps}
    return {"first_step": first_step, "step_t": end.clone(), "max_num_steps": solver.max_steps}


class StyleFlow(nn.Module):
    """Norm, continuous normalising flow, norm: an invertible map between w and standard-normal z.

    Works in float32 and, after ``.double()``, in float64. The names of its state are those of the published
    checkpoints.
    """

    def __init__(self, settings: StyleFlowArchitecture, solver: SolverSettings | None = None) -> None:
        """Make a new flow, initialised from torch's random state.

        Args:
            settings: the architecture.
            solver: solver of the equation where a call names none.
        """
        super().__init__()
        self.settings = settings
        self.solver = solver or SolverSettings()
        self.chain = nn.ModuleList(
            [
                MovingBatchNorm(settings.width),
                ContinuousNormalisingFlow(settings),
                MovingBatchNorm(settings.width),
            ]
        )

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the network in the last solution."""
        return int(self.chain[1].odefunc._num_evals)  # type: ignore[union-attr, arg-type]

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        conditions: Float[Tensor, "b context"],
        logp: Float[Tensor, "b l 1"] | None = None,
        *,
        reverse: bool = False,
        noise: Float[Tensor, "b l d"] | None = None,
        solver: SolverSettings | None = None,
    ) -> Any:
        """Map w to z, or with ``reverse`` z to w.

        Args:
            x: ``[B,L,D]`` latents: L = 18 or 14 rows of a W+, 1 of a single w.
            conditions: ``[B,C]`` (further dimensions of length 1 are dropped), encoded for the network.
            logp: ``[B,L,1]``, usually zeros, to which the change of log-density is added; None omits the
                density and halves the time.
            reverse: map z to w.
            noise: ``[B,L,D]`` vector e of Hutchinson's estimate e'Je, of unit variance; None takes the exact
                trace, at D times the cost.
            solver: solver of the equation; default: the flow's own.

        Returns:
            The latents, or with ``logp`` the pair ``(latents, dlogp)``, where dlogp is to be **subtracted**:
            log p(w) = log N(z) - dlogp.

        Raises:
            ValueError: shapes do not fit or, except in training mode, values are not finite. In training the
                check would wait for the GPU at every step, and the loss shows the same.
            FloatingPointError: the equation cannot be solved.
        """
        conditions = self._checked(x, conditions, logp, noise)
        solver = solver or self.solver
        first, middle, last = self.chain[:: -1 if reverse else 1]
        x, logp = first(x, logp, reverse=reverse)
        x, logp = middle(x, conditions, logp, noise, solver, reverse=reverse)
        x, logp = last(x, logp, reverse=reverse)
        return x if logp is None else (x, logp)

    def log_density(
        self,
        w: Float[Tensor, "b l d"],
        conditions: Float[Tensor, "b context"],
        *,
        noise: Float[Tensor, "b l d"] | None = None,
        solver: SolverSettings | None = None,
    ) -> Float[Tensor, "b l"]:
        """Return log p(w | conditions) per row ``[B,L]``, in nats; arguments as for :meth:`forward`."""
        zeros = torch.zeros_like(w[..., :1])
        z, change = self(w, conditions, zeros, noise=noise, solver=solver)
        return standard_normal(z) - change[..., 0]

    def _checked(
        self, x: Tensor, conditions: Tensor, logp: Tensor | None, noise: Tensor | None
    ) -> Float[Tensor, "b context"]:
        width, context = self.settings.width, self.settings.context
        if x.ndim != 3 or x.shape[-1] != width:
            raise ValueError(f"latents have shape {list(x.shape)}, expected [batch, rows, {width}]")
        if conditions.shape[:2] != (len(x), context) or conditions[:1].numel() != context:
            raise ValueError(
                f"conditions have shape {list(conditions.shape)}, expected [{len(x)}, {context}]: "
                "one condition for each latent"
            )
        if logp is not None and logp.shape != (*x.shape[:2], 1):
            raise ValueError(f"logp has shape {list(logp.shape)}, expected {[*x.shape[:2], 1]}")
        if noise is not None and noise.shape != x.shape:
            raise ValueError(f"noise has shape {list(noise.shape)}, expected {list(x.shape)}")
        if not self.training and not (torch.isfinite(x).all() and torch.isfinite(conditions).all()):
            raise ValueError("latents or conditions have values that are not finite; check their source")
        return conditions.reshape(len(x), context)


def standard_normal(z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """Return log N(z; 0, 1) over the last axis, in nats."""
    return -0.5 * (z.square() + LOG_2PI).sum(-1)
