"""Scheduling the shards of a manifest as runs of a deployment, each once however often it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.engine.environment import prefect_server, prefect_server_answers
from portrait_core.errors import InputError
from portrait_core.store.documents import canonical_json

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

TAGS = ("portrait", "shard")
"""Tags of every scheduled run, beside its manifest's name."""


@dataclass(frozen=True)
class Scheduled:
    """A run of a deployment, and whether this call has made it."""

    name: str
    """The flow run's name."""
    state: str
    """The name of its state."""
    new: bool
    """Whether it is new: otherwise the same was asked for before."""


def require_deployment(deployment: str) -> None:
    """Make sure that a Prefect server is named, answers, and knows a deployment.

    Args:
        deployment: ``FLOW/DEPLOYMENT``.

    Raises:
        InputError: one of these is not so.
    """
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    server = prefect_server()
    if server is None:
        raise InputError(
            "no Prefect server is named; set PREFECT_API_URL to its address, http://HOST:4200/api"
        )
    if not prefect_server_answers(server):
        raise InputError(f"no Prefect server answers at {server}; start it, or correct PREFECT_API_URL")
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment)
        except (ObjectNotFound, ValueError) as error:
            raise InputError(
                f"the Prefect server at {server} knows no deployment {deployment!r}; give FLOW/DEPLOYMENT as "
                "`prefect deployment ls` lists them, or make it with deployments/register.sh"
            ) from error


def schedule(
    deployment: str,
    parameters: Mapping[str, Any],
    digest: str,
    name: str,
    tags: Sequence[str],
    again: str = "",
) -> Scheduled:
    """Schedule a run of a deployment, unless one of the same content has been scheduled before.

    Args:
        deployment: ``FLOW/DEPLOYMENT``.
        parameters: of the flow.
        digest: of what the parameters name but do not hold.
        name: of the flow run.
        tags: of the flow run, beside those of the deployment.
        again: anything that tells this call from earlier ones with the same content.
    """
    from prefect.deployments import run_deployment

    content = {"deployment": deployment, "parameters": dict(parameters), "digest": digest, "again": again}
    asked = datetime.now(UTC)
    made: FlowRun = run_deployment(  # type: ignore[assignment]  # a coroutine only where a loop is running
        deployment,
        parameters=dict(parameters),
        timeout=0,
        scheduled_time=asked,
        flow_run_name=name,
        tags=list(tags),
        idempotency_key=hashlib.sha256(canonical_json(content)).hexdigest(),
        as_subflow=False,
    )
    # An earlier run was to start at another microsecond: no two clocks have to agree for this.
    new = made.expected_start_time == asked
    return Scheduled(made.name, made.state_name or "unknown", new)
