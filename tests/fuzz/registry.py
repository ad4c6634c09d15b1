"""All targets: those of the modules ``targets_*.py`` beside this one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.harness import Target


def _targets() -> dict[str, Target]:
    found: dict[str, Target] = {}
    for path in sorted(Path(__file__).parent.glob("targets_*.py")):
        found |= {
            target.name: target for target in importlib.import_module(f"tests.fuzz.{path.stem}").TARGETS
        }
    return found


TARGETS: Mapping[str, Target] = _targets()
"""Targets by name."""
