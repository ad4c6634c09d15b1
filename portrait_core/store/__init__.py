"""The store: the record of truth of what is done.

A folder or bucket at any fsspec URL, holding zarr v3 groups of checksummed frames, commit markers, files and
failures. See :class:`Output` for the rules that make it survive kills at any moment and any number of
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
