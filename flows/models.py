"""``portrait models``: convert published network files once, and check generator files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from portrait_core.generators.io import AnyGenerator

OK, BAD_INPUT = 0, 2
_LICENCE = "NVIDIA source code licence, non-commercial"

app = typer.Typer(
    name="models",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Convert published network files for use here, and check the result.",
)


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="Network file (.pkl) of EG3D or StyleGAN2, as its owners publish it.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: `weights` in the data folder.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store float16: half the size, values off by up to 0.05 %.")
    ] = False,
    licence: Annotated[str, typer.Option(help="Licence of the weights, to be noted beside them.")] = _LICENCE,
) -> None:
    """Convert a published network file, without running anything in it.

    Writes NAME.safetensors, which loads in a moment, and NAME.json, which says what it is, where it came from
    and under which licence. The same file always makes the same bytes. A pickle that asks for anything but
    arrays and settings is refused with the name of what it asked for.
    """
    console = Console(highlight=False)
    try:
        from portrait_core.generators.published import convert_published
        from portrait_core.resources import data_folder

        start = time.perf_counter()
        folder = data_folder() / "weights" if out is None else out
        made = convert_published(file, folder, half=half, licence=licence)
        seconds = time.perf_counter() - start
    except ValueError as error:
        _tell(error)
        raise typer.Exit(BAD_INPUT) from None
    _show_import(file, made.weights, made.about, seconds, console)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(help="Converted files (.safetensors), or network files (.pkl).")
    ],
) -> None:
    """Say whether generator files are sound: digest, fitting and finite weights, a mapping that works."""
    from portrait_core.generators.published import check_generator

    console = Console(highlight=False)
    wrong = 0
    for file in files:
        start = time.perf_counter()
        try:
            checked = check_generator(file)
        except ValueError as error:
            wrong += 1
            _tell(error)
            continue
        digest = "digest as noted" if checked.about.get("sha256") else "no digest noted beside it"
        seconds = time.perf_counter() - start
        line = Text.assemble(("OK  ", "bold green"), f"{file}: {describe(checked.generator)}; {digest}")
        line.append(f"; {seconds:.1f} s")
        console.print(line, soft_wrap=True)
    raise typer.Exit(BAD_INPUT if wrong else OK)


def describe(generator: AnyGenerator) -> str:
    """Kind, resolution and size of a generator in one phrase."""
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
            table.add_row(name, Text(value))
    console.print(table)
    if about["kind"] == "triplane":
        use = f"use it with --set generator.weights={weights.resolve()} "
        use += f"--set template.size={generator.settings.image_resolution} --set inversion.init=mean"
        console.print(use, soft_wrap=True, markup=False)


def _options(values: dict[str, Any]) -> str:
    """Options in one line; those that hold options of their own in brackets."""
    parts = []
    for name, value in values.items():
        if name == "rendering_kwargs":
            continue
        parts.append(f"{name} ({_options(value)})" if isinstance(value, dict) else f"{name} {value}")
    return ", ".join(parts)


def _mebibytes(path: Path) -> str:
    return f"{path.stat().st_size / 2**20:.1f} MiB"


def _tell(error: ValueError) -> None:
    text = Text.assemble(("This cannot be used: ", "bold red"), str(error))
    Console(stderr=True, highlight=False).print(text)
