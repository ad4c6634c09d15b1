"""What one stage made under one key: arrays, files, notes, and which frames of them are done.

Layout of the folder ``<kind>/<unit>/<stage>.<key>/``::

    zarr.json                               a zarr v3 group whose attributes say what the key was made of
    <array>/zarr.json, <array>/c.<frame>.0  one object per frame, or one object, with a checksum
    <array>/c/0/0                           the same frames as one object, when the clip is finished
    files/<stem>.<digest><suffix>           the name carries the content's SHA-256
    notes/<name>.json                       small documents
    done/<frame>, done/<first>-<last>       empty: the name says it all

Whoever works under a key writes the same bytes, and nobody else writes here: settings, inputs or weights that
differ give another key and another folder. So a frame is written and then marked, with nothing to undo before
and nothing to look up.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.store import arrays
from portrait_core.store.array_folder import ArrayFolder
from portrait_core.store.contents import (
    Contents,
    Declared,
    consecutive_runs,
    done_mask,
    file_name,
    is_sound_file,
    marked_frames,
    marker_name,
    marker_spans,
    parse_contents,
    stored_name,
)
from portrait_core.store.documents import canonical_json, parse_json
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_key, checked_name

PACK_MOST_BYTES = 1 << 30
"""Bytes of the largest array that is packed: all of it is held in memory, twice."""
_TRIES = 5
"""Most times that a file's versions are listed because those of the listing before are gone."""
_log = logging.getLogger(__name__)


