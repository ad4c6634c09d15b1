"""The store: crash-safe, content-keyed results; the record of truth of what is done.

It is a folder or bucket at any fsspec URL and holds zarr v3 groups of checksummed frames, commit markers,
files and failures. :class:`Output` has the rules by which it survives kills at any moment and any number of
writers.
"""

from portrait_core.store.arrays import ArrayInfo
from portrait_core.store.contents import Contents, Declared, done_mask
from portrait_core.store.failures import Failure, FailureClass
from portrait_core.store.keys import (
    describe_differences,
    file_digest,
    key_with_gaps,
    recipe_key,
    stage_recipe,
)
from portrait_core.store.leases import Holder, Lease, read_holder
from portrait_core.store.output import Output
from portrait_core.store.store import Store, record_name
from portrait_core.store.unit import KINDS, Kind, Unit
from portrait_core.store.verify import Finding, UnitReport, repair_unit, verify_unit

__all__ = [
    "KINDS",
    "ArrayInfo",
    "Contents",
    "Declared",
    "Failure",
    "FailureClass",
    "Finding",
    "Holder",
    "Kind",
    "Lease",
    "Output",
    "Store",
    "Unit",
    "UnitReport",
    "describe_differences",
    "done_mask",
    "file_digest",
    "key_with_gaps",
    "read_holder",
    "recipe_key",
    "record_name",
    "repair_unit",
    "stage_recipe",
    "verify_unit",
]
