"""A manifest as a table of text, CSV, Excel or Parquet: its columns, its cells, names for its rows.

Rows are numbered as a spreadsheet shows them; this module does not interpret the cells. A table may be a
stranger's: its size, rows, columns and cells are compared with the limits of this process while it is read.

A spreadsheet computes cells that begin with ``=``, ``+``, ``-`` or ``@``. A CSV file that is written here has
an apostrophe before them, which spreadsheets show as text, and reading takes it away again.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from portrait_core.errors import InputError, clipped
from portrait_core.inputs.problems import MAX_SHOWN, ManifestError, Problem, Problems
from portrait_core.inputs.workbook import read_workbook
from portrait_core.media.kinds import HEAD_BYTES, kind_of
from portrait_core.settings.limits import current_limits, over_limit
from portrait_core.store.documents import canonical_json
from portrait_core.store.files import Files
from portrait_core.store.parquet import read_parquet_bounded
from portrait_core.store.places import folder_of, place_name, redact_place

__all__ = [
    "COLUMNS",
    "CONSENT",
    "MAX_SHOWN",
    "NUMBER",
    "ManifestError",
    "Problem",
    "Problems",
    "Table",
    "column_problems",
    "read_table",
    "stem",
    "unique_name",
    "write_table",
]

COLUMNS = ("portrait", "video", "name", "profile", "overrides", "edit", "licence", "consent")
"""Names of a manifest's columns."""
CONSENT = ("licence", "consent")
"""Names of the columns that document the subject's consent."""
NUMBER = "row"
"""Name of a column of a shard's manifest: the number of each row in the original manifest."""
_FORMULA = re.compile(r"'*[=+\-@\s]")
"""Beginning of a cell that is written with one more apostrophe: what a spreadsheet computes, white space,
which reading would remove, and what already begins like a cell that was written so."""
_SEPARATOR = re.compile(r"""\s*"?sep=([^"'\r\n])"?[,;\t ]*\r?\n?""", re.IGNORECASE)
"""A first line that names the separator; a spreadsheet does not count it as a row."""
_LONGEST_ROW = 32
"""Number of the longest cells that a row of CSV may have, or as many characters in more cells."""
_BATCH = 10_000
"""Number of rows of Parquet that become Python's texts at a time."""


@dataclass
class Table:
    """A manifest's cells without surrounding space, and without empty rows."""

    columns: list[str]
    """Names of the columns, in lower case."""
    header: int = 1
    """Number of the row with the columns' names."""
    records: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Number and cells of every row."""
    problems: Problems = field(default_factory=Problems)
    notes: list[str] = field(default_factory=list)
    """Remarks for a person on how the file was read."""

    def __post_init__(self) -> None:
        if problem := over_limit("table_columns", len(self.columns)):
            raise InputError(problem)

    def add(self, number: int, cells: Sequence[str]) -> None:
        """Add a row of cells without surrounding space, unless all of it is empty."""
        # without empty cells: a few bytes of a file would stand for thousands of them in memory
        named = {name: cell for name, cell in zip(self.columns, cells, strict=False) if name and cell}
        if sum(map(bool, cells)) > sum(map(bool, named.values())):
            text = "has more cells than the header has names; put a cell that holds a separator into quotes"
            self.problems.add(number, text)
        elif wrong := _unusable(named):
            self.problems.add(number, wrong)
        elif any(cells):
            self.records.append((number, named))

    def restore_numbers(self) -> None:
        """Number the rows by the column :data:`NUMBER`, where there is one."""
        taken: set[int] = set()
        for i, (number, cells) in enumerate(self.records):
            cell = cells.pop(NUMBER, "")
            own = int(cell) if re.fullmatch("[0-9]{1,9}", cell) else 0
            if cell and (own < 2 or own in taken):
                text = (
                    f"the column {NUMBER!r} holds {clipped(cell)!r}; give each row a number of its own, 2 or"
                )
                self.problems.add(number, f"{text} more, or delete the column")
                own = 0
            own = own or number
            self.records[i] = (own, cells)
            taken.add(own)

    def digest(self) -> str:
        """Return the SHA-256 of the cells, independent of format, order of columns and empty rows."""
        digest = hashlib.sha256()
        for i, (_, record) in enumerate(self.records):
            digest.update(b"," if i else b"[")
            digest.update(canonical_json({name: cell for name, cell in record.items() if cell}))
        digest.update(b"]" if self.records else b"[]")
        return digest.hexdigest()


def _unusable(cells: Mapping[str, str]) -> str:
    """Return why a row's cells cannot be used, else nothing."""
    most = current_limits().cell_characters
    for name, cell in cells.items():
        if len(cell) > most:
            return f"the cell {name!r} {over_limit('cell_characters', len(cell))}"
        if "\0" in cell:
            return f"the cell {name!r} holds a NUL character; delete it"
    return ""


