"""The first sheet of an Excel workbook (.xlsx) as rows of text, as a person sees them.

A workbook is an archive of XML, and may be a stranger's. Only the parts that hold the sheet's text are read;
macros, formulas, links and pictures are not. The size of every part is compared with ``limits.table_bytes``
before it is decompressed, and XML that declares a document type (which may define entities) is refused.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from xml.parsers import expat

from portrait_core.errors import InputError
from portrait_core.settings.limits import over_limit

MAX_PARTS = 10_000
"""Number of an archive's parts from which on it is refused."""
_ENTRY = b"PK\x01\x02"
_CHUNK = 1 << 18
_DATES = {*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)}
"""Numbers of Excel's own formats of dates and times."""
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|\*.')
_DECIMALS = {1: 0, 2: 2, 3: 0, 4: 2}
"""Number of decimals of Excel's own formats of numbers."""

Row = tuple[int, list[str]]
"""Number of a row, and the text of its cells up to the last that is filled."""
Attributes = Mapping[str, str]


@dataclass
class Sheet:
    """The first sheet of a workbook."""

    rows: Iterator[Row]
    """Rows that hold anything, in order."""
    name: str
    others: list[str]
    """Names of the other sheets."""


def read_workbook(data: bytes) -> Sheet:
    """Read the first sheet of a workbook.

    Raises:
        InputError: it is no workbook of Excel 2007 or later, or beyond the limits, here or while the rows are
            read; the message follows the file's name.
    """
    if data.count(_ENTRY) > MAX_PARTS:
        raise InputError(f"has more than {MAX_PARTS:,} parts; save it as 'CSV UTF-8'")
    try:
        parts = _Parts(zipfile.ZipFile(io.BytesIO(data)))
        sheets = _Sheets()
        parts.read("xl/workbook.xml", sheets)
        targets = _Relations()
        parts.read("xl/_rels/workbook.xml.rels", targets)
        if not sheets.named:
            raise InputError("is an Excel workbook without a sheet; save its table as 'CSV UTF-8'")
        (name, relation), *others = sheets.named
        cells = _Cells(_shared_texts(parts), _styles(parts), sheets.from_1904)
        path = posixpath.normpath(posixpath.join("/xl", targets.paths.get(relation, ""))).lstrip("/")
        return Sheet(_rows(parts, path, cells), name, [other for other, _ in others])
    except InputError:
        raise
    except KeyError:
        raise InputError(f"is {_other_archive(data)}; save the table as .xlsx or 'CSV UTF-8'") from None
    except Exception as error:  # an archive of a stranger may raise anything
        raise InputError(_damaged(error)) from error


def _damaged(error: Exception) -> str:
    return f"is not a readable Excel workbook ({error}); save it again, as .xlsx or 'CSV UTF-8'"


def _other_archive(data: bytes) -> str:
    return "an OpenDocument spreadsheet" if b"opendocument.spreadsheet" in data[:200] else "an archive"


class _Handler:
    """Handling of the elements of a part; names are without their namespace."""

    def start(self, name: str, about: Attributes) -> None:
        """Begin an element."""

    def end(self, name: str) -> None:
        """End an element."""

    def text(self, text: str) -> None:
        """Take text, which may come in pieces."""


