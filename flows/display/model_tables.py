"""What ``portrait models list`` and ``portrait models where`` print."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

_YES, _NO = Text("yes", style="green"), Text("no", style="red")


def list_models(console: Console) -> None:
    """Every model: name, file, who reads it, licence, whether it is here."""
    from portrait_core.weights.locate import find, models_folder
    from portrait_core.weights.registry import MODELS

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("name, file", no_wrap=True)
    table.add_column("needed by", overflow="fold")
    table.add_column("licence", overflow="fold")
    table.add_column("commercial")
    table.add_column("here")
    for model in MODELS.values():
        title = Text.assemble((model.name, "bold"), "\n", (model.file, "dim"))
        here = find(model.name).where is not None
        table.add_row(
            title, model.needed_by, model.licence, _YES if model.commercial else _NO, _YES if here else _NO
        )
    console.print(table)
    console.print(
        f"Those that are not here come from their owners; the folder for them is {models_folder()}\n"
        "(another folder or bucket: PORTRAIT_MODELS). `portrait models where` says where to get each, "
        "`portrait models check` reads those that are here.",
        markup=False,
    )


def show_places(console: Console) -> None:
    """The models folder, and for each model where it was looked for and what was found."""
    from portrait_core.runtime.caches import cache_folder
    from portrait_core.weights.locate import VARIABLE, find, models_folder
    from portrait_core.weights.registry import MODELS

    folder = models_folder()
    console.print(f"models folder: {folder} (set {VARIABLE} to name another)", markup=False, soft_wrap=True)
    if "://" in folder:
        console.print(f"copies of its files: {cache_folder('models')}", markup=False, soft_wrap=True)
    for model in MODELS.values():
        found = find(model.name)
        if found.where:
            line = Text.assemble((f"{model.name}: ", "bold"), ("found ", "green"), found.where)
        else:
            line = Text.assemble((f"{model.name}: ", "bold"), ("not found ", "red"), f"({model.file}). ")
            line.append(f"Looked at {', '.join(found.looked)}. Source: {model.source}")
        console.print(line, soft_wrap=True)
