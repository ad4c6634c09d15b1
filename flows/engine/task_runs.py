"""Task runs inside a Prefect flow run: one per clip and stage, for Prefect's pages."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from flows.engine.environment import set_log_levels
from portrait_core.errors import InputError
from portrait_core.pipeline.classification import StalledTaskError, breaks_gpu
from portrait_core.settings import Settings, guard_process, load_settings
from portrait_core.text.redaction import redact_text
from portrait_core.text.visible import shown
from tasks.running import WORKER_ENDED

R = TypeVar("R")
own_process: ContextVar[bool] = ContextVar("own_process", default=True)
"""True if a flow run has this process for itself, as when a Prefect worker started it."""


def settings_of_flow(profile: str, overrides: Sequence[str]) -> Settings:
    """Load the settings of a flow run, and apply them to its process, with which every flow begins.

    Raises:
        ValueError: as :func:`~portrait_core.settings.load_settings`.
    """
    set_log_levels()
    settings = load_settings(profile, overrides)
    guard_process(settings)
    return settings


@contextmanager
def process_left() -> Iterator[None]:
    """End a flow run's own process when it cannot use the GPU any more or one of its threads hangs.

    Prefect then takes the run for crashed, and its automation starts it again in another process. An ordinary
    error would be retried in this one. Its message, which Prefect's server keeps, holds no secrets.
    """
    try:
        yield
    except RuntimeError as error:
        if own_process.get() and isinstance(error.__cause__, StalledTaskError):
            logging.getLogger(__name__).error("%s", error)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(WORKER_ENDED)  # a thread that hangs would keep the process
        if own_process.get() and error.__cause__ is not None and breaks_gpu(error.__cause__):
            logging.getLogger(__name__).error("%s", error)
            raise SystemExit(WORKER_ENDED) from error
        _raise_without_secrets(error)
        raise
    except Exception as error:
        _raise_without_secrets(error)
        raise


def _raise_without_secrets(error: Exception) -> None:
    """Raise another error in place of one whose message Prefect's server must not keep; else do nothing."""
    if (message := redact_text(str(error))) != str(error):
        kinds = (InputError, MemoryError, ConnectionError, OSError, ValueError)
        raise next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)(message) from None


def run_title(text: str) -> str:
    """Return a text as the name of a run: in one line, without braces, which Prefect takes for fields."""
    return shown(text).replace("{", "(").replace("}", ")")


def as_task_run(name: str, title: str, tags: Sequence[str], function: Callable[[], R]) -> R:
    """Call a function as a task run of the current Prefect flow run, or plainly where there is none.

    The function runs in this thread: ranges of frames inside it are plain futures of threads or of Dask, with
    their own retries (:func:`tasks.running.run_call`). Prefect keeps neither results nor a cache of them,
    since the store records what is done.

    Args:
        name: name of the task, the same for all clips.
        title: title of this run of the task.
        tags: tags by which Prefect's pages and concurrency limits find it.
        function: the work.
    """
    if "prefect" not in sys.modules:
        return function()
    from prefect import tags as with_tags
    from prefect import task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return function()
    observed = task(
        name=name,
        task_run_name=run_title(title),
        cache_policy=NO_CACHE,
        persist_result=False,
    )(function)
    with with_tags(*map(run_title, tags), f"stage:{name}"):
        return observed()
