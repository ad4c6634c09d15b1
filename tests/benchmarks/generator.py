"""What the generator costs: ``uv run python -m tests.benchmarks.generator --help``.

Times and memory of our generator beside those of the straightforward implementation in ``tests/plain``.
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
from rich.progress import TimeRemainingColumn as Remaining

from tests.benchmarks.processes import in_own_process
from tests.benchmarks.tables import Row, device_name, for_terminal, markdown
from tests.benchmarks.workloads import CONFIGS, EMULATED, OPERATIONS, Job

_PRECISIONS = ("fp32", "tf32", "bf16", EMULATED)
app = typer.Typer(add_completion=False)


def run(job: Job) -> dict[str, Any]:
    """Measure in a fresh process.

    Raises:
        RuntimeError: with the last line of what it printed, if it fails.
    """
    return in_own_process("tests.benchmarks.measure", asdict(job), job.threads)


def plan(
    base: Job, rows: list[Row], repeats: int, accuracy: bool, timed: bool = True
) -> list[tuple[Row, Job]]:
    """Every process to run, in order: plain and ours alternate, so that drift meets both."""
    sides = ("ours",) if base.config == "embedded" else ("plain", "ours")
    jobs: list[tuple[Row, Job]] = []
    for row in rows:
        values = asdict(base) | {"precision": row.precision, "operation": row.operation}
        if accuracy and (row.precision not in {r.precision for r, j in jobs if j.operation == "accuracy"}):
            jobs.append((row, Job(**values | {"implementation": "ours", "operation": "accuracy"})))
        for _ in range(repeats if timed and row.precision != EMULATED else 0):
            jobs += [(row, Job(**values | {"implementation": side})) for side in sides]
    return jobs


def measure_all(jobs: list[tuple[Row, Job]], console: Console) -> list[str]:
    """Run the jobs into their rows; return what failed."""
    failures: list[str] = []
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*shown, TextColumn("left"), Remaining(), console=console, transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for row, job in jobs:
            name = f"{job.precision} {job.operation} {job.implementation}"
            progress.update(task, description=name)
            try:
                result = run(job)
            except RuntimeError as error:
                failures.append(f"{name}: {error}")
            else:
                _record(row, job, result)
            progress.advance(task)
            if not console.is_terminal:  # a log shows no bar
                console.print(f"  {name}: done")
    return list(dict.fromkeys(failures))


def _record(row: Row, job: Job, result: dict[str, Any]) -> None:
    if job.operation == "accuracy":
        row.accuracy = {name: float(value) for name, value in result.items()}
    elif job.implementation == "plain":
        row.plain.append(result)
    else:
        row.ours.append(result)


def _chosen(text: str, known: tuple[str, ...], option: str) -> list[str]:
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    if not chosen or not set(chosen) <= set(known):
        raise typer.BadParameter(f"{option} takes a list of {','.join(known)}, got {text!r}")
    return chosen


def _title(base: Job) -> str:
    compiled = "ours compiled, " if base.compile else ""
    threads = f", {base.threads} threads" if base.device == "cpu" else ""
    threads = threads.replace(" 1 threads", " 1 thread")
    return (
        f"{base.config}, batch {base.batch}, {compiled}{base.device}: {device_name(base.device)}{threads}, "
        f"PyTorch {torch.__version__}"
    )


@app.command()
def main(
    config: Annotated[str, typer.Option(help="; ".join(f"{k}: {v}" for k, v in CONFIGS.items()))] = "ffhq512",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str,
        typer.Option(help="fp32,tf32,bf16,tf32-emulated; tf32 is for cuda, its emulation untimed."),
    ] = "fp32",
    operations: Annotated[str, typer.Option(help="Which to measure.")] = ",".join(OPERATIONS),
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads on a CPU.")] = 1,
    compile: Annotated[bool, typer.Option(help="Compile our generator.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Processes for each number.")] = 3,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Timed calls a process; by default 1 on a CPU, 20 on a card.")
    ] = None,
    accuracy: Annotated[bool, typer.Option(help="Compare with fp32, too.")] = True,
    accuracy_only: Annotated[bool, typer.Option(help="Compare with fp32, and time nothing.")] = False,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the table here, too.")
    ] = None,
) -> None:
    """Compare our generator with a straightforward implementation of the same formulas."""
    if config not in CONFIGS:
        raise typer.BadParameter(f"--config must be one of {', '.join(CONFIGS)}, got {config!r}")
    cuda = device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise typer.BadParameter("--device cuda: PyTorch sees no card here; use --device cpu")
    precisions = _chosen(precision, _PRECISIONS, "--precision")
    if "tf32" in precisions and not cuda:
        raise typer.BadParameter(
            "--precision tf32 is for cards; use --device cuda, or tf32-emulated for its accuracy alone"
        )
    if EMULATED in precisions and cuda:
        raise typer.BadParameter("--precision tf32-emulated is for a CPU; a card has tf32 itself")
    if accuracy_only and precisions == ["fp32"] and not compile:
        raise typer.BadParameter("--accuracy-only compares with fp32; name another --precision")
    base = Job(
        implementation="ours",
        operation="forward",
        config=config,
        device=device,
        batch=batch,
        compile=compile,
        threads=threads,
        warmup=5 if cuda else 1,
        iterations=iterations or (20 if cuda else 1),
    )
    chosen = _chosen(operations, tuple(OPERATIONS), "--operations")
    # what is not timed needs one row alone
    rows = [Row(p, o) for p in precisions for o in (["to-w"] if accuracy_only or p == EMULATED else chosen)]
    compared = (accuracy or accuracy_only) and (precisions != ["fp32"] or compile)
    jobs = plan(base, rows, repeats, compared, timed=not accuracy_only)
    console, title = Console(width=100) if not sys.stdout.isatty() else Console(), _title(base)
    console.print(f"[bold]{title}[/bold]\n{config}: {CONFIGS[config]}")
    for operation in dict.fromkeys(row.operation for row in rows):
        console.print(f"  {operation}: {OPERATIONS[operation]}")
    each = " of about half a minute to two minutes" if config == "ffhq512" and not cuda else ""
    calls = f"{base.warmup} call to warm up and {base.iterations} timed"
    console.print(f"{len(jobs)} processes{each}, one after the other, {calls} in each")
    failures = measure_all(jobs, console)
    console.print(for_terminal(title, rows, cuda))
    for failure in failures:
        console.print(f"[red]failed:[/red] {failure}", highlight=False)
    if markdown_file:
        markdown_file.write_text(markdown(title, rows, cuda))
        console.print(f"written to {markdown_file}")
    raise typer.Exit(bool(failures))


if __name__ == "__main__":
    app()
