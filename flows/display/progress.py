"""Progress reports of a dataset run: to a terminal and to Prefect's pages."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from portrait_core.text.markdown import escape_markdown, markdown_cells

if TYPE_CHECKING:
    from rich.console import Console

    from flows.dataset_run import ClipResult

_log = logging.getLogger(__name__)
SHOWN_FAILURES = 200
"""Maximum number of failures in the table of Prefect's pages; all are in the store."""


class Board(Protocol):
    """Receives the events of a run, from many threads."""

    interval_s: float
    """Seconds between two calls of :meth:`show`."""

    def begin(self, total: int) -> None:
        """Begin a run of ``total`` clips."""

    def began(self, name: str) -> None:
        """Note that a clip is at work."""

    def report(self, name: str, line: str) -> None:
        """Report a line about a clip."""

    def ended(self, result: ClipResult) -> None:
        """Note that a clip has ended."""

    def show(self) -> None:
        """Show the progress."""


class Tally:
    """Counts events; base of all boards."""

    interval_s = 10.0

    def __init__(self) -> None:
        self.total = 0
        self.results: list[ClipResult] = []
        self.at_work: dict[str, float] = {}
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def begin(self, total: int) -> None:
        """Begin a run of ``total`` clips."""
        with self._lock:
            self.total, self._begun = total, time.monotonic()
            self.results, self.at_work = [], {}

    def began(self, name: str) -> None:
        """Note that a clip is at work."""
        with self._lock:
            self.at_work[name] = time.monotonic()

    def report(self, name: str, line: str) -> None:
        """Report a line about a clip."""

    def ended(self, result: ClipResult) -> None:
        """Note that a clip has ended."""
        with self._lock:
            self.at_work.pop(result.name, None)
            self.results.append(result)

    def show(self) -> None:
        """Show nothing; boards that print override this."""

    @staticmethod
    def counts(results: Sequence[ClipResult]) -> dict[str, int]:
        """Count clips per outcome."""
        return dict(Counter(result.outcome for result in results))

    def line(self) -> str:
        """Describe the progress in one line."""
        with self._lock:
            results, at_work = list(self.results), sorted(self.at_work)
            now = time.monotonic()
            oldest = max((now - began for began in self.at_work.values()), default=0.0)
        over = len(results)
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.counts(results).items()))
        # a clip that was finished earlier does not tell how long the others take
        minimum_s = max(1.0, oldest / 5)
        computed = [r for r in results if r.outcome in ("done", "held") and r.seconds > minimum_s]
        left = ""
        if computed and over < self.total:
            seconds_per_clip = (now - self._begun) / len(computed)
            left = f", about {seconds_per_clip * (self.total - over) / 60:.0f} min left"
        work = f"; at work: {', '.join(at_work[:4])}{' ...' if len(at_work) > 4 else ''}" if at_work else ""
        return f"{over} of {self.total} clips{': ' + counts if counts else ''}{left}{work}"


class TerminalBoard(Tally):
    """Prints lines on a terminal or into a log file."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._shown = ""

    def report(self, name: str, line: str) -> None:
        """Report a line about a clip."""
        self._console.print(f"{name}: {line}", soft_wrap=True)

    def ended(self, result: ClipResult) -> None:
        """Note that a clip has ended, and print its failure."""
        super().ended(result)
        if result.outcome not in ("done", "stopped"):
            self._console.print(
                f"row {result.number}, {result.name}: {result.outcome}: {result.message}",
                soft_wrap=True,
            )

    def show(self) -> None:
        """Print the progress, if it changed."""
        if (line := self.line()) != self._shown:
            self._shown = line
            self._console.print(line, soft_wrap=True)


class ArtifactBoard(Tally):
    """Maintains a progress bar and a table of failures of the flow run, and its log."""

    interval_s = 15.0

    def report(self, name: str, line: str) -> None:
        """Report a line about a clip."""
        _log.warning("%s: %s", name, line)

    def ended(self, result: ClipResult) -> None:
        """Note that a clip has ended, and log its outcome."""
        super().ended(result)
        level = logging.INFO if result.outcome in ("done", "held") else logging.WARNING
        _log.log(level, "row %d, %s: %s %s", result.number, result.name, result.outcome, result.message)

    def __init__(self) -> None:
        super().__init__()
        self._progress: UUID | None = None
        self._tabled = -1

    def show(self) -> None:
        """Update both. A server that does not answer stops nothing."""
        try:
            self._show()
        except Exception as error:
            _log.warning("progress is not shown on Prefect's pages: %s", error)

    def _show(self) -> None:
        from prefect.artifacts import (
            create_progress_artifact,
            create_table_artifact,
            update_progress_artifact,
        )

        line = escape_markdown(self.line())
        percent = 100.0 * len(self.results) / max(1, self.total)
        if self._progress is None:
            created = create_progress_artifact(percent, key="dataset-progress", description=line)
            self._progress = created if isinstance(created, UUID) else None
        else:
            update_progress_artifact(self._progress, percent, description=line)
        failed = [r for r in self.results if r.outcome in ("failed", "aside", "held")]
        if len(failed) == self._tabled:  # the server keeps each table: one per 15 s would fill its database
            return
        rows = [
            markdown_cells({"row": r.number, "clip": r.name, "outcome": r.outcome, "why": r.message[:300]})
            for r in failed[-SHOWN_FAILURES:]
        ]
        create_table_artifact(rows, key="dataset-failures", description=f"{len(failed)} clips")
        self._tabled = len(failed)
