"""Going through all that a unit holds: what is damaged, what is left over, and making it whole again.

Runs notice damage when they read it. This finds it beforehand, in what no run reads any more too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from portrait_core.store import arrays as zarr_arrays
from portrait_core.store.failures import read_table
from portrait_core.store.keys import is_name
from portrait_core.store.records import digests_of, parsed
from portrait_core.store.unit import RANGE, Unit, is_marker

FindingKind = Literal["corrupt", "absent", "orphan", "partial", "unreadable"]
_FILES = "files/"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: FindingKind
    """``corrupt``, ``absent``: a result is lost and must be made again. ``orphan``: frames that no marker
    covers, left by killed writers, harmless. ``partial``: a half-written file, for :meth:`Store.sweep`.
    ``unreadable``: a record that reads as absent."""
    where: str
    """An array, ``files/<name>``, or a path inside the unit."""
    frames: tuple[int, ...]
    """The frames concerned, ascending; none for what is no array."""
    message: str


@dataclass
class UnitReport:
    """What :func:`verify_unit` has gone through and found."""

    unit: str
    chunks: int = 0
    """Frames of arrays that were read."""
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


def verify_unit(
    unit: Unit, arrays: Mapping[str, Sequence[str]], keys: Mapping[str, str] | None = None
) -> UnitReport:
    """Read every chunk, file and record of a unit, a few frames at a time; change nothing.

    Best while nothing writes into the unit: what is being written just now may be reported as an orphan,
    partial or absent.

    Args:
        unit: the unit.
        arrays: what each stage writes: names of arrays, and of files as ``files/<name>``. Of an array that is
            not mentioned, only what is there is checked.
        keys: current keys by stage. Of a stage that is mentioned, frames committed under other keys count as
            not committed.
    """
    report = UnitReport(f"{unit.kind}/{unit.name}")
    due = _due(unit, arrays, keys or {})
    stored = [name for name in unit._files.list(unit._base) if name not in ("zarr.json", "files", "records")]
    for name in sorted({*stored, *(name for name in due if not name.startswith(_FILES))}):
        _check_array(unit, name, due.get(name), report)
    _check_files(unit, {name.removeprefix(_FILES) for name in due if name.startswith(_FILES)}, report)
    _check_documents(unit, report)
    _check_failures(unit, report)
    _check_markers(unit, report)
    for name in unit._files.partials(0.0, unit._base):
        report.add("partial", name.removeprefix(f"{unit._base}/"), "half-written; its writer was killed")
    return report


def _due(unit: Unit, arrays: Mapping[str, Sequence[str]], keys: Mapping[str, str]) -> dict[str, set[int]]:
    """Committed frames by what they were written into; nothing is due of a file whose stage has none."""
    due: dict[str, set[int]] = {}
    for stage, names in arrays.items():
        frames = {frame for frame, key in unit.markers(stage) if key == keys.get(stage, key)}
        for name in names:
            if frames or not name.startswith(_FILES):
                due.setdefault(name, set()).update(frames)
    return due


def _check_array(unit: Unit, name: str, due: set[int] | None, report: UnitReport) -> None:
    """Check one array; ``due`` are its committed frames, None when its stages are not known."""
    stored = set(unit.stored_frames(name)) if is_name(name) else set()
    document = unit._files.get_one(f"{unit._base}/{name}/zarr.json")
    if document is None:
        present, bad = set[int](), set[int]()
    elif not zarr_arrays.is_readable(document):
        report.add("corrupt", name, "its zarr.json is damaged, so no frame can be read", due or ())
        return
    else:
        present, bad = _read_chunks(unit, name, document, stored, report)
    if due is None:
        corrupt, absent, orphans = bad, set[int](), set[int]()
    else:
        corrupt, absent, orphans = bad & due, due - present, stored - due
    if corrupt:
        report.add("corrupt", name, "the checksum does not fit", corrupt)
    if absent:
        report.add("absent", name, "committed, but not there", absent)
    if orphans:
        report.add("orphan", name, "written, but not committed", orphans)


def _read_chunks(
    unit: Unit, name: str, document: bytes, stored: set[int], report: UnitReport
) -> tuple[set[int], set[int]]:
    """Read the chunks of an array's stored frames; give the frames that are there, and those that are bad."""
    array = zarr_arrays.info(document)
    present: set[int] = set()
    bad: set[int] = set()
    for start in range(0, array.shape[0], RANGE):
        stop = min(start + RANGE, array.shape[0])
        paths = {
            f"{unit._base}/{name}/{zarr_arrays.chunk_name(array, frame)}": frame
            for frame in range(start, stop)
            if frame in stored
        }
        found = unit._files.get(paths)
        chunks = {path.rsplit("/", 1)[-1]: value for path, value in found.items()}
        frames = {paths[path] for path in found}
        if frames:
            bad |= frames & set(zarr_arrays.decode(document, start, stop, chunks)[1])
        present |= frames
        report.chunks += len(found)
        report.bytes += sum(map(len, found.values()))
    return present, bad


