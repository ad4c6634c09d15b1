"""Arrays in a folder: one object per frame, or one object, each chunk with a checksum.

What zarr knows and what it does not is in :mod:`portrait_core.store.arrays`; this moves the objects.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from portrait_core.errors import MissingChunk
from portrait_core.store import arrays
from portrait_core.store.arrays import ArrayInfo
from portrait_core.store.documents import canonical_json
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_name

RANGE = 16
"""Frames that are read together when all are gone through."""
_HEAD_BYTES = 1 << 16
"""Bytes that are read of a packed array at once: a small one comes whole, by one request."""
_RESERVED = ("files", "notes", "done", "zarr.json")
_log = logging.getLogger(__name__)


class ArrayFolder:
    """The arrays ``<path>/<name>/``. Documents that were read are kept; if a chunk is missing by one of them,
    it is read again.
    """

    def __init__(self, files: Files, path: str) -> None:
        self.path = path
        self._files = files
        self._documents: dict[str, bytes] = {}

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
            document = self._described(name, arrays.create_document(shape, dtype, whole))
        found = arrays.read_info(document)
        rows = shape[0] if whole else 1
        if (found.shape, found.dtype, found.rows) != (tuple(shape), np.dtype(dtype), rows):
            raise ValueError(
                f"{self.path}/{name} holds {found.dtype} {found.shape}, {found.rows} per chunk; got "
                f"{np.dtype(dtype)} {tuple(shape)}, {rows} per chunk, under the same key. Raise the version "
                f"of the stage, or delete the folder"
            )
        self._documents[name] = document
        if found.packed:
            self.unpack(name)

    def _described(self, name: str, document: bytes) -> bytes:
        """Write an array's document where there is none, or a damaged one; give the one that was written.

        If all frames lie in one object, they are not lost with their document. A damaged object goes, as it
        would count as the array's frames.
        """
        array = arrays.read_info(document)
        path = f"{self.path}/{name}/{arrays.packed_name(array)}"
        head = self._files.get_range(path, 0, arrays.index_bytes(array.chunks))
        if head is not None:
            try:
                arrays.read_index(head, array, ())
            except ValueError:
                self._files.delete([path])
            else:
                document = arrays.packed_document(document)
        self._files.put({f"{self.path}/{name}/zarr.json": document})
        return document

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Write frames ``[start, start + n)`` of an array, ``values [n, ...]`` of its very type; a packed
        array is unpacked first.

        Raises:
            ValueError: there is no such array, or the values or the range do not fit it.
        """
        self.write_together(start, {name: values})

    def write_together(self, start: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write frames from ``start`` on of several arrays, by name as for :meth:`write`, all at once."""
        chunks: dict[str, bytes] = {}
        for name, frames in values.items():
            for chunk, value in self._encoded(name, start, np.asarray(frames)).items():
                chunks[f"{self.path}/{name}/{chunk}"] = value
        self._files.put(chunks)

    def write_whole(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Make and write arrays ``[N, ...]`` that are one object each, by name; ``N`` is at least 1 and need
        not be the number of frames.

        Raises:
            ValueError: see :meth:`ensure_array`.
        """
        for name, value in values.items():
            self._ensure(name, value.shape, value.dtype, whole=True)
        self.write_together(0, values)

    def _encoded(self, name: str, start: int, values: NDArray[Any]) -> dict[str, bytes]:
        document = self._document(name)
        if document is not None and arrays.read_info(document).packed:
            self.unpack(name)
            document = self._document(name)
        if document is None:
            raise ValueError(f"{self.path} has no array {name}; call ensure_array first")
        array = arrays.read_info(document)
        if values.dtype != array.dtype:
            raise ValueError(f"{self.path}/{name} holds {array.dtype}; got {values.dtype}")
        if values.shape[1:] != array.shape[1:]:
            raise ValueError(
                f"{self.path}/{name} holds frames {array.shape[1:]}; got {values.shape[1:]}, {len(values)} "
                f"of them"
            )
        self._check_range(name, array, start, start + len(values))
        if array.rows > 1 and len(values) != array.shape[0]:
            raise ValueError(f"{self.path}/{name} is one object; write all of it by write_whole")
        return arrays.encode(document, start, values) if len(values) else {}

    def array_info(self, name: str) -> ArrayInfo | None:
        """Read shape and type of an array; None when there is none."""
        document = self._document(name)
        return arrays.read_info(document) if document is not None else None

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
        found: dict[str, NDArray[Any]] = {}
        for name, (values, missing) in self._loaded(names, start, stop).items():
            if missing or values is None:
                self._forget(name)
                raise MissingChunk(f"{self.path}/{name}", missing)
            found[name] = values
        return found

    def _loaded(
        self, names: Sequence[str], start: int, stop: int | None
    ) -> dict[str, tuple[NDArray[Any] | None, list[int]]]:
        """Frames ``[start, stop)`` of arrays, and which of them are absent or corrupt; None for an array that
        is not there.
        """
        unknown = [checked_name(name, "array") for name in names if name not in self._documents]
        if unknown:
            self._documents.update(self._stored_documents(unknown))
        loaded = self._load([name for name in names if name in self._documents], start, stop)
        found: dict[str, tuple[NDArray[Any] | None, list[int]]] = {}
        for name in names:
            values, missing = loaded.get(name) or (None, [])
            if missing or values is None:
                # Perhaps the array was made, packed or unpacked since its document was read.
                self._forget(name)
                self._documents.update(self._stored_documents([name]))
                again = self._load([name], start, stop) if name in self._documents else {}
                frames = range(start, start + 1 if stop is None else stop)
                values, missing = again.get(name) or (None, list(frames))
            found[name] = values, missing
        return found

    def _load(
        self, names: Sequence[str], start: int, stop: int | None
    ) -> dict[str, tuple[NDArray[Any], list[int]]]:
        """Frames ``[start, stop)`` of arrays by the documents that are known, and which of them are absent or
        corrupt.
        """
        asked: dict[str, tuple[ArrayInfo, int, int]] = {}
        wanted: dict[str, tuple[str, int]] = {}
        chunks: dict[str, dict[str, bytes]] = {name: {} for name in names}
        for name in names:
            array = arrays.read_info(self._documents[name])
            end = array.shape[0] if stop is None else stop
            self._check_range(name, array, start, end)
            asked[name] = array, start, end
            numbers = range(start // array.rows, -(-end // array.rows))
            if array.packed:
                for number, chunk in self._packed_chunks(name, array, numbers).items():
                    chunks[name][arrays.chunk_name(array, number)] = chunk
            else:
                wanted |= {path: (name, number) for path, number in self._paths(name, array, numbers).items()}
        for path, value in self._files.get(wanted).items():
            name, number = wanted[path]
            chunks[name][arrays.chunk_name(asked[name][0], number)] = value
        return {
            name: arrays.decode(arrays.plain_document(self._documents[name]), begin, end, chunks[name])
            for name, (_, begin, end) in asked.items()
        }

    def _paths(self, name: str, array: ArrayInfo, numbers: Iterable[int]) -> dict[str, int]:
        """Numbers of chunks, by the paths that they have as objects of their own."""
        return {f"{self.path}/{name}/{arrays.chunk_name(array, number)}": number for number in numbers}

    def _chunks(self, name: str, array: ArrayInfo, numbers: Sequence[int]) -> dict[int, bytes]:
        """Those of an array's chunks that are there, whatever form it has."""
        if array.packed:
            return self._packed_chunks(name, array, numbers)
        paths = self._paths(name, array, numbers)
        return {paths[path]: value for path, value in self._files.get(paths).items()}

    def _packed_chunks(self, name: str, array: ArrayInfo, numbers: Sequence[int]) -> dict[int, bytes]:
        """Those of a packed array's chunks that are there: of a small array by one request, else by two.

        The index is read each time. Another process may have put an object with more frames in the place of
        the one that was read before; where that one had a frame, there may be another of the same length.
        """
        path = f"{self.path}/{name}/{arrays.packed_name(array)}"
        head = self._head(name, array)
        places = self._places(name, array, numbers, head)
        found: dict[int, bytes] = {}
        if places:
            begin, end = min(a for a, _ in places.values()), max(b for _, b in places.values())
            data = head[begin:end] if end <= len(head) else self._files.get_range(path, begin, end) or b""
            found = {n: data[a - begin : b - begin] for n, (a, b) in places.items()}
        # Who did not know yet that the array is packed wrote frames beside the one object.
        beside = self._paths(name, array, (n for n in numbers if n not in places))
        return found | {beside[path]: value for path, value in self._files.get(beside).items()}

    def _head(self, name: str, array: ArrayInfo) -> bytes:
        """The beginning of a packed array's object; nothing when it is not there."""
        path = f"{self.path}/{name}/{arrays.packed_name(array)}"
        return self._files.get_range(path, 0, max(arrays.index_bytes(array.chunks), _HEAD_BYTES)) or b""

    def _places(
        self, name: str, array: ArrayInfo, numbers: Iterable[int], head: bytes | None = None
    ) -> dict[int, tuple[int, int]]:
        """Where chunks begin and end in a packed array's object; none when it is not there or its index is
        damaged.
        """
        head = self._head(name, array) if head is None else head
        try:
            return arrays.read_index(head, array, numbers) if head else {}
        except ValueError as error:
            _log.warning("%s/%s: %s; its frames count as missing", self.path, name, error)
            return {}

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

    def _pack(self, name: str, listed: frozenset[int], marked: frozenset[int]) -> None:
        """Pack an array, unless a chunk that was listed, or is marked, is not there.

        The document is read after the listing: if another process has packed the array meanwhile and has
        deleted a chunk, either the document says so, or the chunk is noticed to be gone.
        """
        self._forget(name)
        document = self._document(name)
        if document is None:
            return
        array = arrays.read_info(document)
        found = self._chunks(name, array, range(array.chunks))
        if lacking := {number for number in listed | marked if number < array.chunks} - found.keys():
            _log.warning("%s/%s lacks %d chunks; it is not packed", self.path, name, len(lacking))
            return
        self._files.put({f"{self.path}/{name}/{arrays.packed_name(array)}": arrays.pack(found, array.chunks)})
        if not array.packed:
            self._files.put({f"{self.path}/{name}/zarr.json": arrays.packed_document(document)})
        self._forget(name)
        self._files.delete(self._paths(name, array, sorted(listed if array.packed else found)))

    def unpack(self, name: str, without: Iterable[int] = ()) -> None:
        """Give a packed array an object per frame again, so that single frames can be written; those of
        ``without`` are left out. Nothing happens to an array that is not packed.

        At every moment the array can be read.
        """
        document = self._document(name)
        if document is None or not (array := arrays.read_info(document)).packed:
            return
        chunks, dropped = self._chunks(name, array, range(array.chunks)), set(without)
        kept = self._paths(name, array, (number for number in chunks if number not in dropped))
        self._files.put({path: chunks[number] for path, number in kept.items()})
        self._files.delete(self._paths(name, array, dropped))
        self._files.put({f"{self.path}/{name}/zarr.json": arrays.plain_document(document)})
        self._forget(name)
        self._files.delete([f"{self.path}/{name}/{arrays.packed_name(array)}"])

    def _digest_array(self, name: str, digest: hashlib._Hash) -> None:
        self._forget(name)  # perhaps it was packed since
        document = self._document(name)
        if document is None:
            digest.update(canonical_json({"array": name, "shape": None}))
            return
        array = arrays.read_info(document)
        digest.update(canonical_json({"array": name, "dtype": array.dtype.name, "shape": array.shape}))
        step = RANGE if array.rows == 1 else array.shape[0]
        for start in range(0, array.shape[0], step):
            stop = min(start + step, array.shape[0])
            values, missing = self._loaded([name], start, stop)[name]
            for frame in range(start, stop):
                if values is None or frame in missing:
                    digest.update(b"absent")
                else:
                    value = values[frame - start].astype(array.dtype.newbyteorder("<"), copy=False)
                    digest.update(b"frame" + value.tobytes())
