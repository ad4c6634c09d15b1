"""The store: the record of truth of what is done.

A folder or bucket at any fsspec URL, holding zarr v3 groups of checksummed frames, commit markers, files and
failures. See :class:`Unit` for the rules that make it survive kills at any moment and writers in any number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from portrait_core.store.arrays import ArrayInfo
from portrait_core.store.failures import Failure, FailureClass, from_tables
from portrait_core.store.files import Files
from portrait_core.store.keys import (
    NUMERICS_VERSION,
    differences,
    file_digest,
    gapped_key,
    recipe_key,
    stage_key,
    stage_recipe,
    unit_name,
)
from portrait_core.store.leases import Holder, Lease, holder
from portrait_core.store.unit import KINDS, Kind, Unit
from portrait_core.store.verify import Finding, UnitReport, repair_unit, verify_unit

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "KINDS",
    "NUMERICS_VERSION",
    "ArrayInfo",
    "Failure",
    "FailureClass",
    "Finding",
    "Holder",
    "Kind",
    "Lease",
    "Store",
    "Unit",
    "UnitReport",
    "differences",
    "file_digest",
    "gapped_key",
    "holder",
    "recipe_key",
    "repair_unit",
    "stage_key",
    "stage_recipe",
    "unit_name",
    "verify_unit",
]


class Store:
    """A store at a path or fsspec URL (``file://``, ``s3://``, ``gs://``, ``memory://``).

    Nothing is read or written until a unit is used; a store may be sent to another process.
    """

    def __init__(self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> None:
        """Args:
            url: where the store is; a folder is made when something is first written, a bucket must exist.
            storage_options: passed to the file system (``endpoint_url``, credentials ...).

        Raises:
            InputError: the URL's scheme is not known or needs a package that is not installed.
        """
        self.url = os.fspath(url)
        self.storage_options = dict(storage_options or {})
        self._files = Files(self.url, self.storage_options)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.url, self.storage_options)

    def unit(self, kind: Kind, name: str) -> Unit:
        """The unit of a kind and name, which need not exist yet.

        Raises:
            InputError: an unknown kind, or a name that not every store can hold.
        """
        return Unit(self._files, kind, name)

    def units(self, kind: Kind) -> list[str]:
        """Names of the units of a kind, sorted."""
        return self._files.list(kind)

    def failures(self, kind: Kind) -> pd.DataFrame:
        """Failures of all units of a kind, with the unit's name in the first column, ``unit``."""
        import pandas as pd  # here, as in failures.py: it is slow to import

        tables = {name: self.unit(kind, name).failures() for name in self.units(kind)}
        filled = {name: table for name, table in tables.items() if len(table)}
        table = pd.concat([from_tables([]), *filled.values()], ignore_index=True)
        units = [name for name, rows in filled.items() for _ in range(len(rows))]
        table.insert(0, "unit", pd.array(units, dtype="string"))
        return table

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Delete half-written files that killed writers left on a local disk; return how many.

        Younger ones may belong to writers that are still at work.
        """
        return self._files.sweep(older_than_s)