def _check_files(unit: Unit, due: set[str], report: UnitReport) -> None:
    folder = f"{unit._base}/records/digests"
    stored = set(unit._files.list(f"{unit._base}/files"))
    described = {name.removesuffix(".json") for name in unit._files.list(folder)}
    for name in sorted(stored | described | due):
        value = unit._files.get_one(f"{unit._base}/{_FILES}{name}")
        if value is None:
            report.add("absent", _FILES + name, "recorded, but not there")
            continue
        report.files += 1
        report.bytes += len(value)
        digests = digests_of(parsed(unit._files.get_one(f"{folder}/{name}.json")))
        if not digests:
            report.add("corrupt", _FILES + name, "it has no digest, so it counts as missing")
        elif hashlib.sha256(value).hexdigest() not in digests:
            report.add("corrupt", _FILES + name, "the digest does not fit")


def _check_documents(unit: Unit, report: UnitReport) -> None:
    names = ["zarr.json", "records/lease.json"]
    for folder in ("records/meta", "records/digests", "records/recipes"):
        names += [f"{folder}/{name}" for name in unit._files.list(f"{unit._base}/{folder}")]
    _check_readable(unit, names, json.loads, "it is not JSON, so it reads as absent", report)


def _check_failures(unit: Unit, report: UnitReport) -> None:
    folder = "records/failures"
    names = [f"{folder}/{name}" for name in unit._files.list(f"{unit._base}/{folder}")]
    _check_readable(unit, names, read_table, "its rows are left out of the table of failures", report)


def _check_readable(
    unit: Unit, names: Iterable[str], read: Callable[[bytes], object], message: str, report: UnitReport
) -> None:
    found = unit._files.get(f"{unit._base}/{name}" for name in names)
    for path, value in sorted(found.items()):
        try:
            read(value)
        except Exception as error:  # readers raise whatever the broken bytes provoke
            report.add("unreadable", path.removeprefix(f"{unit._base}/"), f"{message} ({error})")


def _check_markers(unit: Unit, report: UnitReport) -> None:
    commits = "records/commits"
    for stage in unit._files.list(f"{unit._base}/{commits}"):
        for marker in unit._files.list(f"{unit._base}/{commits}/{stage}"):
            if not (is_name(stage) and is_marker(marker)):
                report.add("unreadable", f"{commits}/{stage}/{marker}", "no marker has such a name")


def repair_unit(unit: Unit, report: UnitReport, arrays: Mapping[str, Sequence[str]]) -> list[str]:
    """Uncommit what a report says is corrupt or absent, delete what is corrupt: the next run makes it again.

    Orphans stay, as the next run overwrites them; so do unreadable records, which read as absent already and
    may be all there is to look at. A stage's sound frames stay done, but a file stands for all of its stage.

    Args:
        unit: the unit.
        report: what :func:`verify_unit` found in it.
        arrays: as :func:`verify_unit` takes it.

    Returns:
        What was done, a line each.
    """
    lines = []
    for found in report.damaged:
        for stage in (stage for stage, names in arrays.items() if found.where in names):
            is_file = found.where.startswith(_FILES)
            frames = [frame for frame, _ in unit.markers(stage)] if is_file else list(found.frames)
            unit.uncommit(stage, frames)
            lines.append(f"{report.unit}: {stage} is no longer done for {len(frames)} frames")
        lines += _delete(unit, found, report.unit)
    return lines


def _delete(unit: Unit, found: Finding, name: str) -> list[str]:
    if found.where.startswith(_FILES):
        unit.drop_file(found.where.removeprefix(_FILES))
        return [f"{name}: {found.where} and its digest deleted"]
    if found.kind == "absent":
        return []
    folder = f"{unit._base}/{found.where}"
    document = unit._files.get_one(f"{folder}/zarr.json")
    if document is None or not zarr_arrays.is_readable(document):
        unit._files.delete([f"{folder}/zarr.json"])
        return [f"{name}: {found.where}/zarr.json deleted"]
    array = zarr_arrays.info(document)
    unit._files.delete(f"{folder}/{zarr_arrays.chunk_name(array, frame)}" for frame in found.frames)
    return [f"{name}: {len(found.frames)} chunks of {found.where} and its digest deleted"]
