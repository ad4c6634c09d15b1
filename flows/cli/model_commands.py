"""``portrait models``: list, locate, import and check weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from flows.display.console import make_console, print_error, styled_line

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.generators.io import AnyGenerator

OK, BAD_INPUT = 0, 2
_LICENCE = "NVIDIA source code licence, non-commercial"

app = typer.Typer(
    name="models",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="List weights and where they are looked for, import them and check them.",
)


@app.command("list")
def list_() -> None:
    """List every model: file, users, licence, commercial use, presence."""
    from flows.display.model_tables import list_models

    with _reported_errors():
        list_models(make_console())


@app.command()
def where() -> None:
    """Show where each model was looked for and the result; for missing ones, their source.

    Files that you provide lie in one folder or bucket at any fsspec URL: the environment variable
    PORTRAIT_MODELS, or `weights` in the data folder. Files of a bucket are copied to this machine once.
    """
    from flows.display.model_tables import show_places

    with _reported_errors():
        show_places(make_console())


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File as published, with its official name.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to. Default: the models folder.")] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store float16: half the size, values off by up to 0.05 %.")
    ] = False,
    licence: Annotated[str, typer.Option(help="Licence of the weights, noted beside them.")] = _LICENCE,
) -> None:
    """Import a file into the models folder, without running anything in it.

    Network files of EG3D and StyleGAN2 (.pkl) are converted: NAME.safetensors loads quickly, NAME.json
    describes what it is, where it came from and under which licence. The same file always gives the same
    bytes. Any other file that `portrait models list` names is read and copied; of insightface's pack, the
    models in use. A file that asks for anything but arrays and settings is refused with the name of what it
    asked for.
    """
    from portrait_core.model_files.check import identify_model
    from portrait_core.model_files.importing import import_generator, import_model
    from portrait_core.weights.locate import models_folder

    console = make_console()
    with _reported_errors():
        start = time.perf_counter()
        folder = models_folder() if out is None else str(out)
        model = identify_model(file)
        if model is None or model.generator:
            imported = import_generator(file, folder, half=half, licence=licence)
            seconds = time.perf_counter() - start
            _show_import(file, imported.weights, imported.about, seconds, console)
            return
        for one, target, report in import_model(file, model, folder):
            text = f"{one.name}: {report.content}; {report.digest}; now at {target}; "
            text += f"licence: {report.licence or one.licence}"
            console.print(styled_line(("OK  ", "bold green"), text), soft_wrap=True)


@app.command()
def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, or names that `portrait models list` shows. Default: all models in their place."
        ),
    ] = None,
) -> None:
    """Read weights, safely, and compare their digests with the known ones.

    Of generators also check that weights fit and are finite, and that the mapping works.
    """
    console = make_console()
    wrong = 0
    with _reported_errors():
        chosen = files or _present()
    for file in chosen:
        start = time.perf_counter()
        try:
            description, sound = _checked(file)
        except ValueError as error:
            wrong += 1
            print_error("Invalid input", str(error))
            continue
        wrong += not sound
        mark = ("OK  ", "bold green") if sound else ("WRONG  ", "bold red")
        text = f"{description}; {time.perf_counter() - start:.1f} s"
        console.print(styled_line(mark, text), soft_wrap=True)
    if not chosen:
        console.print("nothing to check: `portrait models where` says where each file was looked for")
    raise typer.Exit(BAD_INPUT if wrong else OK)


def _present() -> list[str]:
    """Return the names of the models that are in their place."""
    from portrait_core.weights.locate import find
    from portrait_core.weights.registry import MODELS

    return [name for name in MODELS if find(name).where is not None]


def _checked(file: str) -> tuple[str, bool]:
    """Describe a file, named by path or model, and tell whether it is the published one."""
    from portrait_core.generators.published import check_generator
    from portrait_core.model_files.check import check_model, identify_model
    from portrait_core.weights.locate import require
    from portrait_core.weights.registry import MODELS

    path = require([file])[file] if file in MODELS else Path(file)
    model = MODELS.get(file) or identify_model(path)
    if model is not None and not model.generator:
        report = check_model(path, model)
        return f"{path}: {report.content}; {report.digest}", report.sound
    checked = check_generator(path)
    digest = "digest as noted" if checked.about.get("sha256") else "no digest noted beside it"
    return f"{path}: {describe(checked.generator)}; {digest}", True


def describe(generator: AnyGenerator) -> str:
    """Return kind, resolution and size of a generator in one phrase."""
    from portrait_core.generators.io import kind_of

    size = generator.settings.image_resolution
    kind = {"triplane": "tri-plane generator", "stylegan2": "StyleGAN2 generator (2D)"}[kind_of(generator)]
    millions = sum(parameter.numel() for parameter in generator.parameters()) / 1e6
    return f"{kind}, {size} x {size} pixels, {millions:.1f} million parameters"


def _show_import(file: Path, weights: Path, about: dict[str, Any], seconds: float, console: Console) -> None:
    from portrait_core.generators.io import load_generator

    start = time.perf_counter()
    generator = load_generator(weights, kind=None)
    loading = time.perf_counter() - start
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    rows = {
        "found": f"{about['class']}: {describe(generator)}",
        "constructed with": _options(about["constructor"]),
        "rendering": _options(about["rendering"] or {}),
        "licence": about["licence"],
        "read from": f"{file} ({_mebibytes(file)}), sha256 {about['source_sha256']}",
        "written to": f"{weights} ({_mebibytes(weights)}, {about['precision']}), sha256 {about['sha256']}",
        "described in": str(weights.with_suffix(".json")),
        "took": f"{seconds:.1f} s; loading the converted file takes {loading:.2f} s",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console.print(table)
    if about["kind"] == "triplane":
        use = f"use it with --set generator.weights={weights.resolve()} "
        use += f"--set template.size={generator.settings.image_resolution} --set inversion.init=mean"
        console.print(use, soft_wrap=True)


def _options(values: dict[str, Any]) -> str:
    """Format options in one line, with nested options in brackets."""
    parts = []
    for name, value in values.items():
        if name == "rendering_kwargs":
            continue
        parts.append(f"{name} ({_options(value)})" if isinstance(value, dict) else f"{name} {value}")
    return ", ".join(parts)


def _mebibytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"


@contextmanager
def _reported_errors() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        print_error("Invalid input", str(error))
        raise typer.Exit(BAD_INPUT) from None
