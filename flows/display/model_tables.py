"""Output of ``portrait models list`` and ``portrait models where``."""

from __future__ import annotations

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from flows.display.console import styled_line
from portrait_core.weights.locate import VARIABLE, find, models_folder
from portrait_core.weights.registry import MODELS

_YES, _NO = Text("yes", style="green"), Text("no", style="red")


def list_models(console: Console) -> None:
    """Print every model: name, file, users, licence, presence."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("name, file", no_wrap=True)
    table.add_column("needed by", overflow="fold")
    table.add_column("licence", overflow="fold")
    table.add_column("commercial")
    table.add_column("here")
    for model in MODELS.values():
        title = Group(Text(model.name, "bold"), Text(model.file, "dim"))
        here = find(model.name).where is not None
        table.add_row(
            title, model.needed_by, model.licence, _YES if model.commercial else _NO, _YES if here else _NO
        )
    console.print(table)
    console.print(f"Models that are not here come from their owners; put them into {models_folder()}")
    console.print(
        "(another folder or bucket: PORTRAIT_MODELS). `portrait models where` says where to get each, "
        "`portrait models check` checks those that are here."
    )


def show_places(console: Console) -> None:
    """Print the models folder, and where each model was looked for and found."""
    from portrait_core.runtime.caches import cache_folder
    from portrait_core.weights.locate import find, models_folder
    from portrait_core.weights.registry import MODELS

    folder = models_folder()
    console.print(f"models folder: {folder} (set {VARIABLE} to name another)", soft_wrap=True)
    if "://" in folder:
        console.print(f"copies of its files: {cache_folder('models')}", soft_wrap=True)
    for model in MODELS.values():
        located = find(model.name)
        if located.where:
            line = styled_line((f"{model.name}: ", "bold"), ("found ", "green"), located.where)
        else:
            text = f"({model.file}). Looked at {', '.join(located.looked)}. Source: {model.source}"
            line = styled_line((f"{model.name}: ", "bold"), ("not found ", "red"), text)
        console.print(line, soft_wrap=True)
