"""Everything that Python itself prints: records of logs, warnings, errors that nobody caught."""

from __future__ import annotations

import io
import logging
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from types import TracebackType
from typing import Any

from portrait_core.text.visible import shown_lines


def guard_output() -> None:
    """Let logs, warnings and tracebacks of this process hold no secrets and nothing that a terminal obeys.

    Of logs it is the records that are cleaned when they are made, so that every handler gets clean ones: the
    terminal's, Prefect's, Dask's and files'. What another library has put in place of Python's own hooks
    stays. Calls after the first change nothing.
    """
    before = logging.getLogRecordFactory()
    if getattr(before, "cleans", False):
        return

    def make(*arguments: Any, **named: Any) -> logging.LogRecord:
        return _cleaned(before(*arguments, **named))

    make.cleans = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make)
    written = warnings.formatwarning
    warnings.formatwarning = lambda *arguments, **named: f"{shown_lines(written(*arguments, **named))}\n"
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda said: _print_uncaught(said.exc_type, said.exc_value, said.exc_traceback)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = lambda said: _print_uncaught(said.exc_type, said.exc_value, said.exc_traceback)


def _cleaned(record: logging.LogRecord) -> logging.LogRecord:
    """Write a record's message and traceback out, clean."""
    with suppress(Exception):  # of a wrong format, which the handlers report
        record.msg, record.args = shown_lines(record.getMessage()), None
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        record.exc_text = shown_traceback(record.exc_info[1])
    return record


def shown_traceback(error: BaseException | None) -> str:
    """Return an error's traceback, with its causes, as it may be printed."""
    return shown_lines("".join(traceback.format_exception(error))) if error is not None else ""


def _print_uncaught(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    if error is not None and not issubclass(kind or type(error), SystemExit):
        with suppress(Exception):
            print(shown_traceback(error), file=sys.stderr)


def print_any_character() -> None:
    """Let the standard streams write characters that their encoding lacks as escapes, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
