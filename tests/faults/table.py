"""What was injected and what happened, a row a test, printed at the end of the test run."""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass

from tests.faults.events import committed, done_again, recomputed
from tests.faults.runs import Bench, Run, last_line

HEADINGS = (
    "fault",
    "where",
    "times",
    "starts",
    "committed before",
    "recomputed",
    "done again",
    "equal result",
    "user saw",
    "seconds",
)
_LONGEST = 70


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    where: str
    times: int
    """How often it was injected."""
    starts: int
    """How often the command was given."""
    committed_before: int
    """Frames of stages that were committed when the last fault struck."""
    recomputed: int
    """Frames of stages that were made more than once."""
    done_again: int
    """Of those, the ones that had been committed."""
    equal: str
    saw: str
    """Exit code and last line of the run that was struck (or of the last one, where all were killed)."""
    seconds: float

    def cells(self) -> list[str]:
        """As text."""
        return [f"{value:.0f}" if isinstance(value, float) else str(value) for value in astuple(self)]


ROWS: list[Row] = []


def add_row(
    bench: Bench, fault: str, where: str, times: int, before: int, differences: list[str], struck: Run
) -> Row:
    """Put the counts of a bench into the table."""
    code = struck.wait(1)
    last = last_line(struck.output)
    said = f"{code}: {last[:_LONGEST]}" if last else str(code)
    row = Row(
        fault=fault,
        where=where,
        times=times,
        starts=bench.starts,
        committed_before=before,
        recomputed=recomputed(bench.events),
        done_again=sum(done_again(bench.events).values()),
        equal="no: " + ", ".join(differences[:3]) if differences else "yes",
        saw=said.replace("|", "/"),
        seconds=time.monotonic() - bench.begun,
    )
    ROWS.append(row)
    return row


def committed_count(bench: Bench) -> int:
    """Frames of stages that have their marker now."""
    return len(committed(bench.events))


def markdown(rows: list[Row]) -> str:
    """The table as Markdown, its columns aligned."""
    cells = [list(HEADINGS), *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(HEADINGS))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"
