"""Environment that must be set before numpy, torch or Prefect are imported: threads and Prefect's settings.

Imports nothing but the standard library, and of portrait_core only what does the same.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from portrait_core.errors import InputError
from portrait_core.runtime.caches import cache_folder
from portrait_core.text.redaction import holds_secrets, redact_text

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    # A lost server is reported once, by this program; without these settings the client waits two minutes in
    # every call, and its background threads print each event that they cannot deliver.
    "PREFECT_CLIENT_MAX_RETRIES": "3",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    # The temporary server's start takes longer than the default 20 s on a busy machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "DASK_LOGGING__DISTRIBUTED": "error",
}

DASK_CONFIG = {
    # Workers that run native code answer late; the default of 15 s would take them for dead.
    "distributed.deploy.lost-worker-timeout": "180s",
    "distributed.comm.timeouts.connect": "60s",
    "distributed.admin.tick.limit": "60s",
    # A task whose worker died is returned at once: the flow determines which frame it was
    # (flows/engine/stages.py).
    "distributed.scheduler.allowed-failures": 0,
    # The profiler reads all threads' frames every 10 ms. In Python 3.11 (CPython issue 106883, not fixed
    # there) that can deadlock with a garbage collection: the worker and its heartbeat stop for ever.
    # Observed on S3, where the threads of requests make it likely.
    "distributed.worker.profile.enabled": False,
}


def limit_threads(threads: int) -> None:
    """Fix the number of threads of OpenMP and OpenBLAS where the user has not.

    By default, their threads spin while they wait: measured 5 to 10 times slower as soon as another process
    occupies a core. Passive waiting and one BLAS thread avoid that; spinning for some microseconds first
    saves the cost of sleeping between consecutive operations (tuning on 2 cores: 0.48 s instead of 0.74 s per
    step).
    """
    for name, value in _thread_variables(threads).items():
        os.environ.setdefault(name, value)


def _thread_variables(threads: int) -> dict[str, str]:
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "20000",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
    }


def worker_variables(threads: int) -> dict[str, str]:
    """Return the environment of a Dask worker or scheduler that is not a child of this process.

    It holds what this process sets for itself, and Dask's settings as Dask reads them from the environment.
    """
    dask = {_dask_variable(name): str(value) for name, value in DASK_CONFIG.items()}
    return {**QUIET, **_thread_variables(threads), **dask}


def _dask_variable(name: str) -> str:
    return "DASK_" + name.replace(".", "__").replace("-", "_").upper()


def quiet_orchestrators() -> None:
    """Keep Prefect and Dask offline and quiet, and out of the user's home unless Prefect is set up there."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    set_log_levels()
    if "PREFECT_HOME" not in os.environ and not (Path.home() / ".prefect" / "profiles.toml").exists():
        home = cache_folder("prefect")
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["PREFECT_HOME"] = str(home)


def refuse_secrets(parameters: Iterable[object]) -> None:
    """Check what Prefect's server would store as parameters of a flow run.

    Args:
        parameters: texts, lists of texts, and values that cannot hold secrets.

    Raises:
        ValueError: there are credentials in overrides, or a URL with a password or a signature.
    """
    texts = [
        text
        for one in parameters
        for text in (one if isinstance(one, list | tuple) else [one])
        if isinstance(text, str)
    ]
    if any(text.partition("=")[0].strip().startswith("runner.storage_options") for text in texts):
        raise ValueError(
            "Prefect's server would store runner.storage_options unencrypted: pass credentials in the "
            "environment (AWS_ACCESS_KEY_ID ...), in a secret block (deployments/README.md) or in a "
            "profile's file, or set runner.prefect=never"
        )
    secret = next(filter(holds_secrets, texts), None)
    if secret is not None:
        raise ValueError(
            f"Prefect's server would store {redact_text(secret)} with its password, key or signature "
            "unencrypted: give a URL without one, with credentials in the environment, or set "
            "runner.prefect=never"
        )


