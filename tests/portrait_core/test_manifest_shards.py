"""How the rows of a manifest are dealt to machines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from portrait_core.dataset.manifest import Row, check_manifest, read_manifest
from portrait_core.dataset.sharding import deal, shard, write_shards
from portrait_core.errors import InputError
from portrait_core.inputs.table import NUMBER, write_table


def rows_of(*videos: tuple[str, int, int | None]) -> list[Row]:
    """So many rows of each video, with its frames."""
    drawn = [(name, frames) for name, count, frames in videos for _ in range(count)]
    return [
        Row(number=i + 2, portrait=f"p{i}", video=name, name=f"n{i}", profile="embedded", frames=frames)
        for i, (name, frames) in enumerate(drawn)
    ]


def dealt(rows: list[Row], count: int) -> list[tuple[Row, ...]]:
    """All shards; each row is in one of them, in its order."""
    shards = [shard(rows, i, count) for i in range(count)]
    assert sorted(row.number for part in shards for row in part) == [row.number for row in rows]
    assert all(list(part) == sorted(part, key=lambda row: row.number) for part in shards)
    return shards


def test_shards_are_equal_by_rows_when_frames_are_not_known() -> None:
    rows = rows_of(*((f"v{i}", 1, None) for i in range(10)))
    assert [len(part) for part in dealt(rows, 4)] == [3, 3, 2, 2]
    rows[0] = rows[0].model_copy(update={"frames": 1000})
    assert [len(part) for part in dealt(rows, 4)] == [3, 3, 2, 2]


def test_shards_are_equal_by_frames() -> None:
    random = np.random.default_rng(0)
    rows = rows_of(*((f"v{i}", 1, int(random.lognormal(5, 1)) + 1) for i in range(300)))
    loads = [sum(row.frames or 0 for row in part) for part in dealt(rows, 7)]
    assert max(loads) < 1.02 * min(loads)
    assert dealt(rows, 7) == dealt(rows, 7)


def test_rows_of_a_video_stay_together_where_that_balances() -> None:
    rows = rows_of(*((f"v{i}", 5, 100 + i % 7) for i in range(40)))
    shards = dealt(rows, 4)
    assert sum(len({row.video for row in part}) for part in shards) == 40
    loads = [sum(row.frames or 0 for row in part) for part in shards]
    assert max(loads) <= 1.1 * sum(loads) / 4


def test_a_video_that_most_rows_share_is_cut_as_little_as_balance_needs() -> None:
    rows = rows_of(("often", 900, 10), *((f"v{i}", 10, 10) for i in range(10)))
    shards = dealt(rows, 4)
    loads = [len(part) for part in shards]
    assert max(loads) <= 1.1 * 250
    assert sum(len({row.video for row in part}) for part in shards) <= 4 + 10 + 2
    alone = dealt(rows_of(("only", 30, None)), 7)
    assert max(map(len, alone)) == 5


def test_more_shards_than_rows_and_shards_that_do_not_exist() -> None:
    rows = rows_of(("v", 2, 5))
    assert [len(part) for part in dealt(rows, 4)] == [1, 1, 0, 0]
    assert dealt(rows, 1) == [tuple(rows)]
    assert dealt([], 2) == [(), ()]
    for index, count in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(InputError, match=f"no shard {index} of {count}"):
            shard(rows, index, count)


# Manifests of shards


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A manifest of eight rows with cells that a careless writer of CSV would break, after an empty row."""
    for name in ("face one.png", "zwei;ü.png", *(f"v{i}.mp4" for i in range(4))):
        (tmp_path / name).write_bytes(b"not opened here")
    rows = [
        {
            "portrait": "face one.png" if i % 2 else "zwei;ü.png",
            "video": f"v{i // 2}.mp4",
            "overrides": "tuning.steps=4; edit.strength=0.5" if i == 3 else "",
            "edit": "age=+20; beard=0.8" if i > 5 else "",
            "licence": 'CC0, "as is"\nor so',
            "consent": f"=form {i}",
            **({"profile": "fast"} if i == 2 else {}),
            **({"profile": "own.yaml"} if i == 4 else {}),
        }
        for i in range(8)
    ]
    (tmp_path / "own.yaml").write_text("extends: fast\n")
    write_table(str(tmp_path / "faces.csv"), rows)
    text = (tmp_path / "faces.csv").read_text()
    head, _, rest = text.partition("\n")
    (tmp_path / "faces.csv").write_text(f"{head}\n,,,,,,\n{rest}")
    return tmp_path / "faces.csv"


@pytest.mark.parametrize("profile", ["embedded", "fast"])
def test_manifests_of_shards_hold_the_rows_of_the_whole(table: Path, tmp_path: Path, profile: str) -> None:
    whole = read_manifest(str(table), profile)
    assert [row.number for row in whole.rows] == list(range(3, 11))
    written = write_shards(str(tmp_path / "store"), whole.rows, 3, profile)
    assert [one.label for one in written] == ["0000-of-0003", "0001-of-0003", "0002-of-0003"]
    assert [one.rows for one in written] == deal(whole.rows, 3)
    for one in written:
        assert Path(one.url).name == f"{one.label}.csv"
        assert read_manifest(one.url, profile).rows == one.rows, "numbers, names, places, overrides, consent"


def test_manifests_of_shards_are_named_by_what_they_hold(table: Path, tmp_path: Path) -> None:
    rows = read_manifest(str(table)).rows
    first = write_shards(str(tmp_path / "store"), rows, 3, "embedded")
    files = {path: path.read_bytes() for path in (tmp_path / "store").rglob("*.csv")}
    assert write_shards(str(tmp_path / "store"), rows, 3, "embedded") == first
    assert {path: path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()} == files
    other = write_shards(str(tmp_path / "store"), rows[:-1], 3, "embedded")
    assert not {one.url for one in first} & {one.url for one in other}
    assert {path: path.read_bytes() for path in files} == files, "a run of the first submit reads its own"
    assert len({one.digest for one in first}) == 3


def test_a_shard_without_rows_has_no_manifest(table: Path, tmp_path: Path) -> None:
    rows = [
        row.model_copy(update={"frames": 100 if i else 9000}) for i, row in enumerate(rows_of(("v", 3, 1)))
    ]
    rows[0] = rows[0].model_copy(update={"video": "w"})
    assert [len(part) for part in deal(rows, 3)] == [1, 2, 0]
    assert [one.label for one in write_shards(str(tmp_path), rows, 3, "embedded")] == [
        "0000-of-0002", "0001-of-0002"
    ]  # fmt: skip


def test_a_shard_is_refused_with_the_number_of_the_manifest_that_it_came_from(
    table: Path, tmp_path: Path
) -> None:
    rows = read_manifest(str(table)).rows
    (tmp_path / "v3.mp4").unlink()
    shards = write_shards(str(tmp_path / "store"), rows, 2, "embedded")
    problems = [problem for one in shards for problem in check_manifest(one.url)[1]]
    assert {problem.row for problem in problems} == {9, 10}


@pytest.mark.parametrize("cell", ["one", "1", "-3", "²", "5"])
def test_numbers_of_rows_must_be_numbers_of_their_own(table: Path, cell: str) -> None:
    lines = [f"portrait,video,{NUMBER}", "face one.png,v0.mp4,5", f"face one.png,v1.mp4,{cell}"]
    table.write_text("\n".join([*lines, "face one.png,v2.mp4,"]))
    found, problems = check_manifest(str(table), require_consent=False)
    assert [row.number for row in found.rows] == [5, 4]
    assert [(problem.row, f"holds {cell!r}" in problem.text) for problem in problems] == [(3, True)]
