"""How sound is a generator tuned on ONE photograph, seen from other sides? ``uv run python -m
tests.benchmarks.portraits --out FOLDER [--weights FILE ...] [--variant "name: tuning.depth_anchor=0" ...]``.

Every portrait is tracked, inverted and tuned as the product does it, then rendered at head poses up to 30
degrees away. Is there a face, is it turned as asked, does its depth lie on the fitted head, is it still the
same person? ``--people N`` asks the same of synthetic people, whose other sides are known.

A pose error is the generator's or the tracker's. Three readings tell them apart: of the generator's pictures,
of the same with the product's correction (``aimed``), and of the fitted head drawn as a mesh at the very same
poses, where only the tracker can err.

Identity is the distance of dlib's face recognition (``portrait_core/metrics/identity.py``); below 0.6 is the
same person.

About two to three minutes a portrait and variant on one core; ``--steps 10`` for a quick trial.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from PIL import Image
from rich.console import Console

from portrait_core.errors import InputError
from portrait_core.runtime.allocator import keep_freed_memory
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings, load_settings
from tests.benchmarks.inversion import Sums
from tests.benchmarks.portraits import poses, report
from tests.benchmarks.portraits.fitting import Fit
from tests.benchmarks.portraits.people import tuned_people
from tests.benchmarks.portraits.scoring import Score, score
from tests.benchmarks.portraits.subjects import Subject, default_names, photograph, tracked
from tests.benchmarks.portraits.tools import Tools
from tests.benchmarks.tables import Grid

_WIDTH = 150


@dataclass(frozen=True)
class Variant:
    """A weights file with settings."""

    name: str
    weights: Path
    settings: Settings


def _variants(weights: list[Path], texts: list[str], overrides: list[str]) -> list[Variant]:
    """Every weights file with every ``name: section.field=value ...``."""
    found = []
    for path in weights:
        for text in texts:
            name, _, own = text.partition(":")
            try:
                settings = load_settings("embedded", [*overrides, *own.split()])
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
            found.append(Variant(" ".join(filter(None, (path.stem, name.strip()))), path, settings))
    if len({variant.name for variant in found}) < len(found):
        raise typer.BadParameter(
            "two variants have one name; give weights files and variants names of their own"
        )
    return found


@dataclass
class Run:
    """What one call of the program makes."""

    tools: Tools
    console: Console
    out: Path

    def portrait(self, name: str, variant: Variant) -> Score | None:
        """Fit and score one portrait, and keep its strip; None if it is refused."""
        start = time.perf_counter()
        try:
            subject = tracked(*photograph(name, variant.settings), self.tools, variant.settings)
        except (InputError, ValueError) as error:
            self.console.print(f"[red]{name}:[/red] {error}")
            return None
        fit = self.fit(subject, variant)
        fit.tune()
        seconds = time.perf_counter() - start
        _, mesh = poses.mesh_error_deg(subject, self.tools, variant.settings)
        result, sheet = score(fit, variant.name, mesh, seconds)
        path = self.out / f"{subject.name}_{variant.name.replace(' ', '_')}.png"
        Image.fromarray(report.strip(sheet)).save(path)
        self.console.print(f"{path.name}: {time.perf_counter() - start:.0f} s")
        return result

    def fit(self, subject: Subject, variant: Variant) -> Fit:
        """Invert a subject."""
        return Fit(subject, variant.weights, self.tools, variant.settings)

    def write(self, scores: list[Score], grids: list[Grid]) -> None:
        """Keep numbers and tables; called after every portrait, for a long run may be stopped."""
        views = poses.VIEWS.tolist()
        content = {"views_deg": views, "scores": [score.as_json() for score in scores]}
        (self.out / "scores.json").write_text(json.dumps(content, indent=1))
        (self.out / "tables.md").write_text("\n".join(grid.markdown() for grid in grids))


def main(
    out: Annotated[Path, typer.Option(help="Folder for pictures, tables.md and scores.json.")],
    weights: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="Generator files. Default: the one in data/."),
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="'name: section.field=value ...', each with every weights file.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.field=value, for all.")
    ] = None,
    portrait: Annotated[
        list[str] | None,
        typer.Option(
            help="Files, 'astronaut', or 't1:K', a face of insightface's group picture. Default: "
            "astronaut, t1:1, t1:3."
        ),
    ] = None,
    people: Annotated[int, typer.Option(min=0, help="Synthetic people to tune on, too.")] = 0,
    portraits: Annotated[bool, typer.Option(help="Tune on photographs.")] = True,
    steps: Annotated[int | None, typer.Option(min=1, help="Tuning steps. Default: the profile's.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Tune on single photographs and look from the sides."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    common = [*(overrides or []), *([] if steps is None else [f"tuning.steps={steps}"])]
    files = weights or [data_file("models/embedded_generator.safetensors")]
    variants = _variants(files, variant or [""], common)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(Tools.load(variants[0].settings), Console(width=_WIDTH, highlight=False), out)
    scores: list[Score] = []
    grids: list[Grid] = []
    for one in variants if portraits else []:
        _tune_portraits(run, one, portrait or default_names(), scores, grids)
    if people:
        grids += _show(run, [_tune_people(run, variants, people)])
    run.write(scores, grids)


def _tune_portraits(
    run: Run, variant: Variant, names: list[str], scores: list[Score], grids: list[Grid]
) -> None:
    """Add one variant's scores and tables."""
    kept: list[Score] = []
    for name in names:
        if (result := run.portrait(name, variant)) is not None:
            kept.append(result)
            run.write([*scores, *kept], [*grids, *report.grids(kept)])
    scores += kept
    grids += _show(run, report.grids(kept)) if kept else []


def _tune_people(run: Run, variants: list[Variant], count: int) -> Grid:
    rows: dict[str, Sums] = {}
    for one in variants:
        sums = tuned_people(count, run.tools, partial(run.fit, variant=one), run.console.print)
        rows |= {f"{one.name}, {stage}": values for stage, values in sums.items()}
    return report.people_grid(rows)


def _show(run: Run, grids: list[Grid]) -> list[Grid]:
    for grid in grids:
        run.console.print(grid.for_terminal())
    return grids


if __name__ == "__main__":
    typer.run(main)
