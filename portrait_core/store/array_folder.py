"""Arrays in a folder: one object per frame, or one object, each chunk with a checksum.

:mod:`portrait_core.store.arrays` encodes and decodes chunks by zarr's format; this module moves the objects.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from portrait_core.errors import MissingChunk
from portrait_core.store import arrays
from portrait_core.store.arrays import ArrayInfo
from portrait_core.store.documents import canonical_json
from portrait_core.store.files import Files
from portrait_core.store.keys import checked_name

_HEAD_BYTES = 1 << 16
"""Number of bytes of a packed array that are read first: a small array is read completely by one request."""
_MANY = 1024
"""Number of chunks from which on their folder is listed before they are read."""
_RESERVED = ("files", "notes", "done", "zarr.json")
_log = logging.getLogger(__name__)


class ArrayFolder:
    """The arrays ``<path>/<name>/``.

    Metadata documents are kept once they are read; when a chunk is missing according to one of them, the
    document is read again.
    """

    def __init__(self, files: Files, path: str) -> None:
        self.path = path
        self._files = files
        self._documents: dict[str, bytes] = {}

    def ensure_array(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> None:
        """Create an array ``[T, ...]`` of frames, unless it exists.

        Args:
            name: name of the array.
            shape: shape with frames first; at least one frame.
            dtype: numpy type of the array.

        Raises:
            ValueError: the shape is invalid, or an array of another shape or type exists: two runs under one
                key disagree.
        """
        self._ensure(name, shape, dtype, whole=False)

    def _ensure(self, name: str, shape: Sequence[int], dtype: DTypeLike, whole: bool) -> None:
        if checked_name(name, "array") in _RESERVED:
            raise ValueError(f"an array cannot be called {name!r}: the store uses that name itself")
        if not shape or min(shape) < 1:
            raise ValueError(f"array {name}: every side must be at least 1, frames first; got {tuple(shape)}")
        document = self._stored_documents([name]).get(name)
        if document is None:
            document = self._write_document(name, arrays.create_document(shape, dtype, whole))
        array = arrays.read_info(document)
        rows = shape[0] if whole else 1
        if (array.shape, array.dtype, array.rows) != (tuple(shape), np.dtype(dtype), rows):
            raise ValueError(
                f"{self.path}/{name} holds {array.dtype} {array.shape}, {array.rows} per chunk; got "
                f"{np.dtype(dtype)} {tuple(shape)}, {rows} per chunk, under the same key. Raise the version "
                f"of the stage, or delete the folder"
            )
        self._documents[name] = document
        if array.packed:
            self.unpack(name)

    def _write_document(self, name: str, document: bytes) -> bytes:
        """Write an array's document where there is none, or a damaged one, and return it.

        If all frames lie in one object, they are kept although their document was lost. A damaged object is
        deleted, as it would count as the array's frames.
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
        """Write frames ``[start, start + n)`` of an array.

        A packed array is unpacked first.

        Args:
            name: name of the array.
            start: first frame.
            values: ``[n, ...]``, of the array's own type.

        Raises:
            ValueError: the array does not exist, or the values or the range do not fit it.
        """
        self.write_together(start, {name: values})

    def write_together(self, start: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write frames of several arrays from ``start`` on, by name as for :meth:`write`, all at once."""
        chunks: dict[str, bytes] = {}
        for name, frames in values.items():
            for chunk, value in self._encode(name, start, np.asarray(frames)).items():
                chunks[f"{self.path}/{name}/{chunk}"] = value
        self._files.put(chunks)

    def write_whole(self, values: Mapping[str, NDArray[Any]]) -> None:
        """Create and write arrays that are one object each.

        Args:
            values: arrays ``[N, ...]`` by name; ``N`` is at least 1 and need not be the number of frames.

        Raises:
            ValueError: see :meth:`ensure_array`.
        """
        for name, value in values.items():
            self._ensure(name, value.shape, value.dtype, whole=True)
        self.write_together(0, values)

    def _encode(self, name: str, start: int, values: NDArray[Any]) -> dict[str, bytes]:
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
        """Read shape and type of an array; None when it does not exist."""
        document = self._document(name)
        return arrays.read_info(document) if document is not None else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read frames ``[start, stop)`` of an array, ``[stop - start, ...]``; all frames by default.

        Raises:
            MissingChunk: some of the frames are absent or fail their checksum; the error lists them.
        """
        return self.read_together([name], start, stop)[name]

    def read_together(
        self, names: Sequence[str], start: int = 0, stop: int | None = None
    ) -> dict[str, NDArray[Any]]:
        """Read frames ``[start, stop)`` of several arrays, by name, all at once.

        A remote store is waited for once, not once per array.

        Raises:
            MissingChunk: see :meth:`read`; for the first array of which a frame is missing.
        """
        frames_by_name: dict[str, NDArray[Any]] = {}
        for name, (values, missing) in self._load_frames(names, start, stop).items():
            if missing or values is None:
                self._forget(name)
                raise MissingChunk(f"{self.path}/{name}", missing)
            frames_by_name[name] = values
        return frames_by_name

    def _load_frames(
        self, names: Sequence[str], start: int, stop: int | None
    ) -> dict[str, tuple[NDArray[Any] | None, Sequence[int]]]:
        """Read frames ``[start, stop)`` of arrays, and list those that are absent or corrupt.

        The frames are None for an array that does not exist.
        """
        unknown = [checked_name(name, "array") for name in names if name not in self._documents]
        if unknown:
            self._documents.update(self._stored_documents(unknown))
        loaded = self._load_documented([name for name in names if name in self._documents], start, stop)
        results: dict[str, tuple[NDArray[Any] | None, Sequence[int]]] = {}
        for name in names:
            values, missing = loaded.get(name) or (None, [])
            if missing or values is None:
                # The array may have been made, packed or unpacked since its document was read.
                self._forget(name)
                self._documents.update(self._stored_documents([name]))
                reloaded = self._load_documented([name], start, stop) if name in self._documents else {}
                frames = range(start, start + 1 if stop is None else stop)
                values, missing = reloaded.get(name) or (None, list(frames))
            results[name] = values, missing
        return results

    def _load_documented(
        self, names: Sequence[str], start: int, stop: int | None
    ) -> dict[str, tuple[NDArray[Any] | None, Sequence[int]]]:
        """Read frames ``[start, stop)`` of arrays by the documents in memory.

        Lists those of the frames that are absent or corrupt, too; where there are such, the frames are None.
        """
        requests: dict[str, tuple[ArrayInfo, int, int]] = {}
        chunk_of_path: dict[str, tuple[str, int]] = {}
        chunks: dict[str, dict[str, bytes]] = {name: {} for name in names}
        for name in names:
            array = arrays.read_info(self._documents[name])
            end = array.shape[0] if stop is None else stop
            self._check_range(name, array, start, end)
            requests[name] = array, start, end
            numbers = range(start // array.rows, -(-end // array.rows))
            if array.packed:
                for number, chunk in self._packed_chunks(name, array, numbers).items():
                    chunks[name][arrays.chunk_name(array, number)] = chunk
            else:
                chunk_of_path |= {
                    path: (name, number) for path, number in self._stored_paths(name, array, numbers).items()
                }
        most = max((array.stored_chunk_bytes for array, _, _ in requests.values()), default=0)
        for path, value in self._files.get(chunk_of_path, most).items():
            name, number = chunk_of_path[path]
            chunks[name][arrays.chunk_name(requests[name][0], number)] = value
        return {
            name: arrays.decode(arrays.plain_document(self._documents[name]), begin, end, chunks[name])
            for name, (_, begin, end) in requests.items()
        }

    def _chunk_paths(self, name: str, array: ArrayInfo, numbers: Iterable[int]) -> dict[str, int]:
        """Return the numbers of chunks by their paths as separate objects."""
        return {f"{self.path}/{name}/{arrays.chunk_name(array, number)}": number for number in numbers}

    def _stored_paths(self, name: str, array: ArrayInfo, numbers: Sequence[int]) -> dict[str, int]:
        """Return what :meth:`_chunk_paths` does; of many chunks, only of those that a listing names.

        The document of a stranger may speak of millions of chunks that are not there.
        """
        if len(numbers) > _MANY:
            numbers = sorted(self._listed_chunks(name).intersection(numbers))
        return self._chunk_paths(name, array, numbers)

    def _listed_chunks(self, name: str) -> set[int]:
        """Return the numbers of the chunks that are objects of their own, by a listing."""
        numbers = map(arrays.chunk_number, self._files.list(f"{self.path}/{name}"))
        return {number for number in numbers if number is not None}

    def _chunks(self, name: str, array: ArrayInfo, numbers: Sequence[int]) -> dict[int, bytes]:
        """Read those of an array's chunks that exist, whatever its form is."""
        if array.packed:
            return self._packed_chunks(name, array, numbers)
        paths = self._stored_paths(name, array, numbers)
        found = self._files.get(paths, array.stored_chunk_bytes)
        return {paths[path]: value for path, value in found.items()}

    def _packed_chunks(self, name: str, array: ArrayInfo, numbers: Sequence[int]) -> dict[int, bytes]:
        """Read those of a packed array's chunks that exist: by one request for a small array, else by two.

        The index is read each time. Another process may have replaced the object by one with more frames; a
        place of the old object may then hold another frame of the same length.
        """
        path = f"{self.path}/{name}/{arrays.packed_name(array)}"
        head = self._read_head(name, array)
        spans = self._chunk_spans(name, array, numbers, head)
        chunks: dict[int, bytes] = {}
        if spans:
            begin, end = min(a for a, _ in spans.values()), max(b for _, b in spans.values())
            data = head[begin:end] if end <= len(head) else self._files.get_range(path, begin, end) or b""
            chunks = {n: data[a - begin : b - begin] for n, (a, b) in spans.items()}
        # A writer that did not know yet that the array is packed wrote frames beside the one object.
        beside = self._stored_paths(name, array, [n for n in numbers if n not in spans])
        found = self._files.get(beside, array.stored_chunk_bytes)
        return chunks | {beside[path]: value for path, value in found.items()}

    def _read_head(self, name: str, array: ArrayInfo) -> bytes:
        """Read the beginning of a packed array's object; empty when it does not exist."""
        path = f"{self.path}/{name}/{arrays.packed_name(array)}"
        return self._files.get_range(path, 0, max(arrays.index_bytes(array.chunks), _HEAD_BYTES)) or b""

    def _chunk_spans(
        self, name: str, array: ArrayInfo, numbers: Iterable[int], head: bytes | None = None
    ) -> dict[int, tuple[int, int]]:
        """Return where chunks begin and end in a packed array's object, in bytes, by number.

        Returns nothing when the object does not exist or its index is damaged.
        """
        head = self._read_head(name, array) if head is None else head
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
        """Read those of the arrays' documents that exist and are whole, by name."""
        paths = {f"{self.path}/{name}/zarr.json": name for name in names}
        read = self._files.get(paths, arrays.DOCUMENT_BYTES)
        documents = {paths[path]: document for path, document in read.items()}
        for name, document in list(documents.items()):
            if problem := arrays.problem_of(document):
                _log.warning("%s/%s/zarr.json %s; the array counts as missing", self.path, name, problem)
                del documents[name]
        return documents

    def _forget(self, name: str) -> None:
        self._documents.pop(name, None)

    def _check_range(self, name: str, array: ArrayInfo, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= array.shape[0]:
            raise ValueError(
                f"{self.path}/{name} has frames 0 to {array.shape[0] - 1}; got the range [{start}, {stop})"
            )

    def drop_array(self, name: str) -> None:
        """Delete an array with all its chunks.

        Its document is deleted first: if the process is killed in between, the frames count as missing. Plain
        zarr would show frames whose chunks alone are gone as black.
        """
        folder = f"{self.path}/{checked_name(name, 'array')}"
        self._files.delete([f"{folder}/zarr.json"])
        self._forget(name)
        self._files.delete_folder(folder)

    def _pack(self, name: str, listed: frozenset[int], marked: frozenset[int]) -> None:
        """Pack an array, unless a listed or marked chunk is missing.

        The document is read after the listing: if another process has packed the array meanwhile and has
        deleted a chunk, either the document says so or the chunk is missing.
        """
        self._forget(name)
        document = self._document(name)
        if document is None:
            return
        array = arrays.read_info(document)
        packed = self._chunk_spans(name, array, range(array.chunks)).keys() if array.packed else set()
        there = listed | packed
        chunks = self._chunks(name, array, sorted(number for number in there if number < array.chunks))
        if lacking := {number for number in listed | marked if number < array.chunks} - chunks.keys():
            _log.warning("%s/%s lacks %d chunks; it is not packed", self.path, name, len(lacking))
            return
        self._files.put(
            {f"{self.path}/{name}/{arrays.packed_name(array)}": arrays.pack(chunks, array.chunks)}
        )
        if not array.packed:
            self._files.put({f"{self.path}/{name}/zarr.json": arrays.packed_document(document)})
        self._forget(name)
        self._files.delete(self._chunk_paths(name, array, sorted(listed if array.packed else chunks)))

    def unpack(self, name: str, without: Iterable[int] = ()) -> None:
        """Give a packed array one object per frame again, so that single frames can be written.

        Does nothing to an array that is not packed. The array can be read at every moment.

        Args:
            name: name of the array.
            without: chunks that are left out.
        """
        document = self._document(name)
        if document is None or not (array := arrays.read_info(document)).packed:
            return
        dropped = set(without)
        packed = sorted(self._chunk_spans(name, array, range(array.chunks)).keys() - dropped)
        for at in range(0, len(packed), array.chunks_together):
            chunks = self._packed_chunks(name, array, packed[at : at + array.chunks_together])
            paths = self._chunk_paths(name, array, chunks)
            self._files.put({path: chunks[number] for path, number in paths.items()})
        self._files.delete(self._chunk_paths(name, array, dropped))
        self._files.put({f"{self.path}/{name}/zarr.json": arrays.plain_document(document)})
        self._forget(name)
        self._files.delete([f"{self.path}/{name}/{arrays.packed_name(array)}"])

    def _digest_array(self, name: str, digest: hashlib._Hash) -> None:
        self._forget(name)  # it may have been packed since
        document = self._document(name)
        if document is None:
            digest.update(canonical_json({"array": name, "shape": None}))
            return
        array = arrays.read_info(document)
        digest.update(canonical_json({"array": name, "dtype": array.dtype.name, "shape": array.shape}))
        stored = self._listed_chunks(name)
        if array.packed:
            stored |= self._chunk_spans(name, array, range(array.chunks)).keys()
        step = array.chunks_together if array.rows == 1 else array.shape[0]
        for start in range(0, array.shape[0], step):
            stop = min(start + step, array.shape[0])
            if stored.isdisjoint(range(start // array.rows, -(-stop // array.rows))):
                for at in range(start, stop, _MANY):
                    digest.update(b"absent" * min(_MANY, stop - at))
                continue
            for value in self._load_each(name, start, stop):
                if value is None:
                    digest.update(b"absent")
                else:
                    stored_value = value.astype(array.dtype.newbyteorder("<"), copy=False)
                    digest.update(b"frame" + stored_value.tobytes())

    def _load_each(self, name: str, start: int, stop: int) -> Iterator[NDArray[Any] | None]:
        """Yield frames ``[start, stop)`` of an array; None for those that are absent or corrupt."""
        values, missing = self._load_frames([name], start, stop)[name]
        for frame in range(start, stop):
            if values is not None:
                yield values[frame - start]
            elif frame in missing:
                yield None
            else:
                one = self._load_frames([name], frame, frame + 1)[name][0]
                yield None if one is None else one[0]
