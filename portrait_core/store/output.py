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
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from portrait_core.errors import MissingChunk
from portrait_core.store import arrays
from portrait_core.store.arrays import ArrayInfo
from portrait_core.store.documents import canonical_json, parsed
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_key, checked_name

RANGE = 16
"""Frames that are read together when all are gone through."""
_MARKER = re.compile(r"(\d{8,})(?:-(\d{8,}))?")
_FILE = re.compile(r"(.*)\.([0-9a-f]{32})(\.[^.]*)?")
_RESERVED = ("files", "notes", "done")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contents:
    """What lies in an output's folder, by one listing."""

    done: frozenset[int] = frozenset()
    """Frames that are marked."""
    chunks: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Chunks of every array that is not packed."""
    packed: frozenset[str] = frozenset()
    """Arrays that are packed."""
    described: frozenset[str] = frozenset()
    """Arrays whose ``zarr.json`` is there."""
    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Digests that the objects of every file carry, by the file's name: its content's SHA-256, the first 32
    hexadecimal digits."""
    notes: frozenset[str] = frozenset()
    """Names of notes."""
    bytes: int = 0
    """Bytes of everything."""
    objects: int = 0
    """Number of objects."""


@dataclass(frozen=True)
class Declared:
    """What has to be in an output's folder for a frame to be done."""

    per_frame: tuple[str, ...] = ()
    """Arrays with a chunk per frame."""
    whole: tuple[str, ...] = ()
    """Arrays that are one chunk."""
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def arrays(self) -> tuple[str, ...]:
        """All arrays."""
        return (*self.per_frame, *self.whole)


