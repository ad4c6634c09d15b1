"""End of every command: exit codes, and one paragraph about what went wrong."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from flows.display.console import make_console, print_error
from flows.engine.environment import limit_threads
from portrait_core.settings.threads import cpu_threads

if TYPE_CHECKING:
    from portrait_core.settings import Settings


__all__ = [
    "BAD_INPUT",
    "INTERRUPTED",
    "OK",
    "PARTIAL",
    "OptionError",
    "known_stages",
    "make_console",
    "of_option",
    "prepared_settings",
    "print_error",
    "reported_errors",
]

OK, PARTIAL, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def prepared_settings(profile: str, change: list[str]) -> Settings:
    """Load settings, apply them to this process, and fix its threads before anything heavy is imported."""
    from portrait_core.settings import guard_process, load_settings

    chosen = load_settings(profile, change)
    guard_process(chosen)
    limit_threads(cpu_threads(chosen))
    return chosen


def known_stages(names: Sequence[str], goals: Sequence[str] | None = ("clip",)) -> list[str]:
    """Check names of stages given on the command line.

    Args:
        names: the names.
        goals: pipelines whose stages may be named; None allows those of all.

    Returns:
        The names in the order of the pipelines.

    Raises:
        ValueError: a stage does not exist; the message lists all stages.
    """
    import tasks.pipelines  # noqa: F401 - registers the pipelines
    from portrait_core.pipeline import all_pipelines, find_pipeline

    chosen = all_pipelines() if goals is None else [find_pipeline(goal) for goal in goals]
    stages = list(dict.fromkeys(stage for pipeline in chosen for stage in pipeline.names))
    unknown = [name for name in names if name not in stages]
    if unknown:
        raise ValueError(f"there is no stage {', '.join(unknown)}; the stages are {', '.join(stages)}")
    return [stage for stage in stages if stage in names]


class OptionError(ValueError):
    """A value of an option cannot be used.

    Attributes:
        role: name of the option, without its dashes.
    """

    def __init__(self, role: str, text: str) -> None:
        self.role = role
        super().__init__(text)


@contextmanager
def of_option(name: str) -> Iterator[None]:
    """Say of an unusable input inside of the ``with`` block which option it came from.

    Args:
        name: name of the option, without its dashes.
    """
    from portrait_core.errors import InputError

    try:
        yield
    except InputError as error:
        raise OptionError(getattr(error, "role", name), str(error)) from error


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn errors that a user can fix into one paragraph and an exit code.

    Exit code 2 for invalid input, 1 for a stage that stopped, 130 for an interruption.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_error(
            "Interrupted", "what is finished is in the store; give the same command again to continue"
        )
        # Worker threads may be inside native code that no signal reaches; what they wrote is committed.
        os._exit(INTERRUPTED)
    except ValueError as error:
        role = getattr(error, "role", "")  # of a portrait or a video, which an option of that name gave
        print_error(f"Invalid input (--{role})" if role else "Invalid input", str(error))
        raise typer.Exit(BAD_INPUT) from None
    except OSError as error:  # of a disk, a store or a network rather than the program
        full = " Free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else " Fix the cause"
        print_error(
            "Stopped", f"{error}.{full}, then give the same command again: what is finished is in the store"
        )
        raise typer.Exit(PARTIAL) from None
    except RuntimeError as error:
        if type(error).__name__ != "StageError":
            raise
        print_error("Stopped", str(error))
        if type(error.__cause__).__name__ == "StalledTaskError":
            os._exit(PARTIAL)  # a thread that hangs would keep the process alive
        raise typer.Exit(PARTIAL) from None
