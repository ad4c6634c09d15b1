"""How the rows of a manifest are dealt to machines."""

from __future__ import annotations

import numpy as np
import pytest

from portrait_core.errors import InputError
from portrait_core.manifest import Row
from portrait_core.sharding import shard


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
