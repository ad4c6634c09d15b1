"""Output of one stage under one key: arrays, files, notes, and markers of the frames that are done.

Layout of the folder ``<kind>/<unit>/<stage>.<key>/``::

    zarr.json                               a zarr v3 group whose attributes hold the key's recipe
    <array>/zarr.json, <array>/c.<frame>.0  one object per frame, or one object, with a checksum
    <array>/c/0/0                           the same frames as one object, when the clip is finished
    files/<stem>.<digest><suffix>           the name carries the content's SHA-256
    notes/<name>.json                       small documents
    done/<frame>, done/<first>-<last>       empty: the name holds the information

All writers under a key write the same bytes, and nobody else writes here: other settings, inputs or weights
give another key and another folder. So a frame is written and then marked, without anything to undo or look
up before.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.settings.limits import current_limits, over_limit
from portrait_core.store import arrays
from portrait_core.store.array_folder import ArrayFolder
from portrait_core.store.contents import (
    Contents,
    Declared,
    consecutive_runs,
    done_mask,
    file_name,
    fits_digest,
    marked_frames,
    marker_name,
    marker_spans,
    parse_contents,
    stored_name,
)
from portrait_core.store.documents import canonical_json, read_json
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_key, checked_name

MAX_PACK_BYTES = 1 << 30
"""Bytes of the largest array that is packed: all of it is held in memory, twice."""
_MAX_LISTINGS = 5
"""Largest number of listings of a file's versions, which is repeated when the listed ones are gone."""
_log = logging.getLogger(__name__)


