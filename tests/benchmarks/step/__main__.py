"""What a step of inversion and of tuning costs: ``uv run python -m tests.benchmarks.step --help``.

Kernels, operations, copies and waits are counted on the tests' second device, with the real classes and the
profiles' own settings; preparation and CPU seconds are measured here, and a card where there is one.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.benchmarks.processes import in_own_process
from tests.benchmarks.step import report
from tests.benchmarks.step.measure import StepJob
from tests.benchmarks.step.workloads import PROFILES
from tests.benchmarks.tables import Grid, device_name
from tests.second_device import WORKS_WITH

KINDS = {
    "count": "kernels, GFLOP, copies and reads per step, on the second device",
    "prepare": "the host's own work per step",
    "cpu": "CPU seconds per step",
    "card": "times on a CUDA card",
}
_LOOPS = ("inversion", "tuning")
_RETURNING = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_ARENA_MAX": "2"}
"""Counting a step of the published size needs most of 6 GiB; glibc gives back at once what is freed."""
app = typer.Typer(add_completion=False)
Result = tuple[StepJob, dict[str, Any]]


def plan(kinds: list[str], profiles: list[str], ffhq_seconds: bool, cuda: bool) -> list[StepJob]:
    """Every process to run, in order."""
    jobs: list[StepJob] = []
    sized = [name for name in profiles if name != "fast"]  # of the size of paper's, but for its batch
    if "count" in kinds:
        jobs += [StepJob("count", name, each) for name in sized for each in _LOOPS]
    if "prepare" in kinds:
        jobs += [StepJob("prepare", name, each) for name in sized for each in _LOOPS]
    if "cpu" in kinds:
        steps = {"embedded": 6, "paper": 2}
        jobs += [StepJob("cpu", name, steps=steps[name]) for name in sized if ffhq_seconds or name != "paper"]
    if "card" in kinds and cuda:
        jobs += [
            StepJob("card", name, precision=precision, graphs=graphs)
            for name in profiles
            for precision in ("auto", "fp32", "bf16")
            for graphs in (False, True)
        ]
    return jobs


def measure_all(jobs: list[StepJob], console: Console) -> tuple[list[Result], list[str]]:
    """Run every job in a process of its own; return what they said, and what failed."""
    results, failures = list[Result](), list[str]()
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*shown, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            progress.update(task, description=job.name)
            environment = _RETURNING if job.kind == "count" else {}
            try:
                said = in_own_process("tests.benchmarks.step.measure", asdict(job), 1, environment)
            except RuntimeError as error:
                failures.append(f"{job.name}: {error}")
            else:
                results.append((job, said))
                if not console.is_terminal:  # a log shows no bar
                    memory = f", peak {said['peak_mib']:,.0f} MiB"
                    console.print(f"  {job.name}: done{memory}", highlight=False)
            progress.advance(task)
    return results, failures


def grids(results: list[Result]) -> list[Grid]:
    """The tables of what was measured."""
    rows = {
        kind: [row for job, said in results if job.kind == kind for row in said.get("rows", [])]
        for kind in KINDS
    }
    found: list[Grid] = []
    if rows["count"]:
        found += report.counts(rows["count"])
    if rows["prepare"]:
        found.append(report.preparation(rows["prepare"]))
    if rows["cpu"]:
        found.append(report.cpu_seconds(rows["cpu"]))
    cards = [(job.profile, job.graphs, said) for job, said in results if job.kind == "card"]
    return [*found, report.card(cards)] if cards else found


def _chosen(text: str, known: list[str], option: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if not chosen or not set(chosen) <= set(known):
        raise typer.BadParameter(f"{option} takes a list of {','.join(known)}, got {text!r}")
    return chosen


def _what_is_missing(kinds: list[str], cuda: bool) -> list[str]:
    """Sentences about what this machine cannot measure; ``count`` leaves ``kinds`` where it cannot be."""
    said: list[str] = []
    if "card" in kinds and not cuda:
        said.append("no GPU here: not measured")
    if "count" in kinds and not torch.__version__.startswith(WORKS_WITH):
        kinds.remove("count")
        said.append(
            f"the second device works with PyTorch {' and '.join(WORKS_WITH)}, this is {torch.__version__}: "
            "kernels, GFLOP, copies and reads are not counted"
        )
    return said


@app.command()
def main(
    profiles: Annotated[
        str,
        typer.Option(
            help="; ".join(f"{name}: {about}" for name, about in PROFILES.items() if name != "tiny")
            + ". The last is measured on a card alone."
        ),
    ] = "embedded,paper,fast",
    only: Annotated[str, typer.Option(help="; ".join(f"{k}: {v}" for k, v in KINDS.items()))] = ",".join(
        KINDS
    ),
    ffhq_seconds: Annotated[
        bool, typer.Option(help="Measure CPU seconds of the FFHQ-512 architecture, too: minutes.")
    ] = False,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables here, too.")
    ] = None,
) -> None:
    """Count and measure a step of inversion and of tuning. About ten minutes without a card."""
    names = _chosen(profiles, [name for name in PROFILES if name != "tiny"], "--profiles")
    kinds = _chosen(only, list(KINDS), "--only")
    cuda = torch.cuda.is_available()
    missing = _what_is_missing(kinds, cuda)
    console = Console(width=150) if not sys.stdout.isatty() else Console()
    title = f"{device_name('cpu')}, one thread, PyTorch {torch.__version__}"
    console.print(f"[bold]{title}[/bold]", highlight=False)
    for name in names:
        console.print(f"  {name}: {PROFILES[name]}", highlight=False)
    jobs = plan(kinds, names, ffhq_seconds, cuda)
    results, failures = measure_all(jobs, console)
    tables = grids(results)
    for table in tables:
        console.print(table.for_terminal())
    counted = [row for job, said in results if job.kind == "count" for row in said["rows"]]
    said = report.places(counted) + missing
    for line in said:
        console.print(line, highlight=False)
    for failure in failures:
        console.print(f"[red]failed:[/red] {failure}", highlight=False)
    if markdown_file:
        parts = [f"{title}\n", *(table.markdown() for table in tables), *(f"{line}\n" for line in said)]
        markdown_file.write_text("\n".join(parts))
        console.print(f"written to {markdown_file}")
    raise typer.Exit(bool(failures))


if __name__ == "__main__":
    app()
