"""Verification of a unit: damaged data, leftovers of killed writers, and repair.

Runs notice damage when they read it. Verification finds it beforehand, also in data that no run reads any
more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from portrait_core.errors import InputError
from portrait_core.settings.limits import current_limits, over_limit
from portrait_core.store import arrays as zarr_arrays
from portrait_core.store.contents import Contents, Declared, file_name, fits_digest, marker_spans
from portrait_core.store.documents import parse_json
from portrait_core.store.failures import read_table
from portrait_core.store.keys import is_name
from portrait_core.store.output import Output
from portrait_core.store.unit import Unit

FindingKind = Literal["corrupt", "absent", "orphan", "partial", "unreadable"]


@dataclass(frozen=True)
class Finding:
    """One deviation from the expected contents."""

    kind: FindingKind
    """``corrupt``, ``absent``: a result is lost and must be made again. ``orphan``: frames that no marker
    covers, left by killed writers, harmless. ``partial``: a half-written file, for :meth:`Store.sweep`.
    ``unreadable``: a record that counts as absent."""
    where: str
    """Path inside the unit: ``<stage>.<key>/<array>``, ``<stage>.<key>/files/<name>`` ..."""
    frames: tuple[int, ...]
    """Frames concerned, in ascending order; empty for anything but an array of frames, which stands for its
    stage."""
    message: str


@dataclass
class UnitReport:
    """Result of :func:`verify_unit`."""

    unit: str
    chunks: int = 0
    """Number of chunks of arrays that were read."""
    files: int = 0
    bytes: int = 0
    """Stored bytes of these chunks and files."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def damaged(self) -> list[Finding]:
        """Findings of results that are lost and must be made again."""
        return [finding for finding in self.findings if finding.kind in ("corrupt", "absent")]

    def add(self, kind: FindingKind, where: str, message: str, frames: Iterable[int] = ()) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, where, tuple(sorted(frames)), message))


Expected = Mapping[tuple[str, str], Declared]
"""Declarations of what an output's folder has to contain, by stage and key."""


def verify_unit(unit: Unit, expected: Expected) -> UnitReport:
    """Read every chunk, file and record of a unit, a few frames at a time; change nothing.

    It is best run while nothing writes into the unit: data that is being written may be reported as an
    orphan, partial or absent.

    Args:
        unit: the unit.
        expected: what the stages write. Of other outputs, the existing data is checked.
    """
    report = UnitReport(unit.path)
    for output in unit.outputs():
        declared = expected.get((output.stage, output.key))
        _OutputCheck(output, report).run(declared)
    _check_tables(unit, report)
    for path, value in unit._files.get_each([f"{unit.path}/{name}.json" for name in ("label", "lease")]):
        if problem := _json_problem(value):
            report.add("unreadable", path.removeprefix(f"{unit.path}/"), problem)
    for name in unit._files.partials(0.0, unit.path):
        report.add("partial", name.removeprefix(f"{unit.path}/"), "half-written; its writer was killed")
    for entry in unit._files.irregular(unit.path):
        report.add("unreadable", entry.name, f"it is {entry.kind} and no regular file, so it is passed over")
    for name in unit.odd_names():
        report.add("unreadable", name, "it is no part of a store, so it is passed over")
    return report


