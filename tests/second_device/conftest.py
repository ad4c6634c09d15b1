"""Fixtures of the second device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from portrait_core.generators import cpu
from tests.flows.conftest import arguments, driver, small, tiny_generator  # noqa: F401 - fixtures
from tests.second_device import require


@pytest.fixture(scope="session")
def second() -> torch.device:
    """The second device; skips on releases of PyTorch with which it is not tried."""
    return require()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Let the CPU compute with one thread, as the device's backward passes do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plain_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU take the path that every device takes, without its own fused functions."""
    take_plain_path(monkeypatch)


def take_plain_path(patch: pytest.MonkeyPatch) -> None:
    """Do without the CPU's own functions until the patch is undone."""
    patch.setattr(cpu, "suits", lambda *_: False)
