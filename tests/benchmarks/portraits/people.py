"""Synthetic people whose other sides are known: does tuning on one view help or harm them?"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tests.benchmarks.inversion import Sums, add_scores, people
from tests.benchmarks.portraits.fitting import Fit
from tests.benchmarks.portraits.subjects import Subject, synthetic
from tests.benchmarks.portraits.tools import Tools


def tuned_people(
    count: int, tools: Tools, fitted: Callable[[Subject], Fit], said: Callable[[str], None]
) -> dict[str, Sums]:
    """Scores by angle of ``count`` people, fitted to their front views: ``inverted`` and ``tuned``."""
    sums: dict[str, Sums] = {"inverted": {}, "tuned": {}}
    for i, (z, views) in enumerate(people(count)):
        fit = fitted(synthetic(f"person {i}", z, views[0], tools.head))
        for name in sums:
            if name == "tuned":
                fit.tune()
            with torch.no_grad():
                add_scores(sums[name], fit.generator, tools.phi, fit.first.ws, views)
        said(f"person {i}")
    return sums
