"""The one console of the command line: data cannot steer it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.protocol import rich_cast
from rich.segment import Segment
from rich.text import Text

from portrait_core.text.redaction import redact_text
from portrait_core.text.visible import shown, shown_lines, visible


class SafeConsole(Console):
    r"""A console that shows text as it is, without secrets, whatever it holds.

    A string, also one in a cell, is one line and plain text: control characters and line breaks are written
    out (``\x1b``, ``\n``), and square brackets are no markup. Styles are given by ``style=`` or by
    :class:`~rich.text.Text`, in which a line break stays one. Output of several lines is several calls.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as text of one line."""
        return super().render_str(shown(text), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything; what is not the console's own control code holds visible characters alone."""
        given = rich_cast(renderable)
        if isinstance(given, Text):
            given = self._clean(given)
        for segment in super().render(given, options):
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield segment if segment.control else Segment(visible(segment.text, keep="\n"), style)

    def _clean(self, text: Text) -> Text:
        """Return a text without secrets and control characters, its styles and line breaks kept."""
        if text.plain.replace("\n", "").isprintable() and redact_text(text.plain) == text.plain:
            return text
        clean, whole = text.blank_copy(), text.copy()
        whole.end = ""
        for segment in whole.render(self):
            clean.append(visible(redact_text(segment.text), keep="\n"), segment.style)
        return clean


def make_console(stderr: bool = False) -> SafeConsole:
    """Return a console for a command's output, or for its errors."""
    return SafeConsole(stderr=stderr)


def styled_line(*parts: str | tuple[str, str]) -> Text:
    """Return one line of texts, some of them with a style."""
    both = (part if isinstance(part, tuple) else (part, "") for part in parts)
    return Text.assemble(*((shown(text), style) for text, style in both))


def print_error(what: str, why: str) -> None:
    """Print what went wrong to the standard error, as one paragraph or several lines."""
    make_console(stderr=True).print(Text.assemble((f"{what}: ", "bold red"), shown_lines(why)))