def set_log_levels() -> None:
    """Let this program's loggers report below the level of warnings where Prefect's loggers do.

    Prefect attaches its handlers to the loggers that ``PREFECT_LOGGING_EXTRA_LOGGERS`` names, and does not
    set their levels. Warnings always reach the user, whatever Prefect's level is.
    """
    level = logging.getLevelNamesMapping().get(os.environ.get("PREFECT_LOGGING_LEVEL", ""), logging.WARNING)
    if level < logging.WARNING:
        for name in ("portrait_core", "tasks", "flows"):
            logging.getLogger(name).setLevel(level)


_lost = False


def end_process(code: int) -> None:
    """End the process at once if Prefect's server went away.

    Otherwise its client would try for minutes to deliver what it has not yet told the server.
    """
    if _lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def prefect_server() -> str | None:
    """Return the address of the Prefect server that the user has named, or None."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


@contextmanager
def closed_temporary_server() -> Iterator[None]:
    """Give the temporary server that Prefect may start in this block a password that only this process knows.

    Without one, any user of this machine, and any web page that one of them opens, may use it. It listens on
    this host only, without TLS, which Prefect's temporary server does not have. Where a server is named,
    nothing changes.
    """
    if prefect_server() is not None:
        yield
        return
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_SERVER_API_AUTH_STRING,
        temporary_settings,
    )

    password = f"portrait:{secrets.token_urlsafe(32)}"
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: password, PREFECT_API_AUTH_STRING: password}):
        yield


def server_for_run(wish: str, report: Callable[[str], None]) -> str | None:
    """Return the address of the Prefect server to run under, or None, and report which.

    Args:
        wish: ``runner.prefect``; "never" asks for none.
        report: shows a line to the user.

    Raises:
        InputError: ``wish`` is "always", and the server wants an authentication string that it was not given.
    """
    server = prefect_server() if wish != "never" else None
    if server is None:
        return None
    if not prefect_server_answers(server):
        report(f"no Prefect server answers at {server}: running without it")
        return None
    if refused := prefect_server_refuses(server):
        if wish == "always":
            raise InputError(refused)
        report(f"{refused}; running without it")
        return None
    report(f"Prefect shows this run at {prefect_ui(server)}")
    return server


def server_went_away(server: str | None, report: Callable[[str], None]) -> bool:
    """Tell whether a flow run failed because its server is gone, so that it can continue without.

    If so, reports it and notes it for :func:`end_process`.
    """
    if server is None or prefect_server_answers(server):
        return False
    global _lost
    _lost = True
    report(f"the Prefect server at {server} went away: continuing without it")
    return True


def prefect_ui(server: str) -> str:
    """Return the address of a Prefect server's pages, from that of its API."""
    from prefect.settings import get_current_settings

    return get_current_settings().ui_url or server.rstrip("/").removesuffix("/api")


def prefect_server_answers(url: str, timeout_s: float = 3.0) -> bool:
    """Tell whether a Prefect server answers at ``url``."""
    import httpx

    try:
        return httpx.get(url.rstrip("/") + "/health", timeout=timeout_s).is_success
    except httpx.HTTPError:
        return False


def prefect_server_refuses(url: str, timeout_s: float = 10.0) -> str | None:
    """Return why a Prefect server does not take requests of this process, and what to do; None if it does."""
    import httpx
    from prefect.settings import get_current_settings

    known = get_current_settings().api.auth_string
    name, _, password = (known.get_secret_value() if known else "").partition(":")
    try:
        answer = httpx.get(url.rstrip("/") + "/admin/version", auth=(name, password), timeout=timeout_s)
    except httpx.HTTPError:
        return None
    if answer.status_code != httpx.codes.UNAUTHORIZED:
        return None
    wrong = "is not the one" if known else "is not set; set it to the NAME:PASSWORD"
    return (
        f"the Prefect server at {url} refuses this command: PREFECT_API_AUTH_STRING {wrong} that it was "
        "started with"
    )
