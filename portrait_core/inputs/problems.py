"""Problems of a table that a user gave: where they are, how many are kept, and the error that tells them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from portrait_core.errors import InputError, clipped
from portrait_core.store.places import redact_place
from portrait_core.text.visible import visible

MAX_SHOWN = 50
"""Number of problems that an error's message shows."""
MAX_HELD = 1_000
"""Number of problems of a table that are kept; of the others only the number."""
_MAX_TEXT = 2_000
"""Characters of a problem's text."""


@dataclass(frozen=True, order=True, slots=True)
class Problem:
    """A problem of a manifest."""

    row: int
    """Number of its row; 0 stands for the file as a whole."""
    text: str
    """The problem and the advice."""

    def __str__(self) -> str:
        return visible(f"row {self.row}: {self.text}" if self.row else self.text)


class Problems(list[Problem]):
    """Problems of a table, as they are found: the first :data:`MAX_HELD` of them.

    Attributes:
        rows: numbers of all rows with a problem.
        more: number of problems that are not kept.
    """

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        super().__init__()
        self.rows: set[int] = set()
        self.more = 0
        for problem in problems:
            self.add(problem.row, problem.text)

    def add(self, row: int, text: str) -> None:
        """Add a problem of a row."""
        self.rows.add(row)
        if len(self) < MAX_HELD:
            self.append(Problem(row, clipped(text, _MAX_TEXT)))
        else:
            self.more += 1

    def ordered(self) -> Problems:
        """Return the problems in the order of their rows, each once."""
        found = Problems(sorted(set(self)))
        found.rows, found.more = set(self.rows), self.more
        return found


class ManifestError(InputError):
    """A manifest is unusable.

    Attributes:
        url: path or URL of the manifest.
        problems: the problems; the message shows the first :data:`MAX_SHOWN`.
        more: number of further problems.
    """

    _all = "`portrait dataset check` lists them all"
    _first = f"`portrait dataset check` lists the first {MAX_HELD:,}"

    def __init__(self, url: str, problems: Sequence[Problem], more: int = 0) -> None:
        self.url = url
        self.problems = tuple(problems)
        self.more = more
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        count = len(self.problems) + more
        if count > MAX_SHOWN:
            lines.append(f"and {count - MAX_SHOWN:,} more; {self._first if more else self._all}")
        rows = "" if more else f" in {len({problem.row for problem in self.problems})} rows"
        name = redact_place(url)
        head = f"{name}: {count:,} problems{rows}; nothing was started"
        super().__init__("\n".join([head, *lines]) if count > 1 else f"{name}: {lines[0]}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.problems, self.more)
