"""What Prefect's pages show of the work inside a flow run: one task run per clip and stage."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from portrait_core.pipeline.classification import StalledTaskError, breaks_gpu
from tasks.running import WORKER_ENDED

R = TypeVar("R")
own_process: ContextVar[bool] = ContextVar("own_process", default=True)
"""Whether a flow run has this process for itself, as where a worker of Prefect's started it."""


@contextmanager
def process_left() -> Iterator[None]:
    """End a flow run's own process when it cannot use the GPU any more, or a thread of it hangs: Prefect
    takes the run for crashed, and its automation starts it again in another process. An ordinary error would
    be retried in this one.
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
        raise


def as_task_run(name: str, title: str, tags: Sequence[str], function: Callable[[], R]) -> R:
    """Call a function as a task run of the Prefect flow run that is at work in this context; plainly where
    there is none.

    The function runs in this thread: ranges of frames inside it are plain futures of threads or of Dask, and
    retries are theirs (:func:`tasks.running.run_call`). Prefect keeps neither results nor a cache of them:
    the store says what is done.

    Args:
        name: of the task, the same for all clips.
        title: of this run of it.
        tags: by which Prefect's pages and concurrency limits find it.
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
        task_run_name=title.replace("{", "(").replace("}", ")"),
        cache_policy=NO_CACHE,
        persist_result=False,
    )(function)
    with with_tags(*tags, f"stage:{name}"):
        return observed()
