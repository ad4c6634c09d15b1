"""Fixtures of the second device."""

from __future__ import annotations

import pytest
import torch

import portrait_core.generators.cpu as cpu_functions
from tests.second_device import require


@pytest.fixture(scope="session")
def second() -> torch.device:
    """The second device; skips on releases of PyTorch with which it is not tried."""
    return require()


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU take the path that every device takes, without its own fused functions."""
    monkeypatch.setattr(cpu_functions, "suits", lambda *_: False)
