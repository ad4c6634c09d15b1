"""One portrait, driving video, reenactment, edit or StyleFlow network in the store.

Layout under ``<kind>/<name>/``::

    <stage>.<key>/        output of a stage under a key (portrait_core.store.output)
    label.json            name for people
    failures/*.parquet    rows, append-only
    lease.json            current holder (portrait_core.store.leases)

A unit's name is a digest of its content: renaming or moving a file changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits
from portrait_core.store.documents import canonical_json, read_json
from portrait_core.store.failures import Failure, concatenate_tables, make_table
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_name, is_name
from portrait_core.store.output import Output

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["portrait", "video", "inverted", "edited", "reenactment", "flow", "evaluation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TABLES_PER_READ = 16
"""Number of tables of failures that are read together."""
MAX_LABEL = 1000
"""Characters of a name for people, the rest of which is left out."""
_OUTPUT = re.compile(r"(.+)\.([0-9a-f]+)")


class Unit:
    """A unit of work, made by :meth:`Store.unit`.

    It holds no open files and costs nothing until it is used.
    """

    def __init__(self, files: Files, kind: Kind, name: str) -> None:
        if kind not in KINDS:
            raise InputError(f"a unit's kind is one of {KINDS}; got {kind!r}")
        self.kind = kind
        self.name = checked_name(name, "unit")
        self.path = f"{kind}/{name}"
        self._files = files

    def __repr__(self) -> str:
        return f"Unit({self.path})"

    def output(self, stage: str, key: str) -> Output:
        """Return the folder of a stage under a key, which need not exist yet.

        Raises:
            InputError: not every store can hold the stage's name.
            ValueError: the key is not hexadecimal.
        """
        return Output(self._files, self.path, stage, key)

    def outputs(self) -> list[Output]:
        """List the folders of stages that exist, under any keys, by one listing."""
        names = self._files.list(self.path)
        matches = (_OUTPUT.fullmatch(name) for name in names if is_name(name))
        return [self.output(match[1], match[2]) for match in matches if match]

    def odd_names(self) -> list[str]:
        """List the names in the unit's folder that are no part of a store, by one listing."""
        known = ("label.json", "lease.json", "failures")
        return [
            name
            for name in self._files.list(self.path)
            if name not in known and not (is_name(name) and _OUTPUT.fullmatch(name))
        ]

    def write_label(self, label: str) -> None:
        """Store the unit's name for people."""
        self._files.put({f"{self.path}/label.json": canonical_json({"label": label})})

    def read_label(self) -> str:
        """Read the unit's name for people; its own name when there is none."""
        document = read_json(self._files, f"{self.path}/label.json")
        label = document.get("label") if isinstance(document, dict) else None
        return label[:MAX_LABEL] if isinstance(label, str) else self.name

    def record_failures(self, rows: Sequence[Failure]) -> None:
        """Add rows to the unit's table of failures. Simultaneous writers lose nothing."""
        if rows:
            name, table = make_table(rows)
            self._files.put({f"{self.path}/failures/{name}": table})

    def failures(self) -> pd.DataFrame:
        """Read all failures, oldest first: stage, frame, cls, message, attempt, host, time_utc, key."""
        return concatenate_tables(self._read_tables())

    def _read_tables(self) -> Iterator[tuple[str, bytes]]:
        """Yield the paths and bytes of the files that hold failures, which are read some at a time."""
        names = self.failure_tables()
        most = current_limits().table_bytes
        for at in range(0, len(names), _TABLES_PER_READ):
            paths = [f"{self.path}/failures/{name}" for name in names[at : at + _TABLES_PER_READ]]
            yield from sorted(self._files.get(paths, most).items())

    def failure_tables(self) -> list[str]:
        """List the files that hold failures, by one listing; :meth:`failures` reads every row."""
        names = self._files.list(f"{self.path}/failures")
        return [name for name in names if name.endswith(".parquet")]
