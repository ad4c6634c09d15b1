"""``portrait settings``: every setting with its value and what it does."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.display.console import styled_line
from portrait_core.settings import Section, Settings
from portrait_core.settings.profiles import SECRET_SETTINGS
from portrait_core.text.redaction import HIDDEN


def list_settings(settings: Settings, console: Console) -> None:
    """Print one table of all settings; a value that differs from the default is bold."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("setting", no_wrap=True)
    table.add_column("value")
    table.add_column("what it does", overflow="fold")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Section):
            table.add_row(Text(name, "bold"), "", Text(field.description or "", "bold"))
            _add_section(table, name, value)
        else:
            _add_row(
                table, name, value, field.get_default(call_default_factory=True), field.description or ""
            )
    console.print(table)


def _add_section(table: Table, prefix: str, section: Section) -> None:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        _add_row(
            table,
            f"{prefix}.{name}",
            value,
            field.get_default(call_default_factory=True),
            field.description or "",
        )


def _add_row(table: Table, name: str, value: object, default: object, description: str) -> None:
    style = "" if value == default else "bold"
    table.add_row(name, styled_line((_shown(name, value), style)), " ".join(description.split()))


def _shown(name: str, value: object) -> str:
    """Return a setting's value as text; of one that may hold credentials the names of its parts."""
    if isinstance(value, Mapping) and any(secret in name for secret in SECRET_SETTINGS):
        return str(dict.fromkeys(value, HIDDEN))
    return "" if value is None else str(value)