def read_table(data: bytes, known: Sequence[str] = COLUMNS) -> Table:
    """Read a manifest: Parquet and Excel are recognised by their first bytes, else it is CSV.

    The separator of CSV is that of a first line ``sep=;``, which is skipped, else the header's.

    Args:
        data: bytes of the file.
        known: names of columns, in lower case, by which the separator of a header is recognised.

    Raises:
        InputError: it is neither, or larger than the limits; the message follows the file's name.
    """
    if data[:4] == b"PAR1":
        return _read_parquet(data)
    if data[:4] == b"PK\x03\x04":
        return _read_workbook(data, known)
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = _from_utf16(data)
    head = data[:HEAD_BYTES]
    kind = kind_of(head)
    if kind and (
        b"\0" in head or kind.family in ("page", "pointer", "document")
    ):  # a header may begin as any
        raise InputError(f"is {kind}; a table is a CSV file, an Excel workbook (.xlsx) or a Parquet file")
    try:
        return _read_csv(data, known)
    except UnicodeDecodeError:
        raise InputError(_not_utf8(data)) from None


def _from_utf16(data: bytes) -> bytes:
    """Return UTF-16 text, which Excel calls "Unicode text", as UTF-8."""
    try:
        text = data.decode("utf-16").encode()
    except UnicodeError as error:
        raise InputError(f"is damaged UTF-16 text ({error}); save it as 'CSV UTF-8'") from None
    if problem := over_limit("table_bytes", len(text)):
        raise InputError(problem)
    return text


def _read_workbook(data: bytes, known: Sequence[str]) -> Table:
    sheet = read_workbook(data)
    table: Table | None = None
    for number, cells in sheet.rows:
        if table is None:
            table = Table(_names(cells), number)
        else:
            table.add(number, cells)
        if problem := over_limit("table_rows", len(table.records)):
            raise InputError(problem)
    if table is None:
        raise InputError(f"has an empty first sheet; its first row names the columns: {', '.join(known)}")
    if sheet.others:
        others = ", ".join(map(clipped, sheet.others[:5]))
        table.notes.append(f"the first sheet, {clipped(sheet.name)}, is read; others are not: {others}")
    return table


class _Lines:
    """Lines of a text for :mod:`csv`, which joins them to rows; a row that outgrows its limit is refused."""

    def __init__(self, data: bytes) -> None:
        self._text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
        self.begin_row()

    def begin_row(self) -> None:
        """Allow the characters of another row."""
        self._left = _LONGEST_ROW * current_limits().cell_characters

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise InputError(
                f"has a row of more than {_LONGEST_ROW * current_limits().cell_characters:,} characters; "
                "check its quotation marks, or raise limits.cell_characters"
            )
        if not line:
            raise StopIteration
        return line


