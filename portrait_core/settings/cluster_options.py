"""Options of ``runner.cluster`` that are accepted, by ``runner.kind``.

They become arguments of classes of other libraries. Some of those arguments name code that is imported
(``preload``, ``worker_class``, ``scheduler_cls``, ``plugins``) or open a network service (``jupyter``), and
no run needs them, so the list is closed. Some accepted options do run commands: the operator chooses a Slurm
job's prologue and a pod's program. Therefore settings of the runner come from the command and from the
profile that it names, never from a stored job or a manifest (:mod:`portrait_core.settings.trust`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLUSTER_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "local_cluster": (
        "dashboard_address", "death_timeout", "host", "interface", "lifetime", "lifetime_restart",
        "lifetime_stagger", "local_directory", "memory_limit", "name", "processes", "protocol", "resources",
        "scheduler_port", "security", "silence_logs", "worker_dashboard_address",
    ),
    "local_gpus": (
        "death_timeout", "host", "interface", "lifetime", "lifetime_restart", "lifetime_stagger",
        "local_directory", "memory_limit", "nthreads", "protocol", "resources", "silence_logs",
    ),
    "slurm": (
        "account", "cores", "death_timeout", "host", "interface", "job_cpu", "job_directives_skip",
        "job_extra_directives", "job_mem", "job_name", "job_script_prologue", "local_directory",
        "log_directory", "memory", "name", "nanny", "processes", "protocol", "python", "queue",
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
    "contact_address", "dashboard_address", "host", "idle_timeout", "interface", "port", "protocol",
)  # fmt: skip
"""Names of the options that ``scheduler_options`` of Slurm accepts."""


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


def _refuse(section: str, kind: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(
            f"{section}.{unknown[0]} is no option that runner.kind={kind} takes; it takes {', '.join(known)}"
        )
