"""Fixtures of the second device."""

from __future__ import annotations

import pytest
import torch

from portrait_core.generators import cpu, rendering
from tests.second_device import require


@pytest.fixture(scope="session")
def second() -> torch.device:
    """The second device; skips on releases of PyTorch with which it is not tried."""
    return require()


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU take the path that every device takes, without its own fused functions."""
    take_plain_path(monkeypatch)


def take_plain_path(patch: pytest.MonkeyPatch) -> None:
    """Do without the CPU's own functions until the patch is undone."""
    for module in (cpu, rendering):
        patch.setattr(module, "suits", lambda *_: False)
