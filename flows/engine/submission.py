"""Scheduling of a manifest's shards as deployment runs, each once however often it is requested."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flows.engine.environment import prefect_server, prefect_server_answers, prefect_server_refuses
from portrait_core.errors import InputError
from portrait_core.store.documents import canonical_json

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

TAGS = ("portrait", "shard")
"""Tags of every scheduled run, beside its manifest's name."""


@dataclass(frozen=True)
class Scheduled:
    """A run of a deployment, and whether this call created it."""

    name: str
    """Name of the flow run."""
    state: str
    """Name of the run's state."""
    new: bool
    """True if this call created the run; otherwise the same run was requested before."""


def require_deployment(deployment: str) -> None:
    """Check that a Prefect server is named, answers, and knows a deployment.

    Args:
        deployment: ``FLOW/DEPLOYMENT``.

    Raises:
        InputError: one of these conditions is not met.
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
    if refused := prefect_server_refuses(server):
        raise InputError(refused)
    with get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment)
        except (ObjectNotFound, ValueError) as error:
            raise InputError(
                f"the Prefect server at {server} knows no deployment {deployment!r}; give FLOW/DEPLOYMENT as "
                "`prefect deployment ls` lists them, or register it with deployments/register.sh"
            ) from error


def schedule(
    deployment: str,
    parameters: Mapping[str, Any],
    digest: str,
    name: str,
    tags: Sequence[str],
    again: str = "",
) -> Scheduled:
    """Schedule a run of a deployment, unless one with the same content was scheduled before.

    Args:
        deployment: ``FLOW/DEPLOYMENT``.
        parameters: parameters of the flow.
        digest: digest of what the parameters name but do not hold.
        name: name of the flow run.
        tags: tags of the flow run, beside those of the deployment.
        again: any text that distinguishes this call from earlier ones with the same content.
    """
    from prefect.deployments import run_deployment

    content = {"deployment": deployment, "parameters": dict(parameters), "digest": digest, "again": again}
    requested = datetime.now(UTC)
    run: FlowRun = run_deployment(  # type: ignore[assignment]  # a coroutine only where a loop is running
        deployment,
        parameters=dict(parameters),
        timeout=0,
        scheduled_time=requested,
        flow_run_name=name,
        tags=list(tags),
        idempotency_key=hashlib.sha256(canonical_json(content)).hexdigest(),
        as_subflow=False,
    )
    # An earlier run has another start time, to the microsecond; no two clocks have to agree for this.
    new = run.expected_start_time == requested
    return Scheduled(run.name, run.state_name or "unknown", new)
