"""Verification finds every kind of damage and changes nothing; repair makes the next run make it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portrait_core.store import Declared, Failure, Output, Store, Unit, repair_unit, verify_unit

KEY, OTHER, TOTAL = "00aa", "11bb", 20
DECLARED = {
    "track": Declared(("frames",), whole=("model",)),
    "invert": Declared(("latents",), notes=("cost",)),
    "encode": Declared(files=("clip.mp4", "sheet.png"), notes=("motion",)),
}
EXPECTED = {(stage, KEY): declared for stage, declared in DECLARED.items()}
SHAPES = {"frames": ((TOTAL, 8, 8, 3), "uint8"), "latents": ((TOTAL, 14), "float32")}
FILES = {"clip.mp4": b"clip" * 100, "sheet.png": b"sheet" * 10}
CLIP = "clip.0d07bb7d70b1c20fcad730d12c38484a.mp4"


def _total(stage: str) -> int:
    return 1 if stage == "encode" else TOTAL


def _fill(output: Output, frames: list[int]) -> None:
    """What a run does for a stage."""
    declared = DECLARED[output.stage]
    for name in declared.per_frame:
        shape, dtype = SHAPES[name]
        values = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
        output.ensure_array(name, shape, dtype)
        for frame in frames:
            output.write(name, frame, values[frame : frame + 1])
    if frames:
        output.write_whole({name: np.arange(30.0).reshape(10, 3) for name in declared.whole})
        for name in declared.files:
            output.put_bytes(name, FILES[name])
        for name in declared.notes:
            output.write_note(name, {"a": 1})
    output.commit(frames)


def _filled(unit: Unit, packed: bool = False) -> Unit:
    for stage in DECLARED:
        output = unit.output(stage, KEY)
        _fill(output, list(range(_total(stage))))
        output.write_note("empty", None)
        output.describe({"steps": 1})
        if packed:
            output.pack(DECLARED[stage])
    unit.write_label("clip")
    unit.record_failures([Failure("track", 1, "input", "no face", key=KEY)])
    return unit


def _digest(unit: Unit) -> list[str]:
    return [
        unit.output(stage, KEY).digest(declared.arrays, declared.files)
        for stage, declared in DECLARED.items()
    ]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "video" / "a"


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return _filled(Store(tmp_path).unit("video", "a"))


def _flip(*paths: Path) -> None:
    for path in paths:
        value = bytearray(path.read_bytes())
        value[len(value) // 2] ^= 16
        path.write_bytes(value)


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_sound_unit(tmp_path: Path, scheme: str, packed: bool) -> None:
    unit = _filled(Store(f"{scheme}://{tmp_path}").unit("video", "a"), packed)
    report = verify_unit(unit, EXPECTED)
    assert report.findings == []
    assert (report.unit, report.chunks, report.files) == ("video/a", 2 * TOTAL + 1, 2)
    stored = unit._files.sizes(unit.path)
    if not packed:
        chunks = sum(size for path, size in stored.items() if "/c." in path or "/files/" in path)
        assert report.bytes == chunks
    assert verify_unit(unit, {}).findings == []
    empty = Store(f"{scheme}://{tmp_path}").unit("video", "none")
    assert verify_unit(empty, EXPECTED).findings == []


Damage = Callable[[Path], object]
EVERY = (*range(TOTAL),)
DAMAGES: dict[str, tuple[Damage, str, str, tuple[int, ...]]] = {
    "flipped frame": (
        lambda b: _flip(b / "track.00aa/frames/c.3.0.0.0"),
        "corrupt",
        "track.00aa/frames",
        (3,),
    ),
    "flipped latents": (
        lambda b: _flip(b / "invert.00aa/latents/c.2.0", b / "invert.00aa/latents/c.17.0"),
        "corrupt",
        "invert.00aa/latents",
        (2, 17),
    ),
    "cut frame": (lambda b: _cut(b / "track.00aa/frames/c.19.0.0.0"), "corrupt", "track.00aa/frames", (19,)),
    "empty latents": (
        lambda b: (b / "invert.00aa/latents/c.0.0").write_bytes(b""),
        "corrupt",
        "invert.00aa/latents",
        (0,),
    ),
    "lost frames": (
        lambda b: _remove(*(b / f"track.00aa/frames/c.{frame}.0.0.0" for frame in (5, 6, 16))),
        "absent",
        "track.00aa/frames",
        (5, 6, 16),
    ),
    "lost array": (
        lambda b: _remove(*(b / "invert.00aa/latents").iterdir()),
        "absent",
        "invert.00aa/latents",
        EVERY,
    ),
    "lost document": (
        lambda b: (b / "invert.00aa/latents/zarr.json").unlink(),
        "absent",
        "invert.00aa/latents",
        EVERY,
    ),
    "cut document": (
        lambda b: _cut(b / "invert.00aa/latents/zarr.json"),
        "corrupt",
        "invert.00aa/latents",
        EVERY,
    ),
    "flipped whole": (lambda b: _flip(b / "track.00aa/model/c.0.0"), "corrupt", "track.00aa/model", ()),
    "lost whole": (lambda b: (b / "track.00aa/model/c.0.0").unlink(), "absent", "track.00aa/model", ()),
    "lost whole document": (
        lambda b: (b / "track.00aa/model/zarr.json").unlink(),
        "absent",
        "track.00aa/model",
        (),
    ),
    "cut whole document": (
        lambda b: _cut(b / "track.00aa/model/zarr.json"),
        "corrupt",
        "track.00aa/model",
        (),
    ),
    "flipped file": (
        lambda b: _flip(b / f"encode.00aa/files/{CLIP}"),
        "corrupt",
        f"encode.00aa/files/{CLIP}",
        (),
    ),
    "cut file": (lambda b: _cut(b / f"encode.00aa/files/{CLIP}"), "corrupt", f"encode.00aa/files/{CLIP}", ()),
    "lost file": (
        lambda b: (b / f"encode.00aa/files/{CLIP}").unlink(),
        "absent",
        "encode.00aa/files/clip.mp4",
        (),
    ),
    "renamed file": (
        lambda b: (b / f"encode.00aa/files/{CLIP}").rename(b / f"encode.00aa/files/clip.{'0' * 32}.mp4"),
        "corrupt",
        f"encode.00aa/files/clip.{'0' * 32}.mp4",
        (),
    ),
    "cut note": (
        lambda b: _cut(b / "encode.00aa/notes/motion.json"),
        "corrupt",
        "encode.00aa/notes/motion.json",
        (),
    ),
    "lost note": (
        lambda b: (b / "invert.00aa/notes/cost.json").unlink(),
        "absent",
        "invert.00aa/notes/cost.json",
        (),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_made_again(tmp_path: Path, base: Path, unit: Unit, damage: str) -> None:
    sound = _digest(unit)
    harm, kind, where, frames = DAMAGES[damage]
    harm(base)
    before = _snapshot(tmp_path)
    report = verify_unit(unit, EXPECTED)
    assert _snapshot(tmp_path) == before
    assert [(found.kind, found.where, found.frames) for found in report.damaged] == [(kind, where, frames)]

    said = repair_unit(unit, report)
    assert said
    assert verify_unit(unit, EXPECTED).damaged == []
    for stage, declared in DECLARED.items():
        output, total = unit.output(stage, KEY), _total(stage)
        missing = np.flatnonzero(~output.done(total, declared)).tolist()
        lost = list(frames) or list(range(total))
        assert missing == (lost if where.startswith(f"{stage}.") else [])
        assert sorted(set(range(total)) - set(output.marked())) == missing  # the markers say so, too
        _fill(output, missing)  # the next run
    assert verify_unit(unit, EXPECTED).findings == []
    assert _digest(unit) == sound


def test_what_killed_writers_leave_is_named_and_harmless(base: Path, unit: Unit) -> None:
    unit.output("invert", KEY).uncommit([4, 5])  # killed between writing and committing
    (base / "track.00aa/frames/c.7.0.0.0.123-ab.partial").write_bytes(b"half")
    (base / "encode.00aa/notes/motion.json.123-ab.partial").write_bytes(b"half")
    report = verify_unit(unit, EXPECTED)
    assert [(found.kind, found.where, found.frames) for found in report.findings] == [
        ("orphan", "invert.00aa/latents", (4, 5)),
        ("partial", "encode.00aa/notes/motion.json.123-ab.partial", ()),
        ("partial", "track.00aa/frames/c.7.0.0.0.123-ab.partial", ()),
    ]
    before = _snapshot(base)
    assert report.damaged == []
    assert repair_unit(unit, report) == []
    assert _snapshot(base) == before


def test_a_stage_that_nothing_marks_as_done_lacks_nothing(base: Path, unit: Unit) -> None:
    for stage in DECLARED:
        unit.output(stage, KEY).uncommit()
    for path in ("encode.00aa/files/" + CLIP, "invert.00aa/notes/cost.json", "track.00aa/model/zarr.json"):
        (base / path).unlink()
    report = verify_unit(unit, EXPECTED)
    assert report.damaged == []
    assert [(found.kind, found.where) for found in report.findings] == [
        ("orphan", "invert.00aa/latents"),
        ("orphan", "track.00aa/frames"),
        ("orphan", "track.00aa/model"),
    ]


def test_unreadable_records_are_named(base: Path, unit: Unit) -> None:
    names = [
        "encode.00aa/done/00000003.00aa",
        "encode.00aa/done/note.txt",
        "encode.00aa/files/x.mp4",
        "encode.00aa/notes/bad.json",
        "encode.00aa/zarr.json",
        "failures/torn.parquet",
        "label.json",
        "lease.json",
    ]
    for name in names:
        (base / name).write_bytes(b'{"torn":')
    found = verify_unit(unit, EXPECTED).findings
    assert sorted(each.where for each in found) == names
    assert {each.kind for each in found} == {"unreadable"}


def test_a_damaged_version_of_a_file_beside_a_sound_one_costs_nothing(base: Path, unit: Unit) -> None:
    (base / f"encode.00aa/files/clip.{'0' * 32}.mp4").write_bytes(b"torn")
    report = verify_unit(unit, EXPECTED)
    assert [(found.kind, found.where) for found in report.findings] == [
        ("unreadable", f"encode.00aa/files/clip.{'0' * 32}.mp4")
    ]
    assert repair_unit(unit, report) == []
    assert unit.output("encode", KEY).get_bytes("clip.mp4") == FILES["clip.mp4"]


def test_each_key_is_checked_by_itself(base: Path, unit: Unit) -> None:
    other = unit.output("invert", OTHER)
    _fill(other, [1, 2])
    (base / "invert.11bb/latents/c.2.0").unlink()
    _flip(base / "invert.00aa/latents/c.1.0")
    report = verify_unit(unit, {**EXPECTED, ("invert", OTHER): DECLARED["invert"]})
    assert [(found.kind, found.where, found.frames) for found in report.damaged] == [
        ("corrupt", "invert.00aa/latents", (1,)),
        ("absent", "invert.11bb/latents", (2,)),
    ]
    repair_unit(unit, report)
    assert unit.output("invert", OTHER).marked() == [1]
    assert unit.output("invert", KEY).marked() == [frame for frame in range(TOTAL) if frame != 1]


def test_outputs_that_are_not_mentioned_are_checked_for_what_is_there(base: Path, unit: Unit) -> None:
    (base / "invert.00aa/latents/c.2.0").unlink()
    _flip(base / "invert.00aa/latents/c.3.0")
    _flip(base / "track.00aa/model/c.0.0")
    report = verify_unit(unit, {})
    assert [(found.kind, found.where, found.frames) for found in report.findings] == [
        ("corrupt", "invert.00aa/latents", (3,)),
        ("corrupt", "track.00aa/model", ()),
    ]
    repair_unit(unit, report)
    assert verify_unit(unit, {}).findings == []
    assert unit.output("track", KEY).marked() == []


def test_a_whole_array_of_one_row_stands_for_its_stage(tmp_path: Path) -> None:
    unit = Store(tmp_path).unit("video", "a")
    output = unit.output("fit", KEY)
    output.write_whole({"shape": np.ones((1, 5))})
    output.commit(range(3))
    _flip(tmp_path / "video/a/fit.00aa/shape/c.0.0")
    report = verify_unit(unit, {("fit", KEY): Declared(whole=("shape",))})
    assert [(found.kind, found.frames) for found in report.damaged] == [("corrupt", ())]
    repair_unit(unit, report)
    assert output.marked() == []