def _read_csv(data: bytes, known: Sequence[str]) -> Table:
    lines = _Lines(data)
    separator = _separator(data, known, lines)
    # the module's own limit, for the whole process, is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), current_limits().cell_characters))
    table: Table | None = None
    number = 0
    rows = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for number, cells in enumerate(rows, 1):
            lines.begin_row()
            if table is not None:
                table.add(number, [_read_cell(cell) for cell in cells])
            elif any(cell.strip() for cell in cells):
                table = Table(_names(cells), number)
            filled = len(table.records) if table is not None else 0
            # half of the rows may be empty or unusable
            if problem := over_limit("table_rows", max(filled, number // 2)):
                raise InputError(problem)
    except csv.Error as error:
        text = f"cannot be read ({error}); check its quotation marks. Rows after it were not checked"
        table = table or Table([], number + 1)
        table.problems.add(number + 1, text)
    if table is None:
        raise InputError(f"is empty; its first row names the columns: {', '.join(known)}")
    return table


def _separator(data: bytes, known: Sequence[str], lines: _Lines) -> str:
    """Return the separator of a table, and skip in ``lines`` a first line that names it, as Excel does."""
    first = next((line for line in _Lines(data) if line.strip()), "")
    if named := _SEPARATOR.fullmatch(first):
        next(line for line in lines if line.strip())
        lines.begin_row()
        return named[1]
    known_names = {mark: [name for name in _names(first.split(mark)) if name in known] for mark in ",;\t|"}
    return max(known_names, key=lambda mark: len(known_names[mark]))


def _read_cell(cell: str) -> str:
    """Return a cell of CSV without surrounding space, and without the apostrophe of :func:`_written_cell`."""
    cell = cell.strip()
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _written_cell(cell: str) -> str:
    """Return a cell for CSV, with an apostrophe before what a spreadsheet would compute."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _not_utf8(data: bytes) -> str:
    """Return the place of the first byte that is not UTF-8, and the advice."""
    for number, line in enumerate(io.BytesIO(data), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            byte = line[error.start]
            return f"is not UTF-8: byte 0x{byte:02x} in line {number}; save it as 'CSV UTF-8'"
    return "is not UTF-8; save it as 'CSV UTF-8'"


def _read_parquet(data: bytes) -> Table:
    read = read_parquet_bounded(data)
    table = Table(_names(read.column_names))
    for name, kind in zip(table.columns, read.schema.types, strict=True):
        if str(kind) not in ("string", "large_string", "string_view", "null"):
            table.problems.add(1, f"the column {name!r} holds {kind}; write it as text (string)")
    if table.problems:
        return table
    number = 1
    try:
        for batch in read.to_batches(max_chunksize=_BATCH):
            columns = [column.to_pylist() for column in batch.columns]
            for number, cells in enumerate(zip(*columns, strict=True), number + 1):  # noqa: B020
                table.add(number, [(cell or "").strip() for cell in cells])
    except ValueError as error:  # text that is not UTF-8
        raise InputError(f"is not readable Parquet ({error}); write it again") from error
    return table


def _names(cells: Iterable[str]) -> list[str]:
    return [clipped(cell.strip().strip('"').lower()) for cell in cells]


def column_problems(url: str, table: Table, require_consent: bool) -> list[Problem]:
    """Return the problems of the columns.

    Args:
        url: path or URL of the manifest.
        table: the manifest.
        require_consent: whether the columns :data:`CONSENT` are required.

    Raises:
        ManifestError: no row can be read with these columns.
    """
    every = ", ".join(COLUMNS)
    problems = []
    for name in dict.fromkeys(filter(None, table.columns)):
        if name not in (*COLUMNS, NUMBER):
            close = ", ".join(difflib.get_close_matches(name, COLUMNS, n=3))
            advice = f"did you mean {close}?" if close else "delete it."
            problems.append(Problem(table.header, f"unknown column {name!r}; {advice} Columns are {every}"))
    needed = ("portrait", "video", *(CONSENT if require_consent else ()))
    missing = [name for name in needed if name not in table.columns]
    why = {
        "licence": " (the licence of the subject's pictures)",
        "consent": " (reference of the subject's consent)",
    }
    for name in missing:
        problems.append(Problem(table.header, f"there is no column {name!r}{why.get(name, '')}; add it"))
    twice = [name for name, count in Counter(table.columns).items() if name and count > 1]
    problems += [Problem(table.header, f"the column {name!r} is there twice; delete one") for name in twice]
    if twice or {"portrait", "video"} & {*missing}:
        raise ManifestError(url, problems)
    return problems


def write_table(url: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as a manifest, whole or not at all, with the columns that any of them has.

    :func:`read_table` reads the same cells again, except that of Parquet it removes surrounding space.

    Raises:
        InputError: the suffix is not .csv, .parquet or .pq, or a cell is no text of UTF-8.
    """
    columns = [name for name in (*COLUMNS, NUMBER) if any(name in row for row in rows)]
    suffix = PurePosixPath(url).suffix.lower()
    target = io.BytesIO()
    if suffix == ".csv":
        text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
        # the module quotes a carriage return by itself only where that ends lines
        odd = any("\r" in cell for row in rows for cell in row.values())
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL)
        writer.writerow(columns)
        writer.writerows([_written_cell(row.get(name, "")) for name in columns] for row in rows)
    elif suffix in (".parquet", ".pq"):
        import pyarrow as pa  # here: slow to import, and seldom needed
        import pyarrow.parquet as pq

        cells = {name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in columns}
        pq.write_table(pa.table(cells), target)
    else:
        raise InputError(f"a manifest is written as .csv or .parquet; got {redact_place(url)}")
    Files(folder_of(url)).put({PurePosixPath(url).name: target.getvalue()})


def stem(place: str) -> str:
    """Return the stem of a file's name, without characters that a store cannot hold."""
    name = PurePosixPath(place_name(place)).stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:80] or "input"


def unique_name(preferred: str, identity: str, taken: set[str]) -> str:
    """Return ``preferred``, extended by a digest of ``identity`` where it is taken, and mark it as taken.

    ``taken`` is in lower case, because file systems may ignore case.
    """
    digest = hashlib.sha256(identity.encode()).hexdigest()
    names = (preferred, f"{preferred[:180]}-{digest[:8]}", f"{preferred[:120]}-{digest}")
    name = next((name for name in names if name.casefold() not in taken), names[-1])
    taken.add(name.casefold())
    return name
