"""A store as a whole: its format, its units, and the records of jobs and inputs.

Layout::

    store.json            number of the format
    jobs/<id>.json        requests: enough to run a job again
    states/<id>.json      outcomes: enough to show a job
    inputs/<id>.json      facts about inputs, by their places
    <kind>/<name>/        units (portrait_core.store.unit)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits
from portrait_core.store.documents import canonical_json, parse_json, read_json
from portrait_core.store.failures import concatenate_tables
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_name, is_name
from portrait_core.store.unit import KINDS, Kind, Unit

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
"""Number of the layout. It is raised when stores of the older layout can no longer be read."""
_FORMAT = "store.json"

RecordKind = Literal["jobs", "states", "inputs", "plans"]


class Store:
    """A store at a path or fsspec URL (``file://``, ``s3://``, ``gs://``, ``memory://``).

    Nothing is read or written until it is used; a store may be sent to another process.
    """

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        """Prepare access to a store.

        Args:
            url: path or URL of the store; a folder is made at the first write, a bucket must exist.
            storage_options: options of the file system (``endpoint_url``, credentials ...).

        Raises:
            InputError: the URL's scheme is unknown or needs a package that is not installed.
        """
        self.url = os.fspath(url)
        self.storage_options = dict(storage_options or {})
        self._files = Files(self.url, self.storage_options)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url, self.storage_options)

    def check_format(self, write: bool = False) -> None:
        """Check that this version of the program can read the store.

        Args:
            write: write the format where there is no store yet.

        Raises:
            InputError: another version wrote the store.
        """
        document = read_json(self._files, _FORMAT)
        number = document.get("format") if isinstance(document, dict) else None
        if number == FORMAT:
            return
        if number is not None or self._is_of_version_1():
            raise InputError(
                f"the store {self.url} was written by another version of this program (format "
                f"{number or 1}, this one reads {FORMAT}): give another --store, or delete this one"
            )
        if write:
            self._files.put({_FORMAT: canonical_json({"format": FORMAT})})

    def _is_of_version_1(self) -> bool:
        """Tell whether a unit has the folder of records of the first layout."""
        for kind in KINDS:
            for name in self.units(kind)[:2]:
                if "records" in self._files.list(f"{kind}/{name}"):
                    return True
        return False

    def unit(self, kind: Kind, name: str) -> Unit:
        """Return the unit of a kind and name, which need not exist yet.

        Raises:
            InputError: the kind is unknown, or not every store can hold the name.
        """
        return Unit(self._files, kind, name)

    def units(self, kind: Kind) -> list[str]:
        """List the names of the units of a kind, sorted; names that no unit can have are ignored."""
        return [name for name in self._files.list(kind) if is_name(name)]

    def odd_names(self, kinds: Iterable[str] | None = None) -> list[str]:
        """List what others left in the store's own folder and in those of its records and units, sorted.

        These names are no part of a store and are passed over.

        Args:
            kinds: folders of records and units that are listed beside the store's own; all by default.
        """
        own = {_FORMAT, *get_args(RecordKind), *KINDS}
        odd = [name for name in self._files.list("") if name not in own]
        for kind in (*get_args(RecordKind), *KINDS) if kinds is None else kinds:
            for name in self._files.list(kind):
                stem = name if kind in KINDS else name.removesuffix(".json")
                if not is_name(stem) or (kind not in KINDS and stem == name):
                    odd.append(f"{kind}/{name}")
        return sorted(odd)

    # Records

    def write_record(self, kind: RecordKind, name: str, value: Any) -> None:
        """Store a record; an older one is replaced at once and whole."""
        self._files.put({_record(kind, name): canonical_json(value)})

    def read_record(self, kind: RecordKind, name: str) -> Any | None:
        """Read a record; None when it is absent or damaged."""
        return read_json(self._files, _record(kind, name), _most_bytes(kind))

    def read_records(self, kind: RecordKind, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Read records by name, many at once, all of a kind by default; damaged ones are left out."""
        return dict(self.each_record(kind, self.record_names(kind) if names is None else names))

    def each_record(self, kind: RecordKind, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Yield what :meth:`read_records` returns, for readers that keep a part of each record."""
        paths, most = {_record(kind, name): name for name in names}, _most_bytes(kind)
        for path, document in self._files.get_each(list(paths), most):
            if (value := parse_json(document, most)) is not None:
                yield paths[path], value

    def record_names(self, kind: RecordKind) -> list[str]:
        """List the names of the records of a kind, sorted: one request per thousand."""
        names = [name.removesuffix(".json") for name in self._files.list(kind) if name.endswith(".json")]
        return [name for name in names if is_name(name)]

    # The whole

    def failures(self, kind: Kind) -> pd.DataFrame:
        """Return the failures of all units of a kind; the first column, ``unit``, is the unit's name."""
        import pandas as pd  # here: slow to import

        tables = {name: self.unit(kind, name).failures() for name in self.units(kind)}
        filled = {name: table for name, table in tables.items() if len(table)}
        table = pd.concat([concatenate_tables([]), *filled.values()], ignore_index=True)
        units = [name for name, rows in filled.items() for _ in range(len(rows))]
        table.insert(0, "unit", pd.array(units, dtype="string"))
        return table

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Delete half-written files that killed writers left on a local disk; return their number.

        Younger files may belong to writers that are still at work.
        """
        return self._files.sweep(older_than_s)


def record_name(text: str) -> str:
    """Return a record's name for any text, such as a URL."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _most_bytes(kind: RecordKind) -> int:
    """Return the bytes that a record of a kind may have."""
    limits = current_limits()
    return limits.record_bytes if kind == "plans" else min(limits.job_bytes, limits.record_bytes)


def _record(kind: RecordKind, name: str) -> str:
    return f"{kind}/{checked_name(name, 'record')}.json"
