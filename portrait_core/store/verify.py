"""Going through all that a unit holds: what is damaged, what is left over, and making it whole again.

Runs notice damage when they read it. This finds it beforehand, in what no run reads any more too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from portrait_core.store import arrays as zarr_arrays
from portrait_core.store.failures import read_table
from portrait_core.store.keys import is_name
from portrait_core.store.output import RANGE, Declared, Output, file_name, is_marker, is_sound_file
from portrait_core.store.unit import Unit

FindingKind = Literal["corrupt", "absent", "orphan", "partial", "unreadable"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: FindingKind
    """``corrupt``, ``absent``: a result is lost and must be made again. ``orphan``: frames that no marker
    covers, left by killed writers, harmless. ``partial``: a half-written file, for :meth:`Store.sweep`.
    ``unreadable``: a record that reads as absent."""
    where: str
    """Path inside the unit: ``<stage>.<key>/<array>``, ``<stage>.<key>/files/<name>`` ..."""
    frames: tuple[int, ...]
    """The frames concerned, ascending; none for what is no array of frames."""
    message: str


@dataclass
class UnitReport:
    """What :func:`verify_unit` has gone through and found."""

    unit: str
    chunks: int = 0
    """Chunks of arrays that were read."""
    files: int = 0
    bytes: int = 0
    """Stored bytes of these chunks and files."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def damaged(self) -> list[Finding]:
        """What is lost and must be made again."""
        return [found for found in self.findings if found.kind in ("corrupt", "absent")]

    def add(self, kind: FindingKind, where: str, message: str, frames: Iterable[int] = ()) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, where, tuple(sorted(frames)), message))


Expected = Mapping[tuple[str, str], Declared]
"""What has to be in an output's folder, by stage and key."""


def verify_unit(unit: Unit, expected: Expected) -> UnitReport:
    """Read every chunk, file and record of a unit, a few frames at a time; change nothing.

    Best while nothing writes into the unit: what is being written just now may be reported as an orphan,
    partial or absent.

    Args:
        unit: the unit.
        expected: what the stages write. Of outputs that are not mentioned, what is there is checked.
    """
    report = UnitReport(unit.path)
    for output in unit.outputs():
        declared = expected.get((output.stage, output.key))
        _OutputCheck(output, report).run(declared)
    names = [f"failures/{name}" for name in unit._files.list(f"{unit.path}/failures")]
    _check_readable(unit, names, read_table, "its rows are left out of the table of failures", report)
    _check_readable(
        unit, ["lease.json", "label.json"], json.loads, "it is not JSON, so it reads as absent", report
    )
    for name in unit._files.partials(0.0, unit.path):
        report.add("partial", name.removeprefix(f"{unit.path}/"), "half-written; its writer was killed")
    return report