class Output(ArrayFolder):
    """The folder of one stage under one key, made by :meth:`Unit.output`.

    It holds no open files and costs nothing until it is used.

    Order of work for a frame: :meth:`write`, then :meth:`commit`. If the process is killed at any moment, the
    frame is either done, with its data, or not done.
    """

    def __init__(self, files: Files, unit: str, stage: str, key: str) -> None:
        self.stage = checked_name(stage, "stage")
        self.key = checked_key(key)
        super().__init__(files, f"{unit}/{stage}.{key}")

    def __repr__(self) -> str:
        return f"Output({self.path})"

    def describe(self, recipe: Mapping[str, Any]) -> None:
        """Store the key's recipe in the attributes of the folder's zarr group."""
        attributes = {"stage": self.stage, "key": self.key, "recipe": dict(recipe)}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        self._files.put({f"{self.path}/zarr.json": canonical_json(group)})

    def recipe(self) -> dict[str, Any] | None:
        """Read the key's recipe; None when it is absent or damaged."""
        group = read_json(self._files, f"{self.path}/zarr.json")
        attributes = group.get("attributes") if isinstance(group, dict) else None
        recipe = attributes.get("recipe") if isinstance(attributes, dict) else None
        return recipe if isinstance(recipe, dict) else None

    # Packing

    def pack(self, declared: Declared) -> None:
        """Put every array of frames into one object, and the markers into one per run of frames.

        The arrays can be read at every moment: the new object exists before the document names it, and the
        old ones are deleted last. Packed arrays can still be read and written. An array stays as it is if a
        marked frame is missing from it, or if it exceeds :data:`MAX_PACK_BYTES`.
        """
        sizes = self._files.sizes(self.path)
        contents = parse_contents(sizes)
        for name in declared.per_frame:
            size = sum(bytes_ for path, bytes_ in sizes.items() if path.startswith(f"{name}/"))
            if contents.chunks.get(name) and size <= MAX_PACK_BYTES:
                self._pack(name, contents.chunks[name], contents.done)
        marks = marker_spans(path.removeprefix("done/") for path in sizes if path.startswith("done/"))
        packed = {marker_name(*run) for run in consecutive_runs(sorted(contents.done))}
        self._files.put({f"{self.path}/done/{name}": b"" for name in sorted(packed - marks.keys())})
        self._files.delete(f"{self.path}/done/{name}" for name in sorted(marks.keys() - packed))

    # Markers

    def commit(self, frames: Iterable[int] = (0,)) -> None:
        """Mark frames as done, by an empty object each; their data has to be written before."""
        self._files.put({f"{self.path}/done/{marker_name(int(frame))}": b"" for frame in frames})

    def uncommit(self, frames: Iterable[int] | None = None) -> None:
        """Mark frames as not done; all frames by default."""
        marks = marker_spans(self._files.list(f"{self.path}/done"))
        removed = marked_frames(marks) if frames is None else {int(frame) for frame in frames}
        stale = {name: span for name, span in marks.items() if not removed.isdisjoint(span)}
        self.commit(sorted(marked_frames(stale) - removed))
        self._files.delete(f"{self.path}/done/{name}" for name in stale)

    def marked(self) -> list[int]:
        """List the frames that are marked as done, in ascending order, by one listing."""
        return sorted(marked_frames(self._files.list(f"{self.path}/done")))

    def contents(self) -> Contents:
        """List the folder's contents: one request per thousand objects."""
        contents = parse_contents(self._files.sizes(self.path))
        # If its packing was killed, an array has both forms; its document says which one counts.
        ambiguous = contents.packed & contents.chunks.keys() & contents.described
        documents = self._stored_documents(sorted(ambiguous)) if ambiguous else {}
        plain = {n for n in ambiguous if n not in documents or not arrays.read_info(documents[n]).packed}
        return replace(contents, packed=contents.packed - plain) if plain else contents

    def done(self, total: int, declared: Declared | None = None) -> NDArray[np.bool_]:
        """Tell which of ``total`` frames are done: marked, with every declared chunk, file and note.

        Corrupt data shows only when it is read.

        Returns:
            ``[total]`` bool.
        """
        return done_mask(self.contents(), total, declared or Declared())

    # Files and notes

    def put_bytes(self, name: str, value: bytes) -> None:
        """Store a file (a clip, a checkpoint), whole or not at all.

        The name of its object carries the content's digest, so that two writers never overwrite each other.
        Older contents of the name are deleted afterwards.

        Raises:
            InputError: not every store can hold the name.
        """
        old = self._versions(name)
        path = f"{self.path}/files/{stored_name(name, value)}"
        self._files.put({path: value})
        stale = [version for version in old if version != path]
        if stale:
            self._files.delete(stale)
            if not self._versions(name):  # another writer deleted this content as an older one
                self._files.put({path: value})

    def get_bytes(self, name: str) -> bytes | None:
        """Read a file; None when no content fits the digest in its name."""
        for _ in range(_MAX_LISTINGS):
            versions = self._versions(name)
            gone = False
            for path in versions:
                there, value = self._read_file(path)
                if value is not None:
                    return value
                gone |= not there
            if not gone:  # otherwise another version has replaced it
                break
        return None

    def _read_file(self, path: str) -> tuple[bool, bytes | None]:
        """Tell whether the object of a file is there, and return its content where it fits the digest."""
        value = None if self._files.is_local else self._files.get_one(path, current_limits().object_bytes)
        if value is not None:
            digest, size = hashlib.sha256(value).hexdigest(), len(value)
        elif (found := self._files.digest(path) if self._files.is_local else None) is not None:
            digest, size = found
        else:
            return False, None
        problem = over_limit("object_bytes", size) or ("" if fits_digest(path, digest) else "is corrupt")
        if problem:
            _log.warning("%s %s; it counts as missing", path, problem)
            return True, None
        if value is None:  # a file of holes takes memory, no space on a disk: it is read once it is known
            value = self._files.get_range(path, 0, size)
        return value is not None, value

    def drop_file(self, name: str) -> None:
        """Delete a file."""
        self._files.delete(self._versions(name))

    def file_url(self, name: str) -> str | None:
        """Return the path or URL of a file, for other programs; None when it does not exist."""
        versions = self._versions(name)
        return self._files.url(versions[0]) if versions else None

    def _versions(self, name: str) -> list[str]:
        checked_name(name, "file")
        return [
            f"{self.path}/files/{stored}"
            for stored in self._files.list(f"{self.path}/files")
            if file_name(stored) == name
        ]

    def write_note(self, name: str, value: Any) -> None:
        """Store a small JSON document; an older one is replaced at once and whole."""
        self._files.put({self._note(name): canonical_json(value)})

    def read_note(self, name: str) -> Any | None:
        """Read a JSON document; None when it is absent or damaged."""
        return read_json(self._files, self._note(name))

    def read_fields(self, name: str) -> dict[str, Any]:
        """Read a JSON document that is an object; empty when it is absent, damaged or something else."""
        value = self.read_note(name)
        return value if isinstance(value, dict) else {}

    def drop_note(self, name: str) -> None:
        """Delete a JSON document."""
        self._files.delete([self._note(name)])

    def _note(self, name: str) -> str:
        return f"{self.path}/notes/{checked_name(name, 'note')}.json"

    # The whole

    def drop(self) -> None:
        """Delete everything, the markers first."""
        self.uncommit()
        self._documents.clear()
        self._files.delete_folder(self.path)

    def digest(self, names: Iterable[str], files: Iterable[str] = ()) -> str:
        """Return the SHA-256, in hexadecimal, of the content of arrays and files.

        Two stores with the same results give the same digest: names, types, shapes and values count; notes,
        compression, packing and the order of the arguments do not. Absent or corrupt arrays, frames and files
        count as absent. An array is read a few frames at a time.
        """
        digest = hashlib.sha256()
        for name in sorted(set(names)):
            self._digest_array(name, digest)
        for name in sorted(set(files)):
            value = self.get_bytes(name)
            content = hashlib.sha256(value).hexdigest() if value is not None else None
            digest.update(canonical_json({"file": name, "sha256": content}))
        return digest.hexdigest()
