"""The conditional flow: numbers of the published architecture, invertibility, and density.

The numbers in ``styleflow_numbers.json`` are those of the plain implementation, which the reference folder's
numbers hold; ``python -m tests.portrait_core.test_styleflow`` writes them again.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from portrait_core.attribute_editing.settings import SolverSettings, StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow, standard_normal
from tests import official_flow
from tests.official_files import seeded
from tests.plain import styleflow as plain

NUMBERS = Path(__file__).with_name("styleflow_numbers.json")
FINE = SolverSettings(rtol=1e-9, atol=1e-9)
SEED = 8


def published_inputs() -> dict[str, Tensor]:
    """A latent, its conditions, others, and noise."""
    inputs = {name: seeded(name, (1, 512), SEED) * math.sqrt(512) for name in ("w", "noise")}
    return inputs | {name: seeded(name, (1, 17), SEED) * 20 for name in ("cond", "cond_target")}


def published_numbers() -> dict[str, Any]:
    """What the plain implementation makes of them: a spread of the numbers, and log-densities."""
    params = {n: v.double().numpy() for n, v in official_flow.flow_state(StyleFlowArchitecture()).items()}
    given = {name: value[0].double().numpy() for name, value in published_inputs().items()}
    z, dlogp = plain.flow(params, given["w"], given["cond"], given["noise"])
    w, back = plain.flow(params, z, given["cond_target"], given["noise"], reverse=True)
    return {"z": z[::32].tolist(), "dlogp": dlogp, "w_target": w[::32].tolist(), "dlogp_target": back}


def test_the_published_architecture() -> None:
    wanted, given = json.loads(NUMBERS.read_text()), published_inputs()
    flow = official_flow.filled(StyleFlowArchitecture())
    zeros = torch.zeros(1, 1, 1)
    z, dlogp = flow(given["w"][:, None], given["cond"], zeros, noise=given["noise"][:, None])
    w, back = flow(z, given["cond_target"], zeros, noise=given["noise"][:, None], reverse=True)
    np.testing.assert_allclose(z[0, 0, ::32], wanted["z"], atol=2e-4)
    np.testing.assert_allclose(w[0, 0, ::32], wanted["w_target"], atol=2e-4)
    assert float(dlogp) == pytest.approx(wanted["dlogp"], abs=2e-3)
    assert float(back) == pytest.approx(wanted["dlogp_target"], abs=2e-3)


def tiny_inputs(rows: int = 2, batch: int = 3) -> tuple[StyleFlow, Tensor, Tensor]:
    flow = official_flow.tiny()
    rng = torch.Generator().manual_seed(4)
    w = torch.randn(batch, rows, 6, generator=rng, dtype=torch.float64)
    return flow, w, torch.randn(batch, 3, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_against_the_plain_implementation(reverse: bool, exact: bool) -> None:
    flow, w, conditions = tiny_inputs()
    noise = None if exact else torch.randn_like(w)
    params = {name: value.numpy() for name, value in flow.state_dict().items()}
    zeros = torch.zeros_like(w[..., :1])
    got, dlogp = flow(w, conditions, zeros, reverse=reverse, noise=noise, solver=FINE)
    for b in range(3):
        for row in range(2):
            e = None if noise is None else noise[b, row].numpy()
            x, change = plain.flow(params, w[b, row].numpy(), conditions[b].numpy(), e, reverse=reverse)
            np.testing.assert_allclose(got[b, row], x, atol=1e-7)
            assert float(dlogp[b, row]) == pytest.approx(change, abs=1e-7)


@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (3, 1), (2, 14), (1, 18)])
@pytest.mark.parametrize(
    ("solver", "least"),
    [
        (FINE, 1e-7),
        (SolverSettings(), 1e-3),
        (SolverSettings(method="bosh3"), 1e-3),
        (SolverSettings(method="rk4", steps=32), 1e-4),
        (SolverSettings(method="midpoint", steps=60), 3e-3),
    ],
)
def test_there_and_back(batch: int, rows: int, solver: SolverSettings, least: float) -> None:
    flow, w, conditions = tiny_inputs(rows, batch)
    zeros = torch.zeros_like(w[..., :1])
    z, there = flow(w, conditions, zeros, solver=solver)
    again, back = flow(z, conditions, zeros, reverse=True, solver=solver)
    assert float((again - w).abs().max()) < least
    assert float((there + back).abs().max()) < least
    assert float((z - w).abs().max()) > 0.1
    assert float((z - flow(w, conditions + 0.5, solver=solver)).abs().max()) > 0.05  # conditions count


def test_density_is_the_change_of_variables() -> None:
    flow, w, conditions = tiny_inputs(rows=1, batch=1)

    def z_of(x: Tensor) -> Tensor:
        return flow(x[None, None], conditions, solver=FINE)[0, 0]

    jacobian = torch.autograd.functional.jacobian(z_of, w[0, 0])
    wanted = standard_normal(z_of(w[0, 0])) + torch.linalg.slogdet(jacobian).logabsdet
    got = flow.log_density(w, conditions, solver=FINE)
    assert float(got - wanted) == pytest.approx(0, abs=1e-6)


def test_density_integrates_to_one() -> None:
    flow = official_flow.tiny(width=2)
    axis = torch.linspace(-9, 9, 121, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[None]
    conditions = torch.tensor([[0.3, -1.0, 0.7]], dtype=torch.float64)
    density = flow.log_density(grid, conditions, solver=SolverSettings(rtol=1e-6, atol=1e-6)).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-3)


def test_the_trace_estimate_is_unbiased() -> None:
    flow, w, conditions = tiny_inputs(rows=1, batch=1)
    many = 4000
    noise = torch.randn(1, many, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    solver = SolverSettings(method="rk4", steps=16)
    wide, zeros = w.expand(1, many, 6), torch.zeros(1, many, 1, dtype=torch.float64)
    _, estimates = flow(wide, conditions, zeros, noise=noise, solver=solver)
    _, exact = flow(w, conditions, zeros[:, :1], solver=solver)
    spread = float(estimates.std()) / math.sqrt(many)
    assert spread > 0
    assert abs(float(estimates.mean() - exact)) < 4 * spread


def test_rows_do_not_know_of_each_other() -> None:
    flow, w, conditions = tiny_inputs(rows=5, batch=2)
    solver = SolverSettings(method="rk4", steps=8)
    together = flow(w, conditions, solver=solver)
    for b in range(2):
        for row in range(5):
            alone = flow(w[b : b + 1, row : row + 1], conditions[b : b + 1], solver=solver)
            assert torch.allclose(alone[0, 0], together[b, row], atol=1e-12)


def test_a_new_flow_shifts_by_condition_and_does_nothing_else() -> None:
    torch.manual_seed(0)
    flow = StyleFlow(StyleFlowArchitecture(width=8, hidden=(16, 16), context=4)).eval().requires_grad_(False)
    w, conditions = torch.randn(1, 3, 8), torch.randn(1, 4)
    moved = flow(w, conditions) - w
    assert torch.allclose(moved, moved[:, :1].expand_as(moved), atol=1e-3)
    assert float((flow(w, conditions + 1) - w - moved).abs().max()) > 0.05
    _, dlogp = flow(w, conditions, torch.zeros(1, 3, 1))
    assert float(dlogp.abs().max()) < 1e-3
    assert flow.double()(w.double(), conditions.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": torch.zeros(3, 6)}, r"latents have shape \[3, 6\], expected \[batch, rows, 6\]"),
        ({"x": torch.zeros(3, 2, 5)}, r"expected \[batch, rows, 6\]"),
        ({"conditions": torch.zeros(2, 3)}, r"conditions have shape \[2, 3\], expected \[3, 3\]"),
        ({"conditions": torch.zeros(3, 3, 2, 1)}, "one condition for each latent"),
        ({"logp": torch.zeros(3, 2)}, r"logp has shape \[3, 2\], expected \[3, 2, 1\]"),
        ({"noise": torch.zeros(3, 1, 6)}, "noise has shape"),
        ({"conditions": torch.full((3, 3), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Tensor], words: str) -> None:
    flow = official_flow.tiny().float()
    given = {"x": torch.zeros(3, 2, 6), "conditions": torch.zeros(3, 3), "logp": torch.zeros(3, 2, 1)}
    with pytest.raises(ValueError, match=words):
        flow(**given | changes)


def gradients(dtype: torch.dtype, solver: SolverSettings) -> tuple[dict[str, Tensor], int, int]:
    """Gradients of a batch's log-density, and the evaluations of its solution with and without them."""
    flow = official_flow.filled(StyleFlowArchitecture(width=64, hidden=(64,) * 5)).to(dtype)
    flow.requires_grad_(True)
    w, noise = ((seeded(name, (4, 1, 64), SEED) * 8).to(dtype) for name in ("w", "noise"))
    conditions = (seeded("cond", (4, 17), SEED) * 40).to(dtype)
    with torch.no_grad():
        flow.log_density(w, conditions, noise=noise, solver=solver)
    without = flow.evaluations
    density = flow.log_density(w, conditions, noise=noise, solver=solver)
    evaluations = flow.evaluations
    density.sum().backward()
    found = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
    return found, evaluations, without


def test_gradients_of_solvers_that_choose_their_steps_are_nearly_as_exact_as_the_solution() -> None:
    """In single precision, against the equation's own: the steps decide, not rounding. They are as long as
    the tolerances allow where no gradients are computed."""
    exact, _, _ = gradients(torch.float64, FINE)
    for method, adjoint in (("dopri5", False), ("dopri5", True), ("bosh3", False), ("bosh3", True)):
        solver = SolverSettings.model_validate({"method": method, "adjoint": adjoint})
        found, evaluations, without = gradients(torch.float32, solver)
        assert evaluations > without
        assert found.keys() == exact.keys()
        for name, wanted in exact.items():
            assert float((found[name] - wanted).norm() / wanted.norm()) < 2e-4, (method, adjoint, name)


def test_an_equation_that_cannot_be_solved_says_so() -> None:
    flow, w, conditions = tiny_inputs()
    with pytest.raises(FloatingPointError, match="conditions are in their units"):
        flow(w, conditions, solver=SolverSettings(rtol=1e-12, atol=1e-12, max_steps=2))


if __name__ == "__main__":
    NUMBERS.write_text(json.dumps(published_numbers(), indent=1) + "\n")