class _OutputCheck:
    """The check of one output's folder."""

    def __init__(self, output: Output, report: UnitReport) -> None:
        self._output, self._report = output, report
        self._where = output.path.split("/", 2)[2]
        self._files = output._files

    def run(self, declared: Declared | None) -> None:
        """Check everything; ``declared`` is what has to be there where something is done, None when that is
        not known."""
        contents = self._output.contents()
        due = declared or Declared()
        if not contents.done:
            due = Declared()
        arrays = contents.described | set(contents.chunks) | contents.packed | set(due.arrays)
        for name in sorted(arrays):
            frames = set(contents.done) if name in due.per_frame else {0} if name in due.whole else None
            if declared is not None and not contents.done and name in declared.per_frame:
                frames = set()
            self._check_array(name, frames)
        self._check_files(set(due.files))
        for name in sorted(set(due.notes) - contents.notes):
            self._add("absent", f"notes/{name}", "marked as done, but not there")
        self._check_notes(set(due.notes))
        for name in self._files.list(f"{self._output.path}/done"):
            if not is_marker(name):
                self._add("unreadable", f"done/{name}", "no marker has such a name")

    def _add(self, kind: FindingKind, where: str, message: str, frames: Iterable[int] = ()) -> None:
        self._report.add(kind, f"{self._where}/{where}", message, frames)

    def _check_array(self, name: str, due: set[int] | None) -> None:
        """Check one array; ``due`` are its committed frames, None when they are not known."""
        if not is_name(name):
            self._add("unreadable", name, "no array has such a name")
            return
        document = self._files.get_one(f"{self._output.path}/{name}/zarr.json")
        if document is None or not zarr_arrays.is_readable(document):
            kind: FindingKind = "absent" if document is None else "corrupt"
            said = "is not there" if document is None else "is damaged"
            if due or document is not None:
                self._add(kind, name, f"its zarr.json {said}, so no frame can be read", due or ())
            elif due is None:
                self._add("orphan", name, "chunks without a zarr.json")
            return
        present, bad = self._read_chunks(name, document)
        if due is None:
            corrupt, absent, orphans = bad, set[int](), set[int]()
        else:
            corrupt, absent, orphans = bad & due, due - present, present - due
        if corrupt:
            self._add("corrupt", name, "the checksum does not fit", corrupt)
        if absent:
            self._add("absent", name, "marked as done, but not there", absent)
        if orphans:
            self._add("orphan", name, "written, but not marked as done", orphans)

    def _read_chunks(self, name: str, document: bytes) -> tuple[set[int], set[int]]:
        """Read the chunks of an array; give those that are there, and those that are bad."""
        array = zarr_arrays.info(document)
        self._output._documents[name] = document
        plain = zarr_arrays.plain_document(document)
        stored = self._stored(name, array)
        present: set[int] = set()
        bad: set[int] = set()
        for start in range(0, array.chunks, RANGE):
            numbers = [number for number in range(start, start + RANGE) if number in stored]
            for number, chunk in self._chunks(name, array, numbers).items():
                named = {zarr_arrays.chunk_name(array, number): chunk}
                rows = number * array.rows, min((number + 1) * array.rows, array.shape[0])
                if zarr_arrays.decode(plain, *rows, named)[1]:
                    bad.add(number)
                present.add(number)
                self._report.chunks += 1
                self._report.bytes += len(chunk)
        return present, bad

    def _stored(self, name: str, array: zarr_arrays.ArrayInfo) -> set[int]:
        if array.packed:
            return set(range(array.chunks))
        listed = self._files.list(f"{self._output.path}/{name}")
        numbers = {number for chunk in listed if (number := zarr_arrays.chunk_of(chunk)) is not None}
        return {number for number in numbers if number < array.chunks}

    def _chunks(self, name: str, array: zarr_arrays.ArrayInfo, numbers: list[int]) -> dict[int, bytes]:
        if not numbers:
            return {}
        if array.packed:
            return self._output._packed_chunks(name, array, range(numbers[0], numbers[-1] + 1))
        paths = {
            f"{self._output.path}/{name}/{zarr_arrays.chunk_name(array, number)}": number
            for number in numbers
        }
        return {paths[path]: value for path, value in self._files.get(paths).items()}

    def _check_files(self, due: set[str]) -> None:
        sound: set[str] = set()
        for stored in self._files.list(f"{self._output.path}/files"):
            path = f"{self._output.path}/files/{stored}"
            name, value = file_name(stored), self._files.get_one(path)
            if name is None or value is None:
                self._add("unreadable", f"files/{stored}", "no file of this store has such a name")
                continue
            self._report.files += 1
            self._report.bytes += len(value)
            if is_sound_file(path, value):
                sound.add(name)
            else:
                self._add("corrupt", f"files/{stored}", "its content does not fit its digest")
        for name in sorted(due - sound):
            self._add("absent", f"files/{name}", "marked as done, but not there")

    def _check_notes(self, due: set[str]) -> None:
        folder = f"{self._output.path}/notes"
        paths = [f"{folder}/{name}" for name in self._files.list(folder)]
        for path, value in sorted(self._files.get([*paths, f"{self._output.path}/zarr.json"]).items()):
            try:
                json.loads(value)
            except ValueError as error:
                where = path.removeprefix(f"{self._output.path}/")
                lost = where.removeprefix("notes/").removesuffix(".json") in due
                kind: FindingKind = "corrupt" if lost else "unreadable"
                self._add(kind, where, f"it is not JSON, so it reads as absent ({error})")


def _check_readable(
    unit: Unit, names: Iterable[str], read: Callable[[bytes], object], message: str, report: UnitReport
) -> None:
    found = unit._files.get(f"{unit.path}/{name}" for name in names)
    for path, value in sorted(found.items()):
        try:
            read(value)
        except Exception as error:  # readers raise whatever the broken bytes provoke
            report.add("unreadable", path.removeprefix(f"{unit.path}/"), f"{message} ({error})")


def repair_unit(unit: Unit, report: UnitReport) -> list[str]:
    """Take back the markers of what a report says is corrupt or absent, and delete what is corrupt: the next
    run makes it again.

    Orphans stay, as the next run overwrites them; so do unreadable records, which read as absent already and
    may be all there is to look at. A stage's sound frames stay done, but a file, a note and an array of one
    object stand for all of its stage.

    Args:
        unit: the unit.
        report: what :func:`verify_unit` found in it.

    Returns:
        What was done, a line each.
    """
    lines = []
    outputs = {output.path.split("/", 2)[2]: output for output in unit.outputs()}
    for found in report.damaged:
        folder, _, what = found.where.partition("/")
        output = outputs[folder]
        of_frames = bool(found.frames) and not what.startswith(("files/", "notes/"))
        info = output.array_info(what) if of_frames else None
        marked = output.marked()
        single = info is None or info.rows == 1
        frames = [frame for frame in found.frames if frame in marked] if of_frames and single else marked
        output.uncommit(frames)
        if frames:
            lines.append(f"{report.unit}: {output.stage} is no longer done for {len(frames)} frames")
        if found.kind == "corrupt":
            lines.append(f"{report.unit}: {_delete(output, what, found.frames)}")
    return lines


def _delete(output: Output, what: str, frames: tuple[int, ...]) -> str:
    files = output._files
    if what.startswith("files/") or what.startswith("notes/"):
        files.delete([f"{output.path}/{what}"])
        return f"{what} deleted"
    document = files.get_one(f"{output.path}/{what}/zarr.json")
    if document is None or not zarr_arrays.is_readable(document):
        files.delete([f"{output.path}/{what}/zarr.json"])
        return f"{what}/zarr.json deleted"
    array = zarr_arrays.info(document)
    if array.packed:
        output.unpack(what, without=frames)
    else:
        files.delete(f"{output.path}/{what}/{zarr_arrays.chunk_name(array, frame)}" for frame in frames)
    return f"{len(frames)} chunks of {what} deleted"