class Output(ArrayFolder):
    """The folder of one stage under one key. Made by :meth:`Unit.output`; holds no open files and costs
    nothing until it is used.

    Order of work for a frame: :meth:`write`, then :meth:`commit`. Killed anywhere, a frame is then either
    done, with its data, or not done.
    """

    def __init__(self, files: Files, unit: str, stage: str, key: str) -> None:
        self.stage = checked_name(stage, "stage")
        self.key = checked_key(key)
        super().__init__(files, f"{unit}/{stage}.{key}")

    def __repr__(self) -> str:
        return f"Output({self.path})"

    def describe(self, recipe: Mapping[str, Any]) -> None:
        """Keep what the key was made of, in the attributes of the folder's zarr group."""
        attributes = {"stage": self.stage, "key": self.key, "recipe": dict(recipe)}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        self._files.put({f"{self.path}/zarr.json": canonical_json(group)})

    def recipe(self) -> dict[str, Any] | None:
        """Read what the key was made of; None when that is not kept, or damaged."""
        found = parse_json(self._files.get_one(f"{self.path}/zarr.json"))
        attributes = found.get("attributes") if isinstance(found, dict) else None
        recipe = attributes.get("recipe") if isinstance(attributes, dict) else None
        return recipe if isinstance(recipe, dict) else None

    # Packing

    def pack(self, declared: Declared) -> None:
        """Put every array of frames into one object, and the markers into one per run of frames.

        At every moment the arrays can be read: the new object is there before the document names it, and the
        old ones go last. Reading and writing go on to work on what is packed. An array stays as it is if it
        lacks a frame that is marked, or takes more than :data:`PACK_MOST_BYTES`.
        """
        sizes = self._files.sizes(self.path)
        contents = parse_contents(sizes)
        for name in declared.per_frame:
            size = sum(bytes_ for path, bytes_ in sizes.items() if path.startswith(f"{name}/"))
            if contents.chunks.get(name) and size <= PACK_MOST_BYTES:
                self._pack(name, contents.chunks[name], contents.done)
        marks = marker_spans(path.removeprefix("done/") for path in sizes if path.startswith("done/"))
        packed = {marker_name(*run) for run in consecutive_runs(sorted(contents.done))}
        self._files.put({f"{self.path}/done/{name}": b"" for name in sorted(packed - marks.keys())})
        self._files.delete(f"{self.path}/done/{name}" for name in sorted(marks.keys() - packed))

    # Markers

    def commit(self, frames: Iterable[int] = (0,)) -> None:
        """Mark frames as done: an empty object each, no listing. Only after their data is written."""
        self._files.put({f"{self.path}/done/{marker_name(int(frame))}": b"" for frame in frames})

    def uncommit(self, frames: Iterable[int] | None = None) -> None:
        """Mark frames as not done, all of them by default."""
        marks = marker_spans(self._files.list(f"{self.path}/done"))
        wanted = marked_frames(marks) if frames is None else {int(frame) for frame in frames}
        stale = {name: span for name, span in marks.items() if not wanted.isdisjoint(span)}
        self.commit(sorted(marked_frames(stale) - wanted))
        self._files.delete(f"{self.path}/done/{name}" for name in stale)

    def marked(self) -> list[int]:
        """List the frames that are marked as done, ascending: one listing."""
        return sorted(marked_frames(self._files.list(f"{self.path}/done")))

    def contents(self) -> Contents:
        """List what is there: one request per thousand objects."""
        found = parse_contents(self._files.sizes(self.path))
        # Killed while it was packed or unpacked, an array has both forms; its document says which one counts.
        both = found.packed & found.chunks.keys() & found.described
        documents = self._stored_documents(sorted(both)) if both else {}
        plain = {n for n in both if n not in documents or not arrays.read_info(documents[n]).packed}
        return replace(found, packed=found.packed - plain) if plain else found

    def done(self, total: int, declared: Declared | None = None) -> NDArray[np.bool_]:
        """Tell which of ``total`` frames are done ``[total]``: marked, with every chunk, file and note that
        is declared. A corrupt one shows only when it is read.
        """
        return done_mask(self.contents(), total, declared or Declared())

    # Files and notes

    def put_bytes(self, name: str, value: bytes) -> None:
        """Keep a file (a clip, a checkpoint) whole or not at all.

        Its object's name carries the content's digest, so two writers never meddle with each other's. Older
        contents of the name that were there before go afterwards.

        Raises:
            InputError: a name that not every store can hold.
        """
        old = self._versions(name)
        path = f"{self.path}/files/{stored_name(name, value)}"
        self._files.put({path: value})
        stale = [version for version in old if version != path]
        if stale:
            self._files.delete(stale)
            if not self._versions(name):  # a rival took this content for an older one
                self._files.put({path: value})

    def get_bytes(self, name: str) -> bytes | None:
        """Read a file; None when there is none whose content is what its name says."""
        for _ in range(_TRIES):
            versions = self._versions(name)
            gone = False
            for path in versions:
                value = self._files.get_one(path)
                if value is not None and is_sound_file(path, value):
                    return value
                if value is not None:
                    _log.warning("%s is corrupt; it counts as missing", path)
                gone |= value is None
            if not gone:  # else another version has come in its place
                break
        return None

    def drop_file(self, name: str) -> None:
        """Delete a file."""
        self._files.delete(self._versions(name))

    def file_url(self, name: str) -> str | None:
        """Say where a file is, for other programs; None when there is none."""
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
        """Keep a small JSON document, replacing an older one at once and whole."""
        self._files.put({self._note(name): canonical_json(value)})

    def read_note(self, name: str) -> Any | None:
        """Read a JSON document; None when there is none, or it is damaged."""
        return parse_json(self._files.get_one(self._note(name)))

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
        """Take the SHA-256, in hexadecimal, of the content of arrays and files.

        Two stores that hold the same results give the same digest: names, types, shapes and values count,
        notes, compression, packing and the order of the arguments do not. Arrays, frames and files that are
        absent or corrupt are marked as absent. An array is read a few frames at a time.
        """
        digest = hashlib.sha256()
        for name in sorted(set(names)):
            self._digest_array(name, digest)
        for name in sorted(set(files)):
            value = self.get_bytes(name)
            content = hashlib.sha256(value).hexdigest() if value is not None else None
            digest.update(canonical_json({"file": name, "sha256": content}))
        return digest.hexdigest()