class _OutputCheck:
    """The check of one output's folder."""

    def __init__(self, output: Output, report: UnitReport) -> None:
        self._output, self._report = output, report
        self._where = output.path.split("/", 2)[2]
        self._files = output._files

    def run(self, declared: Declared | None) -> None:
        """Check everything.

        Args:
            declared: what has to exist where something is done; None when that is unknown.
        """
        contents = self._output.contents()
        due = declared if declared is not None and contents.done else Declared()
        names = contents.described | set(contents.chunks) | contents.packed | set(due.arrays)
        for name in sorted(names):
            if name in due.whole:
                self._check_array(name, contents, set(), whole=True)
            elif declared is not None and name in declared.per_frame:
                self._check_array(name, contents, set(contents.done))
            else:
                self._check_array(name, contents, None)
        self._check_files(set(due.files))
        for name in sorted(set(due.notes) - contents.notes):
            self._add("absent", f"notes/{name}.json", "marked as done, but not there")
        self._check_notes(set(due.notes))
        marks = self._files.list(f"{self._output.path}/done")
        for name in sorted(set(marks) - marker_spans(marks).keys()):
            self._add("unreadable", f"done/{name}", "no marker has such a name")

    def _add(self, kind: FindingKind, where: str, message: str, frames: Iterable[int] = ()) -> None:
        self._report.add(kind, f"{self._where}/{where}", message, frames)

    def _check_array(self, name: str, contents: Contents, due: set[int] | None, whole: bool = False) -> None:
        """Check one array.

        Args:
            name: name of the array.
            contents: contents of the folder.
            due: committed frames; None when they are unknown.
            whole: whether the array is one chunk, which has to exist.
        """
        if not is_name(name):
            self._add("unreadable", name, "no array has such a name")
            return
        document = self._files.get_one(f"{self._output.path}/{name}/zarr.json", zarr_arrays.DOCUMENT_BYTES)
        problem = "is not there" if document is None else zarr_arrays.problem_of(document)
        if document is None or problem:
            kind: FindingKind = "absent" if document is None else "corrupt"
            if due or whole or document is not None:
                self._add(kind, name, f"its zarr.json {problem}, so nothing can be read", due or ())
            else:
                self._add("orphan", name, "chunks without a zarr.json")
            return
        present, bad = self._read_chunks(name, document, contents)
        if whole or zarr_arrays.read_info(document).rows > 1:
            if bad:
                self._add("corrupt", name, "the checksum does not fit")
            elif whole and not present:
                self._add("absent", name, "marked as done, but not there")
            return
        known = bad if due is None else due
        for kind, message, frames in (
            ("corrupt", "the checksum does not fit", bad & known),
            ("absent", "marked as done, but not there", set() if due is None else due - present),
            ("orphan", "written, but not marked as done", set() if due is None else present - due),
        ):
            if frames:
                self._add(kind, name, message, frames)

    def _read_chunks(self, name: str, document: bytes, contents: Contents) -> tuple[set[int], set[int]]:
        """Read the chunks of an array; return the numbers of the existing and of the corrupt ones."""
        array = zarr_arrays.read_info(document)
        plain = zarr_arrays.plain_document(document)
        stored = set(contents.chunks.get(name, ()))
        if array.packed:
            stored |= self._output._chunk_spans(name, array, range(array.chunks)).keys()
        listed = sorted(stored)
        present: set[int] = set()
        bad: set[int] = set()
        step = array.chunks_together
        for at in range(0, len(listed), step):
            numbers = [number for number in listed[at : at + step] if number < array.chunks]
            if not numbers:
                break
            for number, chunk in self._output._chunks(name, array, numbers).items():
                named = {zarr_arrays.chunk_name(array, number): chunk}
                rows = number * array.rows, min((number + 1) * array.rows, array.shape[0])
                if zarr_arrays.decode(plain, *rows, named)[1]:
                    bad.add(number)
                present.add(number)
                self._report.chunks += 1
                self._report.bytes += len(chunk)
        return present, bad

    def _check_files(self, due: set[str]) -> None:
        sound: set[str] = set()
        corrupt: dict[str, str] = {}
        problems: dict[str, str] = {}
        for stored in self._files.list(f"{self._output.path}/files"):
            name = file_name(stored)
            if name is None:
                self._add("unreadable", f"files/{stored}", "no file of this store has such a name")
                continue
            path = f"{self._output.path}/files/{stored}"
            if (found := self._files.digest(path)) is None:
                continue  # deleted since it was listed, or no regular file
            digest, size = found
            self._report.files += 1
            self._report.bytes += size
            problem = over_limit("object_bytes", size)
            if not problem and fits_digest(path, digest):
                sound.add(name)
            else:
                corrupt[stored] = name
                problems[stored] = problem or "its content does not fit its digest"
        for stored, name in corrupt.items():
            kind: FindingKind = "unreadable" if name in sound else "corrupt"
            self._add(kind, f"files/{stored}", problems[stored])
        for name in sorted(due - sound - set(corrupt.values())):
            self._add("absent", f"files/{name}", "marked as done, but not there")

    def _check_notes(self, due: set[str]) -> None:
        folder = f"{self._output.path}/notes"
        paths = [f"{folder}/{name}" for name in self._files.list(folder) if name.endswith(".json")]
        for path, value in self._files.get_each(sorted([*paths, f"{self._output.path}/zarr.json"])):
            if problem := _json_problem(value):
                where = path.removeprefix(f"{self._output.path}/")
                lost = where.removeprefix("notes/").removesuffix(".json") in due
                kind: FindingKind = "corrupt" if lost else "unreadable"
                self._add(kind, where, problem)


def _json_problem(document: bytes) -> str:
    """Return what is wrong with a record, in words that follow its name, else nothing."""
    if parse_json(document) is not None or document == b"null":
        return ""
    most = current_limits().record_bytes
    if len(document) > most:
        return f"it has more than the {most:,} bytes that limits.record_bytes allows, so it reads as absent"
    return "it is not JSON as a store has it, so it reads as absent"


def _check_tables(unit: Unit, report: UnitReport) -> None:
    for path, value in unit._read_tables():
        try:
            read_table(value)
        except InputError as error:
            message = f"its rows are left out of the table of failures ({error})"
            report.add("unreadable", path.removeprefix(f"{unit.path}/"), message)


def repair_unit(unit: Unit, report: UnitReport) -> list[str]:
    """Delete the markers of corrupt or absent results in a report, and the corrupt data itself.

    The next run makes them again. Orphans stay, because the next run overwrites them; so do unreadable
    records, which count as absent already and may be the only evidence. A stage's sound frames stay done, but
    a file, a note or an array of one object stands for all of its stage.

    Args:
        unit: the unit.
        report: report of :func:`verify_unit` on it.

    Returns:
        What was done, one line per action.
    """
    lines = []
    outputs = {output.path.split("/", 2)[2]: output for output in unit.outputs()}
    for finding in report.damaged:
        folder, _, name = finding.where.partition("/")
        output = outputs[folder]
        marked = output.marked()
        frames = [frame for frame in finding.frames if frame in set(marked)] if finding.frames else marked
        if frames:
            output.uncommit(frames)
            lines.append(f"{report.unit}: {output.stage} is no longer done for {len(frames)} frames")
        if finding.kind == "corrupt":
            lines.append(f"{report.unit}: {_delete(output, name, finding.frames)}")
    return lines


def _delete(output: Output, name: str, frames: tuple[int, ...]) -> str:
    files, path = output._files, f"{output.path}/{name}"
    if name == "zarr.json" or name.startswith(("files/", "notes/")):
        files.delete([path])
        return f"{name} deleted"
    document = files.get_one(f"{path}/zarr.json")
    if document is None or zarr_arrays.problem_of(document):
        files.delete([f"{path}/zarr.json"])
        return f"{name}/zarr.json deleted"
    array = zarr_arrays.read_info(document)
    if array.packed:
        output.unpack(name, without=frames)
    else:
        numbers = frames if array.rows == 1 else range(array.chunks)
        files.delete(f"{path}/{zarr_arrays.chunk_name(array, number)}" for number in numbers)
    return f"{max(1, len(frames))} chunks of {name} deleted"
