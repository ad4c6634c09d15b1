"""What is said of a dataset run while it runs: to a terminal, and to Prefect's pages."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from rich.console import Console

    from flows.dataset_run import ClipResult

_log = logging.getLogger(__name__)
SHOWN_FAILURES = 200
"""Failures in the table of Prefect's pages; all are in the store."""


class Board(Protocol):
    """Hears what happens, from many threads."""

    interval_s: float
    """Seconds between two calls of :meth:`show`."""

    def begin(self, total: int) -> None:
        """So many clips."""

    def began(self, name: str) -> None:
        """A clip is at work."""

    def said(self, name: str, line: str) -> None:
        """A clip reports something."""

    def ended(self, result: ClipResult) -> None:
        """A clip is over."""

    def show(self) -> None:
        """Show how far it is."""


class Tally:
    """Counts what happened; the part that all boards share."""

    interval_s = 10.0

    def __init__(self) -> None:
        self.total = 0
        self.results: list[ClipResult] = []
        self.at_work: dict[str, float] = {}
        self._begun = time.monotonic()
        self._lock = threading.Lock()

    def begin(self, total: int) -> None:
        """So many clips."""
        self.total, self._begun = total, time.monotonic()

    def began(self, name: str) -> None:
        """A clip is at work."""
        with self._lock:
            self.at_work[name] = time.monotonic()

    def said(self, name: str, line: str) -> None:
        """A clip reports something."""

    def ended(self, result: ClipResult) -> None:
        """A clip is over."""
        with self._lock:
            self.at_work.pop(result.name, None)
            self.results.append(result)

    def show(self) -> None:
        """Show nothing; boards that print override this."""

    @staticmethod
    def counts(results: Sequence[ClipResult]) -> dict[str, int]:
        """Clips by outcome."""
        return dict(Counter(result.outcome for result in results))

    def line(self) -> str:
        """How far it is, in a line."""
        with self._lock:
            results, at_work = list(self.results), sorted(self.at_work)
            now = time.monotonic()
            oldest = max((now - began for began in self.at_work.values()), default=0.0)
        over = len(results)
        counts = ", ".join(f"{count} {name}" for name, count in sorted(self.counts(results).items()))
        # one that was finished before says nothing of how long the others take
        least = max(1.0, oldest / 5)
        made = [result for result in results if result.outcome in ("done", "held") and result.seconds > least]
        left = ""
        if made and over < self.total:
            rate = (now - self._begun) / len(made)
            left = f", about {rate * (self.total - over) / 60:.0f} min left"
        work = f"; at work: {', '.join(at_work[:4])}{' ...' if len(at_work) > 4 else ''}" if at_work else ""
        return f"{over} of {self.total} clips{': ' + counts if counts else ''}{left}{work}"


class TerminalBoard(Tally):
    """Lines on a terminal or in a log file."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._shown = ""

    def said(self, name: str, line: str) -> None:
        """A clip reports something."""
        self._console.print(f"{name}: {line}", markup=False, soft_wrap=True)

    def ended(self, result: ClipResult) -> None:
        """A clip is over."""
        super().ended(result)
        if result.outcome not in ("done", "stopped"):
            self._console.print(
                f"row {result.number}, {result.name}: {result.outcome}: {result.message}",
                markup=False,
                soft_wrap=True,
            )

    def show(self) -> None:
        """Show how far it is, if that changed."""
        if (line := self.line()) != self._shown:
            self._shown = line
            self._console.print(line, markup=False, soft_wrap=True)


class ArtifactBoard(Tally):
    """A progress bar and a table of failures with the flow run, and its log."""

    interval_s = 15.0

    def said(self, name: str, line: str) -> None:
        """A clip reports something."""
        _log.warning("%s: %s", name, line)

    def ended(self, result: ClipResult) -> None:
        """A clip is over."""
        super().ended(result)
        level = logging.INFO if result.outcome in ("done", "held") else logging.WARNING
        _log.log(level, "row %d, %s: %s %s", result.number, result.name, result.outcome, result.message)

    def __init__(self) -> None:
        super().__init__()
        self._progress: UUID | None = None
        self._tabled = -1

    def show(self) -> None:
        """Bring both up to date. A server that does not answer stops nothing."""
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

        share = 100.0 * len(self.results) / max(1, self.total)
        if self._progress is None:
            made = create_progress_artifact(share, key="dataset-progress", description=self.line())
            self._progress = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(self._progress, share, description=self.line())
        failed = [r for r in self.results if r.outcome in ("failed", "aside", "held")]
        if len(failed) == self._tabled:  # each table is kept: one every 15 s would fill the server's database
            return
        rows = [
            {"row": r.number, "clip": r.name, "outcome": r.outcome, "why": r.message[:300]}
            for r in failed[-SHOWN_FAILURES:]
        ]
        create_table_artifact(rows, key="dataset-failures", description=f"{len(failed)} clips")
        self._tabled = len(failed)
