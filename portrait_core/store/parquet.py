"""Reading of Parquet tables whose decoded size is known before anything is decoded.

A dictionary, run lengths, shared prefixes or an ordinary compressor let a few kilobytes stand for gigabytes,
and a table of failures or a manifest may be a stranger's. The reader takes memory by the heads of the pages,
not by the footer alone, and asking it for a damaged footer's columns can end the process, so both are read
here first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from portrait_core.errors import InputError
from portrait_core.settings.limits import refuse_beyond
from portrait_core.store.thrift import I64, Structure, read_structure

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_FOOTER_BYTES = 1 << 20
"""Bytes of the largest footer that is read; the reader takes some hundred times as many for it."""
_MAX_PAGES = 1 << 16
_TEXT, _FIXED = 6, 7
"""Parquet's numbers of the physical types of text, and of bytes of a fixed length."""
_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8, _TEXT: 4}
"""Bytes of a decoded value by its physical type; of text, those beside its characters."""
_MAX_FIXED_BYTES = 64
"""Bytes of the longest value of a fixed length, which a dictionary can repeat for every row."""
_ENCODINGS = (0, 2, 3, 5, 6, 8, 9)
"""Parquet's numbers of the accepted encodings: all but those in which values share prefixes (7)."""
_DICTIONARY = 2
_PAGES = {0: (5, 2), _DICTIONARY: (7, 2), 3: (8, 4)}
"""Kinds of pages: the field with what is particular to each, and in it the field of the encoding."""


@dataclass(frozen=True)
class _Column:
    """A column, by the footer."""

    name: str
    kind: int
    """Parquet's number of its physical type."""
    width: int
    """Bytes of a decoded value."""


@dataclass(frozen=True)
class _Page:
    """A page, by its head."""

    values: int
    bytes: int
    """Bytes without compression."""
    is_dictionary: bool


def read_parquet_bounded(data: bytes) -> pa.Table:
    """Read a flat Parquet table, once its decoded size is known to be within the limits.

    Rows are compared with ``limits.table_rows``; the bytes of the file, those of its pages without
    compression, and those of all values with ``limits.table_bytes``.

    Args:
        data: bytes of the file.

    Returns:
        Plain columns, none of them a dictionary.

    Raises:
        InputError: the table exceeds a limit, is nested, or cannot be read; the message follows the file's
            name.
    """
    import pyarrow as pa  # here: slow to import, and seldom needed
    import pyarrow.parquet as pq

    _refuse("table_bytes", len(data))
    length = int.from_bytes(data[-8:-4], "little")
    if data[-4:] != b"PAR1" or not 0 < length <= min(_MAX_FOOTER_BYTES, len(data) - 8):
        raise _unreadable("its footer is not there, or too large")
    try:
        footer, _ = read_structure(data, len(data) - 8 - length)
        repeated = _check_sizes(data, footer)
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=repeated, arrow_extensions_enabled=False)
        return _plain(file.read(use_threads=False))
    except InputError:
        raise
    except Exception as error:  # Parquet's reader raises many kinds of errors for broken bytes
        raise _unreadable(error) from error


def _unreadable(why: object) -> InputError:
    return InputError(f"is not readable Parquet ({why}); write it again")


def _refuse(limit: str, found: int) -> None:
    """Compare a number with a limit; the message follows the file's name."""
    try:
        refuse_beyond(limit, found, "")
    except InputError as error:
        raise InputError(str(error).strip()) from None


