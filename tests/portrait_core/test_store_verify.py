"""Verification finds every kind of damage and changes nothing; repair makes the next run make it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portrait_core.store import Failure, Store, Unit, repair_unit, verify_unit

KEY, OTHER, TOTAL = "00aa", "11bb", 20
ARRAYS = {"track": ["frames"], "invert": ["latents"], "encode": ["files/clip.mp4"]}
SHAPES = {"frames": ((TOTAL, 8, 8, 3), "uint8"), "latents": ((TOTAL, 14), "float32")}


def _fill(unit: Unit, stage: str, frames: list[int], key: str = KEY) -> None:
    """What a run does for a stage."""
    (name,) = ARRAYS[stage]
    if name.startswith("files/"):
        unit.put_bytes("clip.mp4", b"clip" * 100)
        unit.commit(stage, [0], key)
        return
    shape, dtype = SHAPES[name]
    values = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    unit.ensure_array(name, shape, dtype, key)
    with unit.overwriting(stage, frames, key):
        for frame in frames:
            unit.write(name, frame, values[frame : frame + 1])


def _filled(unit: Unit) -> Unit:
    for stage in ARRAYS:
        _fill(unit, stage, list(range(TOTAL)))
    unit.write_meta("info", None)
    unit.write_recipe("track", KEY, {"steps": 1})
    unit.record_failures([Failure("track", 1, "input", "no face", key=KEY)])
    return unit


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "video" / "a"


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return _filled(Store(tmp_path).unit("video", "a"))


def _flip(path: Path) -> None:
    value = bytearray(path.read_bytes())
    value[len(value) // 2] ^= 16
    path.write_bytes(value)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def _snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_a_sound_unit(tmp_path: Path, scheme: str) -> None:
    unit = _filled(Store(f"{scheme}://{tmp_path}").unit("video", "a"))
    report = verify_unit(unit, ARRAYS, {stage: KEY for stage in ARRAYS})
    assert report.findings == []
    assert (report.unit, report.chunks, report.files) == ("video/a", 2 * TOTAL, 1)
    sizes = unit.sizes()
    documents = sum(len(unit._documents[name]) for name in SHAPES)
    assert report.bytes == sizes["frames"] + sizes["latents"] + sizes["files/clip.mp4"] - documents
    assert verify_unit(unit, {}).findings == []
    empty = Store(f"{scheme}://{tmp_path}").unit("video", "none")
    assert verify_unit(empty, ARRAYS).findings == []


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[Damage, str, str, tuple[int, ...]]] = {
    "flipped frame": (lambda b: _flip(b / "frames" / "c.3.0.0.0"), "corrupt", "frames", (3,)),
    "flipped latents": (
        lambda b: (_flip(b / "latents" / "c.2.0"), _flip(b / "latents" / "c.17.0")),
        "corrupt",
        "latents",
        (2, 17),
    ),
    "cut frame": (lambda b: _cut(b / "frames" / "c.19.0.0.0"), "corrupt", "frames", (19,)),
    "empty latents": (lambda b: (b / "latents" / "c.0.0").write_bytes(b""), "corrupt", "latents", (0,)),
    "lost frames": (
        lambda b: [(b / "frames" / f"c.{frame}.0.0.0").unlink() for frame in (5, 6, 16)],
        "absent",
        "frames",
        (5, 6, 16),
    ),
    "lost array": (
        lambda b: [p.unlink() for p in (b / "latents").iterdir()],
        "absent",
        "latents",
        (*range(TOTAL),),
    ),
    "lost document": (
        lambda b: (b / "latents" / "zarr.json").unlink(),
        "absent",
        "latents",
        (*range(TOTAL),),
    ),
    "cut document": (lambda b: _cut(b / "latents" / "zarr.json"), "corrupt", "latents", (*range(TOTAL),)),
    "flipped file": (lambda b: _flip(b / "files" / "clip.mp4"), "corrupt", "files/clip.mp4", ()),
    "cut file": (lambda b: _cut(b / "files" / "clip.mp4"), "corrupt", "files/clip.mp4", ()),
    "lost file": (lambda b: (b / "files" / "clip.mp4").unlink(), "absent", "files/clip.mp4", ()),
    "lost digest": (
        lambda b: (b / "records" / "digests" / "clip.mp4.json").unlink(),
        "corrupt",
        "files/clip.mp4",
        (),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_made_again(tmp_path: Path, base: Path, unit: Unit, damage: str) -> None:
    sound = unit.digest(SHAPES, ["clip.mp4"])
    harm, kind, where, frames = DAMAGES[damage]
    harm(base)
    before = _snapshot(tmp_path)
    unit = Store(tmp_path).unit("video", "a")
    report = verify_unit(unit, ARRAYS)
    assert _snapshot(tmp_path) == before
    assert [(found.kind, found.where, found.frames) for found in report.damaged] == [(kind, where, frames)]

    said = repair_unit(unit, report, ARRAYS)
    assert said
    assert verify_unit(unit, ARRAYS).damaged == []
    (stage,) = (stage for stage, names in ARRAYS.items() if where in names)
    for other in ARRAYS:
        total = 1 if other == "encode" else TOTAL
        missing = np.flatnonzero(~unit.done(other, KEY, total)).tolist()
        assert missing == ([] if other != stage else list(frames) or [0])
        _fill(unit, other, missing)  # the next run
    assert verify_unit(unit, ARRAYS).findings == []
    assert unit.digest(SHAPES, ["clip.mp4"]) == sound


def test_what_killed_writers_leave_is_named_and_harmless(base: Path, unit: Unit) -> None:
    unit.uncommit("invert", [4, 5])  # killed between writing and committing, or while overwriting
    (base / "frames" / "c.7.0.0.0.123-ab.partial").write_bytes(b"half")
    (base / "records" / "meta" / "info.json.123-ab.partial").write_bytes(b"half")
    report = verify_unit(unit, ARRAYS)
    assert [(found.kind, found.where, found.frames) for found in report.findings] == [
        ("orphan", "latents", (4, 5)),
        ("partial", "frames/c.7.0.0.0.123-ab.partial", ()),
        ("partial", "records/meta/info.json.123-ab.partial", ()),
    ]
    before = _snapshot(base)
    assert report.damaged == repair_unit(unit, report, ARRAYS) == []
    assert _snapshot(base) == before


def test_unreadable_records_are_named(base: Path, unit: Unit) -> None:
    names = [
        "records/commits/track/00000003",
        "records/commits/track/note.txt",
        "records/digests/x.json",
        "records/failures/torn.parquet",
        "records/lease.json",
        "records/meta/bad.json",
        "records/recipes/track.00aa.json",
    ]
    for name in names:
        (base / name).write_bytes(b'{"torn":')
    found = verify_unit(unit, ARRAYS).findings
    assert sorted(each.where for each in found if each.kind == "unreadable") == names
    assert [each.where for each in found if each.kind != "unreadable"] == ["files/x"]  # its digest, no file


def test_other_keys_count_only_when_no_key_is_named(base: Path, unit: Unit) -> None:
    _fill(unit, "invert", [1, 2], OTHER)
    (base / "latents" / "c.2.0").unlink()
    assert [found.frames for found in verify_unit(unit, ARRAYS).damaged] == [(2,)]
    report = verify_unit(unit, ARRAYS, {"invert": KEY})
    assert [(found.kind, found.frames) for found in report.findings] == [("orphan", (1,))]


def test_arrays_of_unknown_stages_are_checked_for_what_is_there(base: Path, unit: Unit) -> None:
    (base / "latents" / "c.2.0").unlink()
    _flip(base / "latents" / "c.3.0")
    report = verify_unit(unit, {})
    assert [(found.kind, found.frames) for found in report.findings] == [("corrupt", (3,))]
    repair_unit(unit, report, {})
    assert verify_unit(unit, {}).findings == []
