"""Tables of labels that users provide, and their combination with labels that models read.

A table is CSV (or Parquet with columns of text) at any path or fsspec URL: a column ``picture`` and one
column per attribute. Every invalid row is reported with its number as in a spreadsheet.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Condition, Conditions
from portrait_core.errors import InputError, clipped
from portrait_core.inputs.sources import read_bytes
from portrait_core.inputs.table import ManifestError, Problem, Table, read_table
from portrait_core.store.places import redact_place

Labels = Mapping[str, Mapping[str, float]]
"""Values in their units by picture and attribute."""

PICTURE = "picture"
"""Column with the name of a row's picture: a file's name, or a sample's number."""
_SWITCH = {"on": 1.0, "off": 0.0}
_SHOWN = 5


class LabelsError(ManifestError):
    """A table of labels is invalid; ``problems`` holds everything that is wrong with it."""

    _all = _first = "correct these first"


def picture_key(name: str) -> str:
    """Return the key by which rows and pictures are matched.

    It is a file's name without its folder, or a number without leading zeros.
    """
    last = PurePosixPath(name.strip().replace("\\", "/")).name
    return last.lstrip("0") or "0" if re.fullmatch(r"\d+", last, re.ASCII) else last


def read_labels(
    path_or_url: str, conditions: Conditions = PUBLISHED_CONDITIONS
) -> dict[str, dict[str, float]]:
    """Read labels of pictures.

    Cells hold numbers in the attribute's unit, with a decimal point; a switch also takes ``on`` and ``off``;
    an empty cell leaves the label to other sources. Shares and switches lie within 0..1; other labels may lie
    outside their range, which is that of edits. Columns of published attributes that the StyleFlow does not
    know are ignored.

    Args:
        path_or_url: path or URL of a CSV file, separated by commas, semicolons or tabs.
        conditions: names, kinds and units.

    Returns:
        Values by :func:`picture_key` and attribute, in the order of the rows.

    Raises:
        LabelsError: with every problem of every row, or for missing columns.
        InputError: the file does not exist or is not readable.
    """
    columns = {attribute.name.lower(): attribute for attribute in conditions.attributes}
    try:
        table = read_table(read_bytes(path_or_url, "table of labels"), (PICTURE, *columns))
    except InputError as error:
        text = str(error).removeprefix(f"{redact_place(path_or_url)} ")
        raise LabelsError(path_or_url, [Problem(0, text)]) from error
    problems = table.problems
    for problem in _column_problems(path_or_url, table, columns):
        problems.add(problem.row, problem.text)
    if not table.records and not problems:
        problems.add(0, "holds no row; give each picture a row below the header")
    labels: dict[str, dict[str, float]] = {}
    rows: dict[str, int] = {}
    for number, cells in table.records:
        key = picture_key(cells.get(PICTURE, ""))
        values, wrong = _values(cells, columns)
        if not key:
            wrong.append(f"the cell {PICTURE!r} is empty; give the file's name or the sample's number")
        elif rows.setdefault(key, number) != number:
            wrong.append(f"the picture {clipped(key)} is also in row {rows[key]}; give each picture one row")
        for text in wrong:
            problems.add(number, text)
        labels[key] = values
    if problems:
        raise LabelsError(path_or_url, problems.ordered(), problems.more)
    return labels


