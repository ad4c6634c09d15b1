"""Options of ``runner.cluster`` that are accepted, by ``runner.kind``.

They become arguments of classes of other libraries. Some of those arguments name code that is imported
(``preload``, ``worker_class``, ``scheduler_cls``, ``plugins``) or open a network service (``jupyter``), and
no run needs them, so the list is closed. Some accepted options do run commands: the operator chooses a Slurm
job's prologue and a pod's program. Therefore settings of the runner come from the command and from the
profile that it names, never from a stored job or a manifest (:mod:`portrait_core.settings.trust`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

CLUSTER_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "local_cluster": (
        "dashboard_address", "death_timeout", "host", "interface", "lifetime", "lifetime_restart",
        "lifetime_stagger", "local_directory", "memory_limit", "name", "processes", "resources",
        "scheduler_port", "security", "silence_logs",
    ),
    "local_gpus": (
        "dashboard_address", "death_timeout", "host", "interface", "lifetime", "lifetime_restart",
        "lifetime_stagger", "local_directory", "memory_limit", "name", "nthreads", "resources",
        "scheduler_port", "security", "silence_logs",
    ),
    "slurm": (
        "account", "cores", "death_timeout", "host", "interface", "job_cpu", "job_directives_skip",
        "job_extra_directives", "job_mem", "job_name", "job_script_prologue", "local_directory",
        "log_directory", "memory", "name", "nanny", "processes", "python", "queue",
        "scheduler_options", "security", "shared_temp_directory", "shebang", "silence_logs", "walltime",
        "worker_extra_args",
    ),
    "kubernetes": (
        "custom_cluster_spec", "env", "idle_timeout", "image", "name", "namespace",
        "port_forward_cluster_ip", "quiet", "resource_timeout", "resources", "scheduler_forward_port",
        "scheduler_service_type", "shutdown_on_close", "volume_mounts", "volumes", "worker_command",
    ),
}  # fmt: skip
SCHEDULER_OPTIONS = (
    "contact_address", "dashboard_address", "host", "idle_timeout", "interface", "port",
)  # fmt: skip
"""Names of the options that ``scheduler_options`` of Slurm accepts."""
HOW_TO_TLS = (
    "make certificates with `python deployments/certificates.py FOLDER`, and let the scheduler, its workers "
    "and this process know them with `source deployments/tls.sh FOLDER`"
)
"""What to do where certificates are missing, for messages."""


def refuse_unknown_options(kind: str, cluster: Mapping[str, Any]) -> None:
    """Check the names of cluster options.

    Runners that start no cluster accept the options of all kinds, unused.

    Args:
        kind: ``runner.kind``.
        cluster: ``runner.cluster``.

    Raises:
        ValueError: the kind of runner does not accept an option; the message lists those that it accepts.
    """
    all_names = {name for names in CLUSTER_OPTIONS.values() for name in names}
    known = CLUSTER_OPTIONS.get(kind, tuple(sorted(all_names)))
    _refuse("runner.cluster", kind, cluster, known)
    scheduler_options = cluster.get("scheduler_options", {})
    if not isinstance(scheduler_options, Mapping):
        raise ValueError(
            f"runner.cluster.scheduler_options should hold options, got {scheduler_options!r}; "
            "write for example {dashboard_address: ':8787'}"
        )
    _refuse("runner.cluster.scheduler_options", kind, scheduler_options, SCHEDULER_OPTIONS)
    if cluster.get("security", True) is not True:
        raise ValueError(
            f"runner.cluster.security={cluster['security']!r}: a cluster that a run starts always has "
            "certificates of its own; leave the option out"
        )


def refuse_plain(kind: str, address: str | None, allowed: bool) -> None:
    """Check that others on the network can neither read what Dask sends nor run code in its workers.

    Args:
        kind: ``runner.kind``.
        address: ``runner.address``.
        allowed: ``runner.allow_plain``.

    Raises:
        ValueError: connections would be made without TLS to another host, and this is not allowed.
    """
    if allowed:
        return
    if kind == "kubernetes":
        raise ValueError(
            "runner.kind=kubernetes: Dask's operator knows no TLS, so whoever reaches its scheduler in the "
            "cluster's network can run code in it. Apply deployments/kubernetes, whose network policy keeps "
            "other pods away, and set runner.allow_plain=true; or use a scheduler with certificates "
            "(runner.kind=address)"
        )
    if kind == "address" and not _is_tls_or_loopback(address or ""):
        raise ValueError(
            f"runner.address={address} is on another host and without TLS: whoever reaches that scheduler "
            f"can run code in it, and read what it is sent. Use tls://HOST:PORT: {HOW_TO_TLS}. On a network "
            "that is closed to others set runner.allow_plain=true"
        )


def _is_tls_or_loopback(address: str) -> bool:
    scheme, _, place = address.rpartition("://")
    host = place.rpartition(":")[0] or place
    if scheme == "tls":
        return True
    if scheme not in ("", "tcp"):
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name
        return False


def _refuse(section: str, kind: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"{section}.{unknown[0]} is no option that runner.kind={kind} takes; it takes {', '.join(known)}"
        )
