"""The list of probes, which each module of probes fills."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.hostile.bench import Bench

Severity = Literal["critical", "high", "medium", "medium-low", "low"]
Owner = Literal["media", "store21", "tables", "text21", "weights21", "process21", "deploy21"]
Attack = Callable[[Bench], str]
"""Function that attacks, and returns one line of evidence that the program holds, or raises ``Open``."""


@dataclass(frozen=True)
class Probe:
    """One attack."""

    name: str
    """Name of its function."""
    row: int
    """Row of the table of the first attack; 0 for one of the same kinds that is not in it."""
    severity: Severity
    owner: Owner
    """Part of the program that has to hold."""
    attack: Attack
    title: str
    """First line of its docstring."""


PROBES: list[Probe] = []


def probe(owner: Owner, severity: Severity, row: int = 0) -> Callable[[Attack], Attack]:
    """Add a function to the probes."""

    def add(attack: Attack) -> Attack:
        title = (attack.__doc__ or attack.__name__).strip().splitlines()[0]
        PROBES.append(Probe(attack.__name__, row, severity, owner, attack, title))
        return attack

    return add
