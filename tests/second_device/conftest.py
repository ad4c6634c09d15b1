"""The second device, and what several of its tests work with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from portrait_core.generators import cpu
from tests.second_device import NAME, require


@pytest.fixture(scope="session")
def second() -> torch.device:
    """The device; skips, with a sentence, where this PyTorch cannot have it."""
    require()
    return torch.device(NAME)


@pytest.fixture
def plain_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU computes with PyTorch's own operations, as any other device does, not with those of
    :mod:`portrait_core.generators.cpu`: then results are equal bit by bit."""
    monkeypatch.setattr(cpu, "suits", lambda *tensors: False)
    monkeypatch.setattr("portrait_core.generators.rendering.suits", lambda *tensors: False)
    yield
