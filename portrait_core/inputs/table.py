"""A manifest as a table of text, CSV or Parquet: its columns, its cells, names for its rows.

Rows are numbered as a spreadsheet shows them; this module does not interpret the cells.
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
from typing import Any

from portrait_core.errors import InputError
from portrait_core.store.documents import canonical_json
from portrait_core.store.files import Files
from portrait_core.store.places import folder_of, place_name, redact_place
from portrait_core.text.visible import visible

COLUMNS = ("portrait", "video", "name", "profile", "overrides", "edit", "licence", "consent")
"""Names of a manifest's columns."""
CONSENT = ("licence", "consent")
"""Names of the columns that document the subject's consent."""
NUMBER = "row"
"""Name of a column of a shard's manifest: the number of each row in the original manifest."""
MAX_SHOWN = 50
"""Number of problems that an error's message shows; the error holds all of them."""


@dataclass(frozen=True, order=True)
class Problem:
    """A problem of a manifest."""

    row: int
    """Number of its row; 0 stands for the file as a whole."""
    text: str
    """The problem and the advice."""

    def __str__(self) -> str:
        return visible(f"row {self.row}: {self.text}" if self.row else self.text)


class ManifestError(InputError):
    """A manifest is unusable.

    Attributes:
        url: path or URL of the manifest.
        problems: all problems; the message shows the first :data:`MAX_SHOWN`.
    """

    _all = "`portrait dataset check` lists them all"

    def __init__(self, url: str, problems: Sequence[Problem]) -> None:
        self.url = url
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:MAX_SHOWN]]
        if len(self.problems) > MAX_SHOWN:
            lines.append(f"and {len(self.problems) - MAX_SHOWN} more; {self._all}")
        rows = len({problem.row for problem in self.problems})
        name = redact_place(url)
        head = f"{name}: {len(self.problems)} problems in {rows} rows; nothing was started"
        super().__init__("\n".join([head, *lines]) if len(self.problems) > 1 else f"{name}: {lines[0]}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.problems)


@dataclass
class Table:
    """A manifest's cells without surrounding space, and without empty rows."""

    columns: list[str]
    """Names of the columns, in lower case."""
    header: int = 1
    """Number of the row with the columns' names."""
    records: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Number and cells of every row."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, number: int, cells: Sequence[str]) -> None:
        """Add a row, unless all of it is empty."""
        cells = [cell.strip() for cell in cells]
        named = {name: cell for name, cell in zip(self.columns, cells, strict=False) if name}
        if sum(map(bool, cells)) > sum(map(bool, named.values())):
            text = "has more cells than the header has names; put a cell that holds a separator into quotes"
            self.problems.append(Problem(number, text))
        elif any(cells):
            self.records.append((number, named))

    def restore_numbers(self) -> None:
        """Number the rows by the column :data:`NUMBER`, where there is one."""
        taken: set[int] = set()
        for i, (number, cells) in enumerate(self.records):
            cell = cells.pop(NUMBER, "")
            own = int(cell) if re.fullmatch("[0-9]{1,9}", cell) else 0
            if cell and (own < 2 or own in taken):
                text = f"the column {NUMBER!r} holds {cell!r}; give each row a number of its own, 2 or more"
                self.problems.append(Problem(number, f"{text}, or delete the column"))
                own = 0
            own = own or number
            self.records[i] = (own, cells)
            taken.add(own)

    def digest(self) -> str:
        """Return the SHA-256 of the cells, independent of format, order of columns and empty rows."""
        cells = [{name: cell for name, cell in record.items() if cell} for _, record in self.records]
        return hashlib.sha256(canonical_json(cells)).hexdigest()


def read_table(data: bytes, known: Sequence[str] = COLUMNS) -> Table:
    """Read a manifest: Parquet is recognised by its first bytes, else it is CSV with the header's separator.

    Args:
        data: bytes of the file.
        known: names of columns, in lower case, by which the separator of a header is recognised.

    Raises:
        InputError: it is neither; the message follows the file's name.
    """
    if data[:4] == b"PAR1":
        return _read_parquet(data)
    if data[:4] == b"PK\x03\x04":
        raise InputError("is an Excel workbook; save it as 'CSV UTF-8'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError("is UTF-16 text; save it as 'CSV UTF-8'")
    try:
        return _read_csv(data.decode("utf-8-sig"), known)
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        raise InputError(f"is not UTF-8: byte 0x{byte:02x} in line {line}; save it as 'CSV UTF-8'") from error


def _read_csv(text: str, known: Sequence[str]) -> Table:
    first = next((line for line in text.splitlines() if line.strip()), "")
    known_names = {mark: [name for name in _names(first.split(mark)) if name in known] for mark in ",;\t"}
    separator = max(known_names, key=lambda mark: len(known_names[mark]))
    table: Table | None = None
    number = 0
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    try:
        for number, cells in enumerate(lines, 1):
            if table is not None:
                table.add(number, cells)
            elif any(cell.strip() for cell in cells):
                table = Table(_names(cells), number)
    except csv.Error as error:
        text = f"cannot be read ({error}); check its quotation marks. Rows after it were not checked"
        table = table or Table([], number + 1)
        table.problems.append(Problem(number + 1, text))
    if table is None:
        raise InputError(f"is empty; its first row names the columns: {', '.join(known)}")
    return table


def _read_parquet(data: bytes) -> Table:
    import pyarrow as pa  # here: slow to import, and seldom needed
    import pyarrow.parquet as pq

    try:
        read = pq.read_table(io.BytesIO(data))
        columns = [column.to_pylist() for column in read.columns]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"is not readable Parquet ({error}); write it again") from error
    table = Table(_names(read.column_names))
    for name, kind in zip(table.columns, read.schema.types, strict=True):
        plain = kind.value_type if pa.types.is_dictionary(kind) else kind
        if str(plain) not in ("string", "large_string", "string_view", "null"):
            table.problems.append(Problem(1, f"the column {name!r} holds {plain}; write it as text (string)"))
    if not table.problems:
        for number, cells in enumerate(zip(*columns, strict=True), 2):
            table.add(number, [cell or "" for cell in cells])
    return table


def _names(cells: Iterable[str]) -> list[str]:
    return [cell.strip().strip('"').lower() for cell in cells]


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

    Raises:
        InputError: the suffix is not .csv, .parquet or .pq.
    """
    columns = [name for name in (*COLUMNS, NUMBER) if any(name in row for row in rows)]
    suffix = PurePosixPath(url).suffix.lower()
    target = io.BytesIO()
    if suffix == ".csv":
        text = io.TextIOWrapper(target, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([row.get(name, "") for name in columns] for row in rows)
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