class Output:
    """The folder of one stage under one key. Made by :meth:`Unit.output`; holds no open files and costs
    nothing until it is used.

    Order of work for a frame: :meth:`write`, then :meth:`commit`. Killed anywhere, a frame is then either
    done, with its data, or not done.
    """

    def __init__(self, files: Files, unit: str, stage: str, key: str) -> None:
        self.stage = checked_name(stage, "stage")
        self.key = checked_key(key)
        self.path = f"{unit}/{stage}.{key}"
        self._files = files
        self._documents: dict[str, bytes] = {}
        self._indices: dict[str, list[tuple[int, int] | None]] = {}

    def __repr__(self) -> str:
        return f"Output({self.path})"

    def describe(self, recipe: Mapping[str, Any]) -> None:
        """Keep what the key was made of, in the attributes of the folder's zarr group."""
        attributes = {"stage": self.stage, "key": self.key, "recipe": dict(recipe)}
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        self._files.put({f"{self.path}/zarr.json": canonical_json(group)})

    def recipe(self) -> dict[str, Any] | None:
        """Read what the key was made of; None when that is not kept, or damaged."""
        found = parsed(self._files.get_one(f"{self.path}/zarr.json"))
        attributes = found.get("attributes") if isinstance(found, dict) else None
        recipe = attributes.get("recipe") if isinstance(attributes, dict) else None
        return recipe if isinstance(recipe, dict) else None

    # Arrays

    def ensure_array(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> None:
        """Make an array ``[T, ...]`` of frames, unless it is there.

        Args:
            name: name of the array.
            shape: shape with frames first; at least one frame.
            dtype: numpy type.

        Raises:
            ValueError: the shape is not one, or there is an array of another shape or type: two runs under
                one key disagree.
        """
        self._ensure(name, shape, dtype, whole=False)

    def _ensure(self, name: str, shape: Sequence[int], dtype: DTypeLike, whole: bool) -> None:
        if checked_name(name, "array") in _RESERVED:
            raise ValueError(f"an array cannot be called {name!r}: the store keeps other things there")
        if not shape or min(shape) < 1:
            raise ValueError(f"array {name}: every side must be at least 1, frames first; got {tuple(shape)}")
        document = self._stored_documents([name]).get(name)
        if document is None:
            document = arrays.create(shape, dtype, whole)
            # What is left of a packed array whose document was lost would count as its frames.
            self._files.delete([f"{self.path}/{name}/{arrays.packed_name(arrays.info(document))}"])
            self._files.put({f"{self.path}/{name}/zarr.json": document})
        found = arrays.info(document)
        if (found.shape, found.dtype) != (tuple(shape), np.dtype(dtype)):
            raise ValueError(
                f"{self.path}/{name} holds {found.dtype} {found.shape}; got {np.dtype(dtype)} "
                f"{tuple(shape)} under the same key. Raise the version of the stage {self.stage}, or "
                f"delete the folder"
            )
        self._documents[name] = document
        if found.packed:
            self.unpack(name)

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Write frames ``[start, start + n)`` of an array, ``values [n, ...]`` of its very type."""
        self.write_together(start, {name: values})

    def write_together(self, start: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write frames from ``start`` on of several arrays, by name as for :meth:`write`, all at once."""
        chunks: dict[str, bytes] = {}
        for name, frames in values.items():
            for chunk, value in self._encoded(name, start, np.asarray(frames)).items():
                chunks[f"{self.path}/{name}/{chunk}"] = value
        self._files.put(chunks)

    def write_whole(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Make and write arrays that are one object each, by name."""
        for name, value in values.items():
            self._ensure(name, value.shape, value.dtype, whole=True)
        self.write_together(0, values)

    def _encoded(self, name: str, start: int, values: NDArray[Any]) -> dict[str, bytes]:
        document = self._document(name)
        if document is None:
            raise ValueError(f"{self.path} has no array {name}; call ensure_array first")
        array = arrays.info(document)
        if values.dtype != array.dtype:
            raise ValueError(f"{self.path}/{name} holds {array.dtype}; got {values.dtype}")
        if values.shape[1:] != array.shape[1:]:
            raise ValueError(
                f"{self.path}/{name} holds frames {array.shape[1:]}; got {values.shape[1:]}, {len(values)} "
                f"of them"
            )
        self._check_range(name, array, start, start + len(values))
        return arrays.encode(document, start, values) if len(values) else {}

    def array_info(self, name: str) -> ArrayInfo | None:
        """Read shape and type of an array; None when there is none."""
        document = self._document(name)
        return arrays.info(document) if document is not None else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read frames ``[start, stop)`` of an array, ``[stop - start, ...]``; all of it by default.

        Raises:
            MissingChunk: some of the frames are absent or fail their checksum; it lists them.
        """
        return self.read_together([name], start, stop)[name]

    def read_together(
        self, names: Sequence[str], start: int = 0, stop: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """Read frames ``[start, stop)`` of several arrays, by name, all at once: a store that is far away is
        waited for once, not once per array.

        Raises:
            MissingChunk: see :meth:`read`; of the first array of which something is missing.
        """
        unknown = [checked_name(name, "array") for name in names if name not in self._documents]
        if unknown:
            self._documents.update(self._stored_documents(unknown))
        found: dict[str, NDArray[Any]] = {}
        loaded = self._load([name for name in names if name in self._documents], start, stop)
        for name in names:
            values, missing = loaded.get(name) or (None, [0])
            if missing:  # perhaps the array was packed or unpacked since its document was read
                self._forget(name)
                self._documents.update(self._stored_documents([name]))
                again = self._load([name], start, stop) if name in self._documents else {}
                values, missing = again.get(name) or (None, list(range(start, stop or start + 1)))
            if missing or values is None:
                self._forget(name)
                raise MissingChunk(f"{self.path}/{name}", missing)
            found[name] = values
        return found

    def _load(
        self, names: Sequence[str], start: int, stop: int | None
    ) -> dict[str, tuple[NDArray[Any], list[int]]]:
        """Frames ``[start, stop)`` of arrays, and which of them are absent or corrupt."""
        spans: dict[str, tuple[ArrayInfo, int, int]] = {}
        wanted: dict[str, tuple[str, int]] = {}
        chunks: dict[str, dict[str, bytes]] = {name: {} for name in names}
        for name in names:
            array = arrays.info(self._documents[name])
            end = array.shape[0] if stop is None else stop
            self._check_range(name, array, start, end)
            spans[name] = array, start, end
            numbers = range(start // array.rows, -(-end // array.rows))
            if array.packed:
                for number, chunk in self._packed_chunks(name, array, numbers).items():
                    chunks[name][arrays.chunk_name(array, number)] = chunk
                continue
            wanted |= {
                f"{self.path}/{name}/{arrays.chunk_name(array, number)}": (name, number) for number in numbers
            }
        for path, value in self._files.get(wanted).items():
            name, number = wanted[path]
            chunks[name][arrays.chunk_name(spans[name][0], number)] = value
        return {
            name: arrays.decode(arrays.plain_document(self._documents[name]), begin, end, chunks[name])
            for name, (_, begin, end) in spans.items()
        }

    def _packed_chunks(self, name: str, array: ArrayInfo, numbers: range) -> dict[int, bytes]:
        """Chunks of a packed array that are there, by one request; the first time by two."""
        path = f"{self.path}/{name}/{arrays.packed_name(array)}"
        if name not in self._indices:
            head = self._files.get_range(path, 0, arrays.index_bytes(array.chunks))
            try:
                self._indices[name] = arrays.read_index(head or b"", array.chunks)
            except ValueError as error:
                _log.warning("%s: %s; its frames count as missing", path, error)
                return {}
        places = {n: place for n in numbers if (place := self._indices[name][n]) is not None}
        if not places:
            return {}
        begin, end = min(a for a, _ in places.values()), max(b for _, b in places.values())
        data = self._files.get_range(path, begin, end) or b""
        return {n: data[a - begin : b - begin] for n, (a, b) in places.items()}

    def _document(self, name: str) -> bytes | None:
        if name not in self._documents:
            self._documents.update(self._stored_documents([checked_name(name, "array")]))
        return self._documents.get(name)

    def _stored_documents(self, names: Sequence[str]) -> dict[str, bytes]:
        """Those of the arrays' documents that are there and whole, by name."""
        paths = {f"{self.path}/{name}/zarr.json": name for name in names}
        found = {paths[path]: document for path, document in self._files.get(paths).items()}
        for name in [name for name, document in found.items() if not arrays.is_readable(document)]:
            _log.warning("%s/%s/zarr.json is damaged; the array counts as missing", self.path, name)
            del found[name]
        return found

    def _forget(self, name: str) -> None:
        self._documents.pop(name, None)
        self._indices.pop(name, None)

    def _check_range(self, name: str, array: ArrayInfo, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= array.shape[0]:
            raise ValueError(
                f"{self.path}/{name} has frames 0 to {array.shape[0] - 1}; got the range [{start}, {stop})"
            )

    def drop_array(self, name: str) -> None:
        """Delete an array with all its chunks.

        Its document goes first: killed in between, the frames read as missing, by plain zarr too, which would
        show frames whose chunks alone are gone as black.
        """
        folder = f"{self.path}/{checked_name(name, 'array')}"
        self._files.delete([f"{folder}/zarr.json"])
        self._forget(name)
        self._files.delete_folder(folder)

    # Packing

    def pack(self, declared: Declared) -> None:
        """Put every array of frames into one object, and the markers into one per run of frames.

        At every moment the arrays can be read: the new object is there before the document names it, and the
        old ones go last. Reading and writing go on to work on what is packed.
        """
        contents = self.contents()
        for name in declared.per_frame:
            if contents.chunks.get(name) and name in contents.described:
                self._pack(name)
        frames = sorted(contents.done)
        runs = {_marker(a, b) for a, b in _runs(frames)}
        single = {_marker(frame, frame) for frame in frames} - runs
        if len(frames) > len(runs):
            self._files.put({f"{self.path}/done/{name}": b"" for name in sorted(runs)})
            self._files.delete(f"{self.path}/done/{name}" for name in sorted(single))

    def _pack(self, name: str) -> None:
        self._forget(name)
        document = self._document(name)
        if document is None or arrays.info(document).packed:
            return
        array = arrays.info(document)
        paths = {
            f"{self.path}/{name}/{arrays.chunk_name(array, number)}": number for number in range(array.chunks)
        }
        found = {paths[path]: value for path, value in self._files.get(paths).items()}
        self._files.put({f"{self.path}/{name}/{arrays.packed_name(array)}": arrays.pack(found, array.chunks)})
        self._files.put({f"{self.path}/{name}/zarr.json": arrays.packed_document(document)})
        self._forget(name)
        self._files.delete(paths)

    def unpack(self, name: str, without: Iterable[int] = ()) -> None:
        """Give a packed array an object per frame again, so that single frames can be written; those of
        ``without`` are left out."""
        document = self._document(name)
        if document is None or not (array := arrays.info(document)).packed:
            return
        self._indices.pop(name, None)
        chunks = self._packed_chunks(name, array, range(array.chunks))
        plain, dropped = arrays.plain_document(document), set(without)
        self._files.put(
            {
                f"{self.path}/{name}/{arrays.chunk_name(array, number)}": chunk
                for number, chunk in chunks.items()
                if number not in dropped
            }
        )
        self._files.put({f"{self.path}/{name}/zarr.json": plain})
        self._forget(name)
        self._files.delete([f"{self.path}/{name}/{arrays.packed_name(array)}"])

    # Markers

    def commit(self, frames: Iterable[int] = (0,)) -> None:
        """Mark frames as done. Only after their data is written."""
        self._files.put({f"{self.path}/done/{_marker(frame, frame)}": b"" for frame in frames})

    def uncommit(self, frames: Iterable[int] | None = None) -> None:
        """Mark frames as not done, all of them by default."""
        wanted = None if frames is None else {int(frame) for frame in frames}
        names = self._files.list(f"{self.path}/done")
        stale, kept = [], set[int]()
        for name, span in _spans(names):
            if wanted is None or not wanted.isdisjoint(span):
                stale.append(name)
                kept |= set(span) - (set(span) if wanted is None else wanted)
        self.commit(sorted(kept))
        self._files.delete(f"{self.path}/done/{name}" for name in stale if name not in map(_single, kept))

    def marked(self) -> list[int]:
        """List the frames that are marked as done, ascending: one listing."""
        names = self._files.list(f"{self.path}/done")
        return sorted({frame for _, span in _spans(names) for frame in span})

    def contents(self) -> Contents:
        """List what is there: one request per thousand objects."""
        marks, files, notes = list[str](), dict[str, set[str]](), set[str]()
        chunks: dict[str, set[int]] = {}
        packed, described = set[str](), set[str]()
        sizes = self._files.sizes(self.path)
        for path in sizes:
            top, _, rest = path.partition("/")
            if top == "done":
                marks.append(rest)
            elif top == "files" and (match := _FILE.fullmatch(rest)):
                files.setdefault(match[1] + (match[3] or ""), set()).add(match[2])
            elif top == "notes":
                notes.add(rest.removesuffix(".json"))
            elif rest == "zarr.json":
                described.add(top)
            elif rest.startswith("c/"):
                packed.add(top)
            elif (number := arrays.chunk_of(rest)) is not None:
                chunks.setdefault(top, set()).add(number)
        return Contents(
            frozenset(frame for _, span in _spans(marks) for frame in span),
            {name: frozenset(numbers) for name, numbers in chunks.items()},
            frozenset(packed),
            frozenset(described),
            {name: frozenset(digests) for name, digests in files.items()},
            frozenset(notes),
            sum(sizes.values()),
            len(sizes),
        )

    def done(self, total: int, declared: Declared | None = None) -> NDArray[np.bool_]:
        """Tell which of ``total`` frames are done ``[total]``: marked, with every chunk, file and note that
        is declared. A corrupt one shows only when it is read."""
        return done_of(self.contents(), total, declared or Declared())

    # Files and notes

    def put_bytes(self, name: str, value: bytes) -> None:
        """Keep a file (a clip, a checkpoint) whole or not at all.

        Its object's name carries the content's digest, so two writers never meddle with each other's. Older
        contents of the name that were there before go afterwards.
        """
        old = self._versions(name)
        stem, dot, suffix = checked_name(name, "file").rpartition(".")
        digest = hashlib.sha256(value).hexdigest()[:32]
        path = (
            f"{self.path}/files/{stem}.{digest}{dot}{suffix}" if dot else f"{self.path}/files/{name}.{digest}"
        )
        self._files.put({path: value})
        self._files.delete(stale for stale in old if stale != path)

    def get_bytes(self, name: str) -> bytes | None:
        """Read a file; None when there is none whose content is what its name says."""
        for path in self._versions(name):
            value = self._files.get_one(path)
            if value is not None and is_sound_file(path, value):
                return value
            _log.warning("%s is corrupt; it counts as missing", path)
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
        return parsed(self._files.get_one(self._note(name)))

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
        self._indices.clear()
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

    def _digest_array(self, name: str, digest: hashlib._Hash) -> None:
        self._forget(name)  # perhaps it was packed since
        document = self._document(name)
        if document is None:
            digest.update(canonical_json({"array": name, "shape": None}))
            return
        array = arrays.info(document)
        digest.update(canonical_json({"array": name, "dtype": array.dtype.name, "shape": array.shape}))
        step = RANGE if array.rows == 1 else array.shape[0]
        for start in range(0, array.shape[0], step):
            values, missing = self._load([name], start, min(start + step, array.shape[0]))[name]
            values = values.astype(array.dtype.newbyteorder("<"), copy=False)
            for frame, value in enumerate(values, start):
                digest.update(b"absent" if frame in missing else b"frame" + value.tobytes())


def done_of(contents: Contents, total: int, declared: Declared) -> NDArray[np.bool_]:
    """Tell which of ``total`` frames are done ``[total]`` by what a folder holds."""
    done = np.zeros(total, np.bool_)
    done[[frame for frame in contents.done if frame < total]] = True
    for name in declared.per_frame:
        if name in contents.packed and name in contents.described:
            continue
        present = np.zeros(total, np.bool_)
        if name in contents.described:
            present[[number for number in contents.chunks.get(name, ()) if number < total]] = True
        done &= present
    there = {name for name in contents.described if 0 in contents.chunks.get(name, ())}
    lacking = set(declared.whole) - there
    lacking |= (set(declared.files) - contents.files.keys()) | (set(declared.notes) - contents.notes)
    return done & (not lacking)


def _stored_name(name: str, value: bytes) -> str:
    stem, dot, suffix = name.rpartition(".")
    digest = hashlib.sha256(value).hexdigest()[:32]
    return f"{stem}.{digest}.{suffix}" if dot else f"{name}.{digest}"


def file_name(stored: str) -> str | None:
    """Read a file's name off that of its object; None when it has no digest."""
    match = _FILE.fullmatch(stored)
    return None if match is None else match[1] + (match[3] or "")


def is_sound_file(path: str, value: bytes) -> bool:
    """Tell whether a file's content is what its object's name says."""
    match = _FILE.fullmatch(path.rpartition("/")[2])
    return match is not None and hashlib.sha256(value).hexdigest()[:32] == match[2]


def is_marker(name: str) -> bool:
    """Tell whether a name is one that :meth:`Output.commit` or :meth:`Output.pack` gives."""
    return _MARKER.fullmatch(name) is not None


def _marker(first: int, last: int) -> str:
    return f"{first:08d}" if first == last else f"{first:08d}-{last:08d}"


def _single(frame: int) -> str:
    return _marker(frame, frame)


def _spans(names: Iterable[str]) -> list[tuple[str, range]]:
    """Markers with the frames they stand for."""
    found = [(name, match) for name in names if (match := _MARKER.fullmatch(name))]
    return [(name, range(int(m[1]), int(m[2] or m[1]) + 1)) for name, m in found]


def _runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """First and last frame of every run of consecutive frames."""
    runs: list[tuple[int, int]] = []
    for frame in frames:
        if runs and runs[-1][1] == frame - 1:
            runs[-1] = runs[-1][0], frame
        else:
            runs.append((frame, frame))
    return runs
