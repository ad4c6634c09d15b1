"""Tables for a terminal and in Markdown, and the generator benchmark's results in them."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich import box
from rich.table import Table


@dataclass(frozen=True)
class Grid:
    """A table of ready strings.

    Attributes:
        title: above it.
        headings: of the columns.
        rows: cells.
        caption: below it.
        n_text: so many first columns hold text; the others hold numbers.
        section_ends: rows that a line follows.
    """

    title: str
    headings: list[str]
    rows: list[list[str]]
    caption: str = ""
    n_text: int = 1
    section_ends: frozenset[int] = frozenset()

    def for_terminal(self) -> Table:
        """For rich."""
        about: dict[str, Any] = {"title": self.title, "title_justify": "left"}
        about |= {"caption": self.caption, "caption_justify": "left"} if self.caption else {}
        table = Table(**about, box=box.SIMPLE, padding=(0, 1, 0, 0))
        for i, heading in enumerate(self.headings):
            text = i < self.n_text
            table.add_column(heading, justify="left" if text else "right", no_wrap=text)
        for i, row in enumerate(self.rows):
            table.add_row(*row, end_section=i in self.section_ends)
        return table

    def markdown(self) -> str:
        """For a document."""
        headings = [heading.replace("\n", " ") for heading in self.headings]
        rules = ["---"] * self.n_text + ["---:"] * (len(headings) - self.n_text)
        table = "\n".join(f"| {' | '.join(line)} |" for line in (headings, rules, *self.rows))
        caption = f"\n\n{self.caption}" if self.caption else ""
        return f"### {self.title}\n\n{table}{caption}\n"


@dataclass
class Row:
    """All that was measured of one operation in one precision."""

    precision: str
    operation: str
    plain: list[dict[str, Any]] = field(default_factory=list)
    """What each process of the plain implementation reported."""
    ours: list[dict[str, Any]] = field(default_factory=list)
    accuracy: dict[str, float] | None = None

    def pair(self, name: str) -> tuple[float, float]:
        """Medians of a quantity, plain and ours; NaN where there is none."""
        return _median(self.plain, name), _median(self.ours, name)


def _median(results: Sequence[dict[str, Any]], name: str) -> float:
    values = [v for result in results for v in (result[name] if name != "peak_mib" else [result[name]])]
    return median(values) if values else math.nan


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{digits}f}"


def columns(cuda: bool) -> list[str]:
    """Headings."""
    middle = [] if cuda else ["CPU s plain", "CPU s ours"]
    shared = ["precision", "operation", "ms plain", "ms ours", "ratio", *middle]
    return [*shared, "MiB plain", "MiB ours", "ratio", "PSNR dB", "grad %"]


def cells(row: Row, cuda: bool) -> list[str]:
    """A row under those headings. Ratios are plain / ours; the time's is of CPU seconds on a CPU."""
    elapsed, cpu, peak = row.pair("elapsed_ms"), row.pair("cpu_s"), row.pair("peak_mib")
    digits = 1 if min(x for x in (*elapsed, 1e9) if not math.isnan(x)) < 1000 else 0
    plain_cost, our_cost = elapsed if cuda else cpu
    found = [row.precision, row.operation, *(_number(x, digits) for x in elapsed)]
    found.append(_number(plain_cost / our_cost, 2))
    if not cuda:
        found += [_number(x, 2) for x in cpu]
    found += [*(_number(x, 0) for x in peak), _number(peak[0] / peak[1], 2)]
    psnr = row.accuracy["psnr_db"] if row.accuracy else math.nan
    gradient = 100 * row.accuracy["gradient"] if row.accuracy else math.nan
    return [*found, "exact" if math.isinf(psnr) else _number(psnr, 1), _number(gradient, 2)]


def device_name(device: str) -> str:
    """The card's or the processor's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


NOTES = (
    "Medians over fresh processes, plain and ours in turn. Ratios are plain / ours{cost}. {memory} "
    "PSNR is of our image against our fp32 one, with a peak of 2; grad % is the norm of the difference "
    "between our gradient to ws and our fp32 one, in percent of the latter's."
)


def notes(cuda: bool) -> str:
    """What the numbers mean."""
    return NOTES.format(
        cost="" if cuda else " (of time: in CPU seconds)",
        memory="Memory is the most that PyTorch had allocated on the card, weights included."
        if cuda
        else "Memory is the process's peak, interpreter and weights included.",
    )


def _grid(title: str, rows: Sequence[Row], cuda: bool) -> Grid:
    last = [i for i, row in enumerate(rows) if i + 1 == len(rows) or rows[i + 1].precision != row.precision]
    lines = [cells(row, cuda) for row in rows]
    return Grid(title, columns(cuda), lines, notes(cuda), n_text=2, section_ends=frozenset(last))


def for_terminal(title: str, rows: Sequence[Row], cuda: bool) -> Table:
    """A table that fits 100 columns."""
    return _grid(title, rows, cuda).for_terminal()


def markdown(title: str, rows: Sequence[Row], cuda: bool) -> str:
    """The same for a document."""
    return _grid(title, rows, cuda).markdown()
