"""What a unit keeps beside its arrays: files with digests, small JSON documents, recipes, failures."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from portrait_core.store.failures import Failure, from_tables, to_table
from portrait_core.store.files import Files
from portrait_core.store.keys import canonical_json, checked_key, checked_name

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


class Records:
    """Files and records of the unit whose folder is ``base``."""

    def __init__(self, files: Files, base: str) -> None:
        self._files = files
        self._base = base

    # Files and metadata

    def put_bytes(self, name: str, value: bytes) -> None:
        """Keep a file (a clip, a checkpoint), replacing an older one at once and whole.

        Its digest is written first and beside the older ones', so at no moment is there a file that reads as
        corrupt: killed in between, the older file is still good.
        """
        folder = f"{self._base}/records/digests"
        digests = [hashlib.sha256(value).hexdigest(), *self._digests(name)[:3]]
        self._files.put({f"{folder}/{name}.json": canonical_json({"sha256": digests})})
        self._files.put({f"{self._base}/files/{name}": value})

    def get_bytes(self, name: str) -> bytes | None:
        """Read a file; None when there is none or its content is not what was put."""
        value = self._files.get_one(f"{self._base}/files/{checked_name(name, 'file')}")
        if value is None:
            return None
        if hashlib.sha256(value).hexdigest() not in self._digests(name):
            _log.warning("%s/files/%s is corrupt; it counts as missing", self._base, name)
            return None
        return value

    def drop_file(self, name: str) -> None:
        """Delete a file, then its digests: killed in between, there is simply no file."""
        self._files.delete([f"{self._base}/files/{checked_name(name, 'file')}"])
        self._files.delete([f"{self._base}/records/digests/{name}.json"])

    def file_url(self, name: str) -> str:
        """Where a file is, for other programs."""
        return self._files.url(f"{self._base}/files/{checked_name(name, 'file')}")

    def _digests(self, name: str) -> list[str]:
        found = parsed(self._files.get_one(f"{self._base}/records/digests/{checked_name(name, 'file')}.json"))
        return digests_of(found)

    def write_meta(self, name: str, value: Any) -> None:
        """Keep a small JSON document, replacing an older one at once and whole."""
        self._files.put({self._meta(name): canonical_json(value)})

    def read_meta(self, name: str) -> Any | None:
        """Read a JSON document; None when there is none, or it is damaged."""
        return parsed(self._files.get_one(self._meta(name)))

    def _meta(self, name: str) -> str:
        return f"{self._base}/records/meta/{checked_name(name, 'document')}.json"

    # Recipes

    def write_recipe(self, stage: str, key: str, recipe: dict[str, Any]) -> None:
        """Keep what a stage's key was made of, unless a readable one is kept already."""
        name = f"{self._base}/records/recipes/{checked_name(stage, 'stage')}.{checked_key(key)}.json"
        if parsed(self._files.get_one(name)) is None:
            self._files.put({name: canonical_json(recipe)})

    def recipes(self, stage: str) -> dict[str, dict[str, Any]]:
        """A stage's recipes by key; damaged ones are left out."""
        folder = f"{self._base}/records/recipes"
        pattern = re.compile(rf"{re.escape(checked_name(stage, 'stage'))}\.([0-9a-f]+)\.json")
        keys = {
            f"{folder}/{m[0]}": m[1] for name in self._files.list(folder) if (m := pattern.fullmatch(name))
        }
        found = {keys[name]: parsed(value) for name, value in self._files.get(keys).items()}
        return {key: recipe for key, recipe in sorted(found.items()) if isinstance(recipe, dict)}

    # Failures

    def record_failures(self, rows: Sequence[Failure]) -> None:
        """Add rows to the unit's table of failures. Writers at the same time lose nothing."""
        if rows:
            name, table = to_table(rows)
            self._files.put({f"{self._base}/records/failures/{name}": table})

    def failures(self) -> pd.DataFrame:
        """All failures recorded, oldest first: stage, frame, cls, message, attempt, host, time_utc, key."""
        folder = f"{self._base}/records/failures"
        tables = self._files.get(f"{folder}/{name}" for name in self._failure_tables())
        return from_tables(sorted(tables.items()))

    def has_failures(self) -> bool:
        """Whether any failure is recorded: one listing, where :meth:`failures` reads every row."""
        return bool(self._failure_tables())

    def _failure_tables(self) -> list[str]:
        names = self._files.list(f"{self._base}/records/failures")
        return [name for name in names if name.endswith(".parquet")]


def parsed(document: bytes | None) -> Any | None:
    """A JSON document's value; None when there is none, or it is damaged."""
    try:
        return None if document is None else json.loads(document)
    except ValueError:
        return None


def digests_of(document: Any) -> list[str]:
    """The digests in a file's record, newest first; none in a record that is not one."""
    return list(document["sha256"]) if isinstance(document, dict) and "sha256" in document else []
