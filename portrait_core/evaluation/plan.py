"""The plan of an evaluation: a record of which assessed clips its tables are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from portrait_core.errors import InputError
from portrait_core.store import Store
from portrait_core.store.documents import canonical_json


class Member(BaseModel):
    """One assessed clip."""

    model_config = ConfigDict(frozen=True)

    method: str
    """Name of the method."""
    pair: int
    """Number of the pair."""
    clip: str
    """Name of the clip."""
    unit: str
    """Name of the reenactment's unit in the store."""
    key: str
    """Key under which the stage ``assess`` wrote."""


class Plan(BaseModel):
    """An evaluation whose clips are assessed, or known to fail."""

    model_config = ConfigDict(frozen=True)

    title: str
    """Heading of the report."""
    profile: str
    """Name of the profile."""
    seed: int
    """Seed of all draws."""
    methods: tuple[str, ...]
    """Names of the methods that have clips, in their order."""
    estimators: tuple[str, ...]
    """Readers of poses and expressions."""
    pairs: int
    """Number of pairs."""
    portraits: int
    """Number of different portraits."""
    videos: int
    """Number of different videos."""
    members: tuple[Member, ...]
    """Assessed clips."""
    notes: tuple[str, ...] = ()
    """Remarks that a reader of the tables needs."""
    absent: tuple[Mapping[str, Any], ...] = ()
    """Clips that are missing: ``method``, ``pair`` and ``why``."""
    unavailable: tuple[Mapping[str, Any], ...] = ()
    """Methods that were not run: ``method`` and ``why``."""

    def digest(self) -> str:
        """Return the digest of the plan, which names its tables.

        Why clips are missing is no part of it: a failure that is met again may be told in other words.
        """
        values = self.model_dump(mode="json")
        values["absent"] = [{"pair": row["pair"], "method": row["method"]} for row in values["absent"]]
        return hashlib.sha256(canonical_json(values)).hexdigest()

    def common_pairs(self) -> frozenset[int]:
        """Return the numbers of the pairs of which every method has a clip: what tables compare."""
        sets = [frozenset(one.pair for one in self.members_of(method)) for method in self.methods]
        return frozenset.intersection(*sets) if sets else frozenset()

    def members_of(self, method: str) -> Sequence[Member]:
        """Return the clips of a method, in the order of their pairs."""
        return sorted((one for one in self.members if one.method == method), key=lambda one: one.pair)


def write_plan(store: Store, plan: Plan) -> str:
    """Keep a plan in a store, and return its digest."""
    digest = plan.digest()
    store.write_record("plans", digest[:32], plan.model_dump(mode="json"))
    return digest


def read_plan(store: Store, digest: str) -> Plan:
    """Read the plan of a digest.

    Raises:
        InputError: it is absent, damaged, or another one.
    """
    try:
        plan = Plan.model_validate(store.read_record("plans", digest[:32]))
    except ValidationError:
        plan = None
    if plan is None or plan.digest() != digest:
        raise InputError(f"{store.url} does not hold the evaluation's plan {digest[:16]}; evaluate again")
    return plan
