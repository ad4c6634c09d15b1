"""The benchmark of steps (``tests/benchmarks/step``) counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from portrait_core.inversion.loop import AdamLoop, ParameterGroup
from tests.benchmarks.step import counting
from tests.benchmarks.step.__main__ import grids
from tests.benchmarks.step.counting import StepCount, count_steps, summary
from tests.benchmarks.step.measure import StepJob
from tests.benchmarks.step.workloads import TINY, Workload

ROWS, INNER, COLUMNS, STEPS = 3, 5, 7, 4


def _counts(device: torch.device, reads: bool = False, grows: bool = False) -> list[StepCount]:
    """Count the steps of a loop whose loss is the mean of a product of two matrices, Φ's work."""
    weight = torch.ones(ROWS, INNER, device=device, requires_grad=True)
    phi = nn.Linear(INNER, COLUMNS, bias=False).to(device).requires_grad_(False)

    def objective(step: int) -> torch.Tensor:
        if reads and float(weight.detach().sum()) < 0:
            raise AssertionError("the weights went below 0")
        factor = 1.0 + step if grows else 2.0
        return phi(weight).mean() * factor

    rng = torch.Generator(device=device)
    adam = AdamLoop([ParameterGroup({"weight": weight})], STEPS, lambda step: 0.1, rng)
    (found,) = count_steps(lambda: adam.run(objective), phi).values()
    return found


def test_a_products_operations_are_those_of_the_formula(second: torch.device) -> None:
    found = _counts(second)
    assert len(found) == STEPS - 1  # the first makes Adam's moments
    product = 2 * ROWS * INNER * COLUMNS
    for count in found:
        assert count.flop["Φ"] == product
        assert count.flop["backward"] == product  # the gradient of one of its factors
        assert sum(count.flop.values()) == 2 * product
        assert count.kernels["Φ"] == 1  # the transposed weight is a view
        assert (count.copies, count.reads) == ([], [])


def test_what_a_graph_cannot_hold_is_said(second: torch.device) -> None:
    assert summary("p", "w", _counts(second))["capturable"] is True
    assert summary("p", "w", _counts(second, grows=True))["capturable"] is False  # another constant
    reading = summary("p", "w", _counts(second, reads=True))
    assert reading["capturable"] is False
    assert reading["reads"] == 1
    assert any("test_step_benchmark.py" in place and "in objective" in place for place in reading["waits"])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_tiny_clips_steps_are_counted(second: torch.device, tmp_path: Path) -> None:
    work = Workload(TINY, "second", tmp_path, frames=2)
    rows = counting.inversion_counts(work) + counting.tuning_counts(work)
    assert [row["what"] for row in rows] == [
        "inversion: first frame, patch anywhere",
        "inversion: first frame, middle",
        "tuning",
    ]
    for row in rows:
        assert all(row["kernels"][part] for part in counting.PARTS)
        assert all(row["gflop"][part] > 0 for part in ("planes", "rays", "super-resolution", "Φ", "backward"))
        assert (row["copies"], row["reads"], row["capturable"]) == (0, 0, True)
    # Φ of a target that stays is known: it is computed of the picture alone
    assert rows[0]["gflop"]["Φ"] == pytest.approx(2 * rows[1]["gflop"]["Φ"])
    kernels, _ = grids([(StepJob("count", TINY, "tuning"), {"rows": rows})])
    assert [line[-1] for line in kernels.rows] == ["yes"] * 3
