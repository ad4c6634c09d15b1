"""Errors of usage, which Typer prints: they quote arguments, and arguments may come from a stranger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from portrait_core.text.visible import shown


class SafeGroup(TyperGroup):
    """The program's commands: their errors of usage hold no secrets and nothing that a terminal obeys."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Parse arguments of the program."""
        with _cleaned_errors():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        """Parse arguments of a command, and run it."""
        with _cleaned_errors():
            return super().invoke(ctx)


@contextmanager
def _cleaned_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        format_message = getattr(error, "format_message", None)  # those that Typer prints itself
        if format_message is not None:
            message = shown(format_message())
            if "unexpected extra argument" in message:  # a shell writes out patterns that are not quoted
                message += " A pattern is given in quotes: 'faces/*.jpg'."
            error.format_message = lambda: message  # type: ignore[attr-defined]
        raise