def _check_sizes(data: bytes, footer: Structure) -> list[str]:
    """Check what the reader would take memory for, by the footer and the heads of all pages.

    Returns:
        Names of the columns of text with dictionaries. Read as dictionaries, repeated texts stay as small as
        they are stored until they are counted.

    Raises:
        InputError: the table exceeds a limit, or is of a kind that this program does not read.
    """
    columns, rows, groups = _columns(footer), footer.integer(3, I64), footer.structures(4)
    _refuse("table_rows", rows or 0)
    _refuse("table_bytes", sum((rows or 0) * column.width for column in columns))
    repeated: set[str] = set()
    pages = plain_bytes = 0
    for group in groups:
        chunks, count = group.structures(1), group.integer(3, I64)
        if len(chunks) != len(columns) or count is None or count < 0:
            raise _unreadable("its footer contradicts itself")
        for column, chunk in zip(columns, chunks, strict=True):
            values = 0
            for page in _pages(data, chunk.structure(3), count):
                pages, plain_bytes = pages + 1, plain_bytes + page.bytes
                values += 0 if page.is_dictionary else page.values
                if page.is_dictionary and column.kind == _TEXT:
                    repeated.add(column.name)
                if pages > _MAX_PAGES:
                    raise InputError(f"holds more than {_MAX_PAGES:,} pages; write larger ones")
                _refuse("table_bytes", plain_bytes)
            if values != count:
                raise _unreadable("a column lacks rows, or has too many")
    if rows != sum(group.integer(3, I64) or 0 for group in groups):
        raise _unreadable("its footer contradicts itself")
    return sorted(repeated)


def _columns(footer: Structure) -> list[_Column]:
    """Return the columns that the footer describes.

    Raises:
        InputError: some are nested, or have very long values of a fixed length.
    """
    root, *elements = footer.structures(2) or [Structure()]
    if root.integer(5) != len(elements):
        raise InputError("holds nested columns, or none; write flat ones")
    columns = []
    for element in elements:
        name, kind = (element.text(4) or b"").decode(), element.integer(1)
        if element.integer(3) not in (0, 1) or element.integer(5):  # it repeats, or has parts
            raise InputError(f"holds the nested column {name!r}; write flat ones")
        width = element.integer(2) if kind == _FIXED else _WIDTHS.get(-1 if kind is None else kind)
        if kind is None or width is None or not 0 < width <= _MAX_FIXED_BYTES:
            raise InputError(f"holds values of {width} bytes in the column {name!r}; write text")
        columns.append(_Column(name, kind, width))
    return columns


def _pages(data: bytes, chunk: Structure, rows: int) -> Iterator[_Page]:
    """Yield the pages of a column's part of a group of rows.

    Args:
        data: bytes of the file.
        chunk: what the footer says of the part.
        rows: number of rows of the group.

    Raises:
        InputError: a page is not of a kind that this program reads, or lies outside the file.
    """
    values, length, begin = (chunk.integer(number, I64) for number in (5, 7, 9))
    if values != rows:
        raise _unreadable("its footer contradicts itself")
    if not rows:  # the offsets may then be anything
        return
    dictionary = chunk.integer(11, I64)
    if begin is not None and dictionary is not None and 0 < dictionary < begin:
        begin = dictionary
    if begin is None or length is None or not 0 < begin <= begin + length <= len(data):
        raise _unreadable("a column lies outside the file")
    at, end = begin, begin + length
    while at < end:
        head, at = read_structure(data, at)
        kind, size, stored = head.integer(1), head.integer(2), head.integer(3)
        if size is None or stored is None or size < 0 or not 0 <= stored <= end - at:
            raise _unreadable("the head of a page is damaged")
        at += stored
        field, encoding = _PAGES.get(-1 if kind is None else kind, (0, 0))
        about = head.structure(field)
        if about.integer(encoding) not in _ENCODINGS:
            raise InputError("holds pages of a kind that is not read; write it again without delta encodings")
        count = about.integer(1)
        if count is None or count < 0 or (kind == _DICTIONARY and count > size):
            raise _unreadable("the head of a page is damaged")
        yield _Page(count, size, kind == _DICTIONARY)


def _plain(table: pa.Table) -> pa.Table:
    """Decode the dictionaries of a table, once the texts are known to be within the limits."""
    import pyarrow as pa
    import pyarrow.compute as pc

    repeated = [i for i, column in enumerate(table.columns) if pa.types.is_dictionary(column.type)]
    characters = 0
    for chunk in (chunk for i in repeated for chunk in table.column(i).chunks):
        lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
        characters += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        _refuse("table_bytes", characters)
    for i in repeated:
        column = table.column(i)
        chunks = [chunk.dictionary_decode() for chunk in column.chunks]
        table = table.set_column(i, table.field(i).name, pa.chunked_array(chunks, column.type.value_type))
    return table
