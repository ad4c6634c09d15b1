"""Flows that show what a deployment gives to its runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextvars import copy_context
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Failed

_log = logging.getLogger("flows.toy")


def _in_thread(name: str) -> None:
    thread = threading.Thread(target=copy_context().run, args=(_log.warning, f"from {name}"))
    thread.start()
    thread.join()


@task(name="inner")
def _inner() -> None:
    _log.warning("from a task")
    _in_thread("a thread of a task")


@flow(name="speak")
def speak(variable: str) -> None:
    """Log from where the program logs, and what a variable of the environment holds."""
    _log.warning("from the flow: %s", os.environ.get(variable))
    _in_thread("a thread")
    bare = threading.Thread(target=_log.warning, args=("from a thread without context",))
    bare.start()
    bare.join()
    _inner()


@flow(name="partial")
def partial() -> State[Any]:
    """Fail while the flow may be retried, then end as partly done."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    assert context.flow is not None
    if context.flow_run.run_count <= context.flow.retries:
        raise RuntimeError("1 of 2 clips failed")
    return Failed(name="Partial", message="1 of 2 clips failed")


@flow(name="endless")
def endless(folder: str, words: list[str]) -> None:
    """Note process and parameters, and never end."""
    with (Path(folder) / "begun.txt").open("a") as file:
        file.write(f"{os.getpid()} {' '.join(words)}\n")
    time.sleep(10_000)
