"""Failures as rows of append-only tables, so that writers never lose each other's rows."""

from __future__ import annotations

import io
import logging
import secrets
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, get_args

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits, refuse_beyond
from portrait_core.store.parquet import read_parquet_bounded
from portrait_core.text.redaction import redact_text

if TYPE_CHECKING:
    import pandas as pd

FailureClass = Literal["input", "store", "transient", "resource", "poison"]
"""Class of a failure.

- ``input``: an input is unusable (no face, no picture); never tried again automatically.
- ``store``: the store refuses access, does not exist, or did not answer for two minutes; it was waited for
  already. No frame is to blame: the next run does all of them, once the store works again.
- ``transient``: passes, or needs another machine; tried again, with doubled waits.
- ``resource``: too little memory, tried again with less; or a full disk, where a person has to make room.
- ``poison``: the code fails on it, or its worker dies each time; set aside until ``portrait retry``.
"""
QUARANTINE_CLASSES: tuple[FailureClass, ...] = ("input", "poison")
"""Classes whose failures set their frame aside, because it would only fail again."""
COLUMNS = {
    "stage": "string",
    "frame": "Int64",
    "cls": "string",
    "message": "string",
    "attempt": "Int64",
    "host": "string",
    "time_utc": "datetime64[us, UTC]",
    "key": "string",
}
_MAX_CHARACTERS = 10_000
"""Characters of a text in a table, the rest of which is left out."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """One failure."""

    stage: str
    frame: int | None
    """The frame, or None when the whole unit failed."""
    cls: FailureClass
    """Class of the failure."""
    message: str
    attempt: int = 1
    host: str = field(default_factory=socket.gethostname)
    time_utc: datetime = field(default_factory=lambda: datetime.now(UTC))
    key: str = ""
    """Key of the stage that failed."""

    def __post_init__(self) -> None:
        if self.cls not in get_args(FailureClass):
            raise InputError(f"a failure's class is one of {get_args(FailureClass)}; got {self.cls!r}")
        object.__setattr__(self, "message", redact_text(self.message))  # a row outlives its secrets


def make_table(rows: Sequence[Failure]) -> tuple[str, bytes]:
    """Write failures as a small Parquet file; return a name that no other writer takes, and its bytes."""
    import pandas as pd  # here: slow to import, and most users of the store need no table

    frame = pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS)).astype(COLUMNS)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    first = min(row.time_utc for row in rows)
    return f"{first.astimezone(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(6)}.parquet", buffer.getvalue()


def concatenate_tables(tables: Iterable[tuple[str, bytes]]) -> pd.DataFrame:
    """Concatenate tables of failures; one that cannot be read is left out with a warning in the log.

    Rows beyond ``limits.table_rows`` in all are left out too.

    Args:
        tables: names and bytes of Parquet files.

    Returns:
        One row per failure, oldest first: stage, frame (missing: the whole unit), cls, message, attempt,
        host, time_utc, key (empty in tables that were written before there was such a column).
    """
    import pandas as pd

    frames, count = [], 0
    for name, table in tables:
        try:
            rows = read_table(table)
            refuse_beyond("table_rows", count + len(rows), "with those before it, it")
        except InputError as error:
            _log.warning("failure table %s cannot be read (%s); its rows are left out", name, error)
            continue
        frames.append(rows)
        count += len(rows)
    if not frames:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    rows = pd.concat(frames, ignore_index=True)
    return rows.sort_values(["time_utc", "stage", "frame"], ignore_index=True)


def read_table(table: bytes) -> pd.DataFrame:
    """Read one table of failures; rows of frames that no clip has are left out, very long texts are cut.

    Raises:
        InputError: it is damaged, too large, or not such a table; the message follows its name.
    """
    read = read_parquet_bounded(table)
    try:
        rows = read.to_pandas(ignore_metadata=True)
        if "key" not in rows:
            rows = rows.assign(key="")
        rows = rows[list(COLUMNS)].astype(COLUMNS)
    except Exception as error:  # pandas raises many kinds of errors for columns of other types
        raise InputError(f"is no table of failures ({error})") from error
    for name in (name for name, kind in COLUMNS.items() if kind == "string"):
        rows[name] = rows[name].fillna("").str.slice(0, _MAX_CHARACTERS)
    frames = rows["frame"].fillna(0)
    possible = (frames >= 0) & (frames < current_limits().video_frames) & rows["time_utc"].notna()
    return rows[possible & rows["cls"].isin(get_args(FailureClass))]