class _Parts:
    """Parts of an archive, within the limits of this process."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._archive.namelist()

    def read(self, name: str, handler: _Handler) -> None:
        """Read a part to its end.

        Raises:
            KeyError: there is no such part.
        """
        for _ in self.pieces(name, handler):
            pass

    def pieces(self, name: str, handler: _Handler) -> Iterator[None]:
        """Read a part piece by piece; ``handler`` is told of each before the next is read."""
        about = self._archive.getinfo(name)
        if about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError("is packed in a way that Excel does not use; save it as 'CSV UTF-8'")
        self._bytes += about.file_size  # zipfile decompresses no more than this
        if problem := over_limit("table_bytes", self._bytes):
            raise InputError(problem)
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = lambda tag, about: handler.start(tag.rpartition(" ")[2], about)
        parser.EndElementHandler = lambda tag: handler.end(tag.rpartition(" ")[2])
        parser.CharacterDataHandler = handler.text
        parser.StartDoctypeDeclHandler = _refuse_doctype
        with self._archive.open(about) as part:
            while piece := part.read(_CHUNK):
                parser.Parse(piece, False)
                yield
        parser.Parse(b"", True)
        yield


def _refuse_doctype(*_: Any) -> None:
    raise InputError("declares a document type in its XML, which no workbook does; save it as 'CSV UTF-8'")


class _Sheets(_Handler):
    def __init__(self) -> None:
        self.named: list[tuple[str, str]] = []
        self.from_1904 = False

    def start(self, name: str, about: Attributes) -> None:
        if name == "workbookPr":
            self.from_1904 = about.get("date1904") in ("1", "true")
        elif name == "sheet":
            relation = next((value for key, value in about.items() if key.endswith(" id")), "")
            self.named.append((about.get("name", ""), relation))


class _Relations(_Handler):
    def __init__(self) -> None:
        self.paths: dict[str, str] = {}

    def start(self, name: str, about: Attributes) -> None:
        if name == "Relationship" and about.get("TargetMode") != "External":
            self.paths[about.get("Id", "")] = about.get("Target", "")


class _Texts(_Handler):
    """Texts that cells share, without readings of Japanese."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._parts: list[str] = []
        self._open, self._reading = False, False

    def start(self, name: str, about: Attributes) -> None:
        if name == "si":
            self._parts = []
        self._reading |= name == "rPh"
        self._open = name == "t" and not self._reading

    def end(self, name: str) -> None:
        self._open = False
        if name == "rPh":
            self._reading = False
        elif name == "si":
            self.found.append("".join(self._parts).strip())
            if problem := over_limit("table_rows", len(self.found) // 8):
                raise InputError(problem)

    def text(self, text: str) -> None:
        if self._open:
            self._parts.append(text)


def _shared_texts(parts: _Parts) -> list[str]:
    texts = _Texts()
    if "xl/sharedStrings.xml" in parts:
        parts.read("xl/sharedStrings.xml", texts)
    return texts.found


class _Styles(_Handler):
    """Format of numbers of each style: its number, and its code where it is the workbook's own."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self._codes: dict[str, str] = {}
        self._inside = False

    def start(self, name: str, about: Attributes) -> None:
        if name == "numFmt":
            self._codes[about.get("numFmtId", "")] = about.get("formatCode", "")
        elif name == "cellXfs":
            self._inside = True
        elif name == "xf" and self._inside:
            number = about.get("numFmtId", "0")
            self.found.append((int(number), self._codes.get(number, "")))

    def end(self, name: str) -> None:
        if name == "cellXfs":
            self._inside = False


def _styles(parts: _Parts) -> list[Callable[[float, datetime], str]]:
    styles = _Styles()
    if "xl/styles.xml" in parts:
        parts.read("xl/styles.xml", styles)
    return [_written_by(number, code) for number, code in styles.found]


def _written_by(number: int, code: str) -> Callable[[float, datetime], str]:
    """Return how a format writes a number."""
    bare = _QUOTED.sub("", code.partition(";")[0])
    if number in _DATES or re.search(r"[ymdhs]", bare, re.IGNORECASE):
        return _date
    if re.fullmatch("0{1,30}", bare):
        return lambda value, _: f"{value:0{len(bare)}.0f}"
    decimals = _DECIMALS.get(number)
    if found := re.fullmatch(r"#?,?#*0(?:\.(0{1,20}))?", bare):
        decimals = len(found[1] or "")
    if decimals is not None:
        return lambda value, _: f"{value:.{decimals}f}"
    return lambda value, _: _number(value)


def _number(value: float) -> str:
    return f"{value:.15g}"


def _date(value: float, epoch: datetime) -> str:
    """Return a date, a time of day, or both."""
    moment = epoch + timedelta(seconds=round(value * 86_400))
    if 0 <= value < 1:
        return f"{moment:%H:%M:%S}"
    return f"{moment:%Y-%m-%d}" if value == int(value) else f"{moment:%Y-%m-%d %H:%M:%S}"


@dataclass
class _Cells(_Handler):
    """Cells of a sheet, as its rows end."""

    texts: Sequence[str]
    styles: Sequence[Callable[[float, datetime], str]]
    from_1904: bool
    ready: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._number, self._column = 0, 0
        self._kind, self._style = "", 0
        self._row: dict[int, str] = {}
        self._parts: list[str] = []
        self._open, self._reading = False, False
        self._epoch = datetime(1904, 1, 1) if self.from_1904 else datetime(1899, 12, 30)

    def start(self, name: str, about: Attributes) -> None:
        if name == "row":
            self._number = int(about.get("r") or self._number + 1)
            self._column, self._row = 0, {}
        elif name == "c":
            place = re.match("[A-Z]{1,3}", about.get("r", ""))
            self._column = _column(place[0]) if place else self._column + 1
            self._kind, self._style, self._parts = about.get("t", "n"), int(about.get("s") or 0), []
        self._reading |= name == "rPh"
        self._open = name in ("v", "t") and not self._reading

    def end(self, name: str) -> None:
        self._open = False
        if name == "rPh":
            self._reading = False
        elif name == "c" and (text := self._text().strip()):
            if problem := over_limit("table_columns", self._column):
                raise InputError(problem)
            self._row[self._column] = text
        elif name == "row" and self._row:
            cells = [self._row.get(column, "") for column in range(1, max(self._row) + 1)]
            self.ready.append((self._number, cells))

    def text(self, text: str) -> None:
        if self._open:
            self._parts.append(text)

    def _text(self) -> str:
        """Return what a person sees of the cell."""
        held = "".join(self._parts)
        if self._kind == "s":
            return self.texts[int(held)] if held else ""
        if self._kind == "b":
            return "TRUE" if held.strip() == "1" else "FALSE"
        if self._kind != "n" or not held:
            return held
        value = float(held)
        style = self.styles[self._style] if self._style < len(self.styles) else None
        try:
            return style(value, self._epoch) if style else _number(value)
        except OverflowError:  # no calendar has the date
            return held


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - ord("A") + 1
    return number


def _rows(parts: _Parts, path: str, cells: _Cells) -> Iterator[Row]:
    try:
        for _ in parts.pieces(path, cells):
            yield from cells.ready
            cells.ready.clear()
    except InputError:
        raise
    except Exception as error:
        raise InputError(_damaged(error)) from error