def _column_problems(url: str, table: Table, columns: Mapping[str, Condition]) -> list[Problem]:
    """List the problems of the columns.

    Raises:
        LabelsError: no row can be read with these columns.
    """
    names = [name for name in table.columns if name]
    every, problems, fatal = ", ".join((PICTURE, *columns)), [], []
    for name in dict.fromkeys(names):
        if name not in (PICTURE, *columns, *PUBLISHED_CONDITIONS.names):
            close = ", ".join(difflib.get_close_matches(name, (PICTURE, *columns), n=3))
            advice = f"did you mean {close}?" if close else "delete it."
            problems.append(Problem(table.header, f"unknown column {name!r}; {advice} Columns are {every}"))
    if PICTURE not in names:
        text = f"there is no column {PICTURE!r} (each picture's file name or number); add it"
        fatal.append(Problem(table.header, text))
    if not set(columns) & set(names):
        fatal.append(
            Problem(table.header, f"there is no column of an attribute; add some of {', '.join(columns)}")
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    fatal += [Problem(table.header, f"the column {name!r} comes twice; delete one") for name in twice]
    if fatal:
        raise LabelsError(url, [*problems, *fatal])
    return problems


def _values(cells: Mapping[str, str], columns: Mapping[str, Condition]) -> tuple[dict[str, float], list[str]]:
    """Return a row's values by attribute, and the problems of the others."""
    values, wrong = {}, []
    for column, attribute in columns.items():
        if text := cells.get(column, ""):
            try:
                values[attribute.name] = _value(text, attribute)
            except ValueError as error:
                wrong.append(str(error))
    return values, wrong


def _value(text: str, attribute: Condition) -> float:
    switch = attribute.kind == "switch"
    if switch and text.lower() in _SWITCH:
        return _SWITCH[text.lower()]
    unit = f" in {attribute.unit}" if attribute.unit else ""
    expected = "on, off or a number in 0..1" if switch else f"a number{unit}, such as {attribute.high:g}"
    try:
        value = float(text)
    except ValueError as error:
        comma = "; write decimals with a point" if "," in text else ""
        raise ValueError(f"{attribute.name} is {clipped(text)!r}, expected {expected}{comma}") from error
    if not math.isfinite(value):
        raise ValueError(
            f"{attribute.name} is {text!r}, expected {expected}; leave the cell empty for no label"
        )
    if attribute.kind != "continuous" and not attribute.low <= value <= attribute.high:
        raise ValueError(f"{attribute.name} is {text}, expected {attribute.range_text}")
    return value


def complete_labels(
    local: Labels, table: Labels, conditions: Conditions = PUBLISHED_CONDITIONS
) -> dict[str, dict[str, float]]:
    """Return all labels that a StyleFlow needs per picture: the table's where it has one, else the local one.

    Args:
        local: labels by models, for every picture to be labelled (an empty mapping where they read nothing),
            by the picture's name, as :meth:`PhotographLabels.by_picture` returns them.
        table: labels of :func:`read_labels`; rows of other pictures are ignored.
        conditions: the StyleFlow's attributes; held ones are left out.

    Returns:
        Values by the names of ``local`` and by attribute, both in order.

    Raises:
        InputError: an attribute is missing, with the number and names of the pictures; no row of the table
            belongs to a picture; or a row belongs to two pictures.
    """
    keys = Counter(map(picture_key, local))
    if shared := [key for key, count in keys.items() if count > 1]:
        raise InputError(f"several pictures are named {_some(shared)}; give each file a unique name")
    if local and table and not keys.keys() & {*map(picture_key, table)}:
        raise InputError(
            f"no row of the table belongs to any of the pictures: it names {_some(list(table))}, the "
            f"pictures are {_some(list(local))}; give the files' names or the samples' "
            f"numbers in the column {PICTURE!r}"
        )
    rows = {picture_key(name): values for name, values in table.items()}
    whole = {name: {**values, **rows.get(picture_key(name), {})} for name, values in local.items()}
    missing = {
        attribute: [
            name for name, values in whole.items() if not math.isfinite(values.get(attribute, math.nan))
        ]
        for attribute in conditions.editable
    }
    lines = [
        f"{attribute} is missing for {len(names)} of {len(whole)} pictures ({_some(names)})"
        for attribute, names in missing.items()
        if names
    ]
    if lines:
        raise InputError(
            "\n".join(lines)
            + f"\nprovide them in a CSV with a column {PICTURE!r} and one column per attribute, leave "
            "those pictures out, or train a StyleFlow that does not know the attribute"
        )
    return {name: {key: values[key] for key in conditions.editable} for name, values in whole.items()}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(clipped, names[:_SHOWN])) + more
