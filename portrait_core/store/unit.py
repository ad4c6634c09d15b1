"""One portrait, driving video or reenactment in the store: arrays, commit markers, files, metadata, failures.

Layout under ``<kind>/<name>/``::

    zarr.json                               a zarr v3 group
    <array>/zarr.json, <array>/c.<frame>.0  one chunk a frame, with a checksum
    files/<name>                            clips, checkpoints, tuned generators
    records/commits/<stage>/<frame>.<key>   empty: the name says it all, so one listing answers everything
    records/meta/<name>.json
    records/digests/<name>.json             of the files
    records/recipes/<stage>.<key>.json      what a key was made of
    records/failures/*.parquet              append-only
    records/lease.json                      who is at work (portrait_core.store.leases)
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from portrait_core.errors import InputError, MissingChunk
from portrait_core.store import arrays
from portrait_core.store.arrays import ArrayInfo
from portrait_core.store.files import Files
from portrait_core.store.keys import canonical_json, checked_key, checked_name, is_name
from portrait_core.store.records import Records

Kind = Literal["portrait", "video", "inverted", "edited", "reenactment", "flow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_MARKER = re.compile(r"(\d{8,})\.([0-9a-f]+)")
RANGE = 16
"""Frames that are read together when all are gone through."""
_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {}}'
_log = logging.getLogger(__name__)


def is_marker(name: str) -> bool:
    """Tell whether a name is one that :meth:`Unit.commit` gives."""
    return _MARKER.fullmatch(name) is not None


class Unit(Records):
    """A unit of work. Made by :meth:`Store.unit`; holds no open files, costs nothing until it is used.

    Order of work for a frame: :meth:`uncommit`, :meth:`write`, :meth:`commit`, or :meth:`overwriting`, which
    does all of that. Killed anywhere, a frame is then either done, with its data, or not done.
    """

    def __init__(self, files: Files, kind: Kind, name: str) -> None:
        if kind not in KINDS:
            raise InputError(f"a unit's kind is one of {KINDS}; got {kind!r}")
        self.kind = kind
        self.name = checked_name(name, "unit")
        super().__init__(files, f"{kind}/{name}")
        self._documents: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Unit({self._base})"

    # Arrays

    def ensure_array(self, name: str, shape: Sequence[int], dtype: DTypeLike, key: str) -> None:
        """Make an array ``[T, ...]`` with one chunk a frame, unless there is one of this shape and type.

        One of another shape or type is replaced: whatever was committed under any key that wrote into it is
        no longer done.

        Args:
            name: name of the array.
            shape: shape with frames first; at least one frame.
            dtype: numpy type.
            key: key of the stage that is about to write.
        """
        checked_name(name, "array")
        if not shape or min(shape) < 1:
            raise ValueError(f"array {name}: every side must be at least 1, frames first; got {tuple(shape)}")
        if name in ("files", "records"):
            raise ValueError(f"an array cannot be called {name!r}: the store keeps other things there")
        current = self._stored_document(name)
        wanted = ArrayInfo(tuple(int(side) for side in shape), np.dtype(dtype))
        if current is None or arrays.info(current) != wanted:
            document = arrays.create(wanted.shape, wanted.dtype, [key])
            if current is not None:
                self._retire(name, current, wanted)
            self._files.put({f"{self._base}/zarr.json": _GROUP, f"{self._base}/{name}/zarr.json": document})
        elif key not in arrays.keys(current):
            document = arrays.with_keys(current, [*arrays.keys(current), key])
            self._files.put({f"{self._base}/{name}/zarr.json": document})
        else:
            document = current
        self._documents[name] = document

    def _retire(self, name: str, document: bytes, wanted: ArrayInfo) -> None:
        """Forget what was committed into an array about to be replaced.

        Old chunks within the new length stay: they are not committed, and another writer may have replaced
        some of them by now.
        """
        old_keys = set(arrays.keys(document))
        commits = f"{self._base}/records/commits"
        for stage in self._files.list(commits):
            markers = self._files.list(f"{commits}/{stage}")
            stale = [m for m in markers if m.partition(".")[2] in old_keys]
            self._files.delete(f"{commits}/{stage}/{marker}" for marker in stale)
        chunks = self._files.list(f"{self._base}/{name}")
        beyond = [c for c in chunks if (frame := arrays.frame_of(c)) is not None and frame >= wanted.shape[0]]
        self._files.delete(f"{self._base}/{name}/{chunk}" for chunk in beyond)

    def array_info(self, name: str) -> ArrayInfo | None:
        """Shape and type of an array, or None when there is none."""
        document = self._document(name)
        return arrays.info(document) if document is not None else None

    def _document(self, name: str) -> bytes | None:
        if name not in self._documents:
            document = self._stored_document(checked_name(name, "array"))
            if document is None:
                return None
            self._documents[name] = document
        return self._documents[name]

    def _stored_document(self, name: str) -> bytes | None:
        """An array's document; None when there is none or it is damaged: its frames are then missing."""
        return self._stored_documents([name]).get(name)

    def _stored_documents(self, names: Sequence[str]) -> dict[str, bytes]:
        """Those of the arrays' documents that are there and whole, by name."""
        paths = {f"{self._base}/{name}/zarr.json": name for name in names}
        found = {paths[path]: document for path, document in self._files.get(paths).items()}
        damaged = [name for name, document in found.items() if not arrays.is_readable(document)]
        for name in damaged:
            _log.warning("%s/%s/zarr.json is damaged; the array counts as missing", self._base, name)
            del found[name]
        return found

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Write frames ``[start, start + n)`` of an array, ``values [n, ...]`` of its very type.

        Commit markers are not touched: see the order of work in :class:`Unit`.
        """
        self.write_together(start, {name: values})

    def write_together(self, start: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write frames from ``start`` on of several arrays, by name as for :meth:`write`, all at once."""
        chunks: dict[str, bytes] = {}
        for name, frames in values.items():
            for chunk, value in self._encoded(name, start, np.asarray(frames)).items():
                chunks[f"{self._base}/{name}/{chunk}"] = value
        self._files.put(chunks)

    def _encoded(self, name: str, start: int, values: NDArray[Any]) -> dict[str, bytes]:
        """Frames as chunks, by their names."""
        document = self._document(name)
        if document is None:
            raise ValueError(f"{self._base}/{name} does not exist; call ensure_array first")
        array = arrays.info(document)
        if values.dtype != array.dtype or values.shape[1:] != array.shape[1:]:
            raise ValueError(
                f"{self._base}/{name} holds frames {array.shape[1:]} {array.dtype}; "
                f"got {values.shape[1:]} {values.dtype}"
            )
        self._check_range(name, array, start, start + len(values))
        return arrays.encode(document, start, values) if len(values) else {}

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Read frames ``[start, stop)`` of an array, ``[stop - start, ...]``.

        Raises:
            MissingChunk: some of the frames are absent or fail their checksum; it lists them.
        """
        return self.read_together([name], start, stop)[name]

    def read_together(self, names: Sequence[str], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Read frames ``[start, stop)`` of several arrays, by name, all at once: a store that is far away is
        waited for once, not once an array.

        Raises:
            MissingChunk: see :meth:`read`; of the first array of which something is missing.
        """
        unknown = [checked_name(name, "array") for name in names if name not in self._documents]
        self._documents.update(self._stored_documents(unknown))
        documents = {name: self._documents[name] for name in names if name in self._documents}
        for name in names:
            if name not in documents:
                raise MissingChunk(f"{self._base}/{name}", range(start, stop))
            self._check_range(name, arrays.info(documents[name]), start, stop)
        found = {}
        for name, (values, missing) in self._load(documents, start, stop).items():
            if missing:
                self._documents.pop(name, None)  # perhaps the array was replaced since
                raise MissingChunk(f"{self._base}/{name}", missing)
            found[name] = values
        return found

    def _load(
        self, documents: Mapping[str, bytes], start: int, stop: int
    ) -> dict[str, tuple[NDArray[Any], list[int]]]:
        """Frames ``[start, stop)`` of arrays, and which of them are absent or corrupt."""
        chunks = {
            name: [arrays.chunk_name(arrays.info(document), frame) for frame in range(start, stop)]
            for name, document in documents.items()
        }
        stored = self._files.get(f"{self._base}/{name}/{chunk}" for name in chunks for chunk in chunks[name])
        found: dict[str, dict[str, bytes]] = {name: {} for name in documents}
        for path, value in stored.items():
            name, chunk = path.rsplit("/", 2)[1:]
            found[name][chunk] = value
        return {
            name: arrays.decode(document, start, stop, found[name]) for name, document in documents.items()
        }

    def drop_array(self, name: str) -> None:
        """Delete an array with all its chunks. Markers are not touched: uncommit, or ask :meth:`done` with
        ``arrays``.

        Its document goes first: killed in between, the frames read as missing, by plain zarr too, which would
        show frames whose chunks alone are gone as black.
        """
        folder = f"{self._base}/{checked_name(name, 'array')}"
        self._files.delete([f"{folder}/zarr.json"])
        self._documents.pop(name, None)
        self._files.delete_folder(folder)

    def _check_range(self, name: str, array: ArrayInfo, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= array.shape[0]:
            raise ValueError(
                f"{self._base}/{name} has frames 0 to {array.shape[0] - 1}; got the range [{start}, {stop})"
            )

    # Commit markers

    def commit(self, stage: str, frames: Iterable[int], key: str) -> None:
        """Mark frames as done by a stage under a key. Only after their data is written."""
        checked_key(key)
        wanted = {int(frame) for frame in frames}
        self._delete_markers(stage, wanted, but=key)
        folder = self._commits(stage)
        if wanted:
            self._files.put({f"{folder}/{frame:08d}.{key}": b"" for frame in sorted(wanted)})

    def uncommit(self, stage: str, frames: Iterable[int]) -> None:
        """Mark frames as not done by a stage under any key. Always before their data is overwritten."""
        self._delete_markers(stage, {int(frame) for frame in frames})

    def _delete_markers(self, stage: str, frames: set[int], but: str | None = None) -> None:
        stale = [
            f"{self._commits(stage)}/{frame:08d}.{key}"
            for frame, key in self.markers(stage)
            if frame in frames and key != but
        ]
        self._files.delete(stale)

    @contextlib.contextmanager
    def overwriting(self, stage: str, frames: Iterable[int], key: str) -> Iterator[None]:
        """Uncommit frames, let the block write their data, commit them unless it raises."""
        frames = list(frames)
        self.uncommit(stage, frames)
        yield
        self.commit(stage, frames, key)

    def done(self, stage: str, key: str, total: int, arrays: Sequence[str] = ()) -> NDArray[np.bool_]:
        """Tell which of ``total`` frames a stage has committed under this very key, ``[total]`` bool.

        One listing. With ``arrays``, a frame whose chunk is absent from one of them is not done either, for
        one listing more each; a corrupt chunk shows only when it is read.
        """
        done = np.zeros(total, dtype=np.bool_)
        for frame, marked in self.markers(stage):
            if marked == key and frame < total:
                done[frame] = True
        for name in arrays:
            present = np.zeros(total, dtype=np.bool_)
            for frame in self.stored_frames(name):
                if frame < total:
                    present[frame] = True
            done &= present
        return done

    def stored_frames(self, name: str) -> list[int]:
        """Frames whose chunk is there, committed or not, sound or not: one listing."""
        chunks = self._files.list(f"{self._base}/{checked_name(name, 'array')}")
        return [frame for chunk in chunks if (frame := arrays.frame_of(chunk)) is not None]

    def _commits(self, stage: str) -> str:
        return f"{self._base}/records/commits/{checked_name(stage, 'stage')}"

    def markers(self, stage: str) -> list[tuple[int, str]]:
        """Frames that a stage has committed, each with its key: one listing, sorted."""
        names = self._files.list(self._commits(stage))
        return [(int(m.group(1)), m.group(2)) for name in names if (m := _MARKER.fullmatch(name))]

    def stages(self) -> list[str]:
        """Names of the stages that have committed frames, sorted."""
        names = self._files.list(f"{self._base}/records/commits")
        return [name for name in names if is_name(name) and self.markers(name)]

    # The whole

    def sizes(self) -> dict[str, int]:
        """Bytes by array, by file as ``files/<name>``, and of all ``records`` together (the group's own
        document counts among them)."""
        sizes: dict[str, int] = {}
        for path, size in self._files.sizes(self._base).items():
            top, _, rest = path.partition("/")
            name = path if top == "files" else top if rest else "records"
            sizes[name] = sizes.get(name, 0) + size
        return sizes

    def digest(self, arrays: Iterable[str], files: Iterable[str] = ()) -> str:
        """SHA-256, in hexadecimal, over the content of arrays and files.

        Two stores that hold the same results give the same digest: names, types, shapes and values count,
        metadata, compression and the order of the arguments do not. Arrays, frames and files that are absent
        or corrupt are marked as absent. An array is read a few frames at a time.
        """
        digest = hashlib.sha256()
        for name in sorted(set(arrays)):
            self._digest_array(name, digest)
        for name in sorted(set(files)):
            value = self.get_bytes(name)
            content = hashlib.sha256(value).hexdigest() if value is not None else None
            digest.update(canonical_json({"file": name, "sha256": content}))
        return digest.hexdigest()

    def _digest_array(self, name: str, digest: hashlib._Hash) -> None:
        self._documents.pop(name, None)  # perhaps the array was replaced since
        document = self._document(name)
        if document is None:
            digest.update(canonical_json({"array": name, "shape": None}))
            return
        array = arrays.info(document)
        digest.update(canonical_json({"array": name, "dtype": array.dtype.name, "shape": array.shape}))
        for start in range(0, array.shape[0], RANGE):
            loaded = self._load({name: document}, start, min(start + RANGE, array.shape[0]))
            values, missing = loaded[name]
            values = values.astype(array.dtype.newbyteorder("<"), copy=False)
            for frame, value in enumerate(values, start):
                digest.update(b"absent" if frame in missing else b"frame" + value.tobytes())
