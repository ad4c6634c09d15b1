"""Dealing the rows of a manifest to machines."""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from portrait_core.errors import InputError
from portrait_core.manifest import Row

UNBALANCED = 0.1
"""A shard may have so much more than its share, to keep rows of one video together."""

Piece = tuple[int, list[Row]]
"""Rows that stay together, with their weight: frames, or rows."""


def shard(rows: Sequence[Row], index: int, count: int) -> tuple[Row, ...]:
    """The rows of one of ``count`` machines; every machine that has the same rows comes to the same deal.

    Shards are balanced by frames where every row's are known, else by rows. Rows of one video stay in one
    shard, so that it is tracked once, as far as the largest shard does not grow by over 10 % for it: videos
    are cut into ever smaller parts until it does not.

    Args:
        index: 0 to ``count - 1``.

    Raises:
        InputError: there is no such shard.
    """
    if not 0 <= index < count:
        raise InputError(f"there is no shard {index} of {count}; give 0 to {count - 1} of 1 or more")
    known = all(row.frames is not None for row in rows)
    weights = {row.number: max(row.frames or 0, 1) if known else 1 for row in rows}
    allowed = _heaviest(_deal([(weights[row.number], [row]) for row in rows], count)) * (1 + UNBALANCED)
    part = max(sum(weights.values()) / count * (1 + UNBALANCED), 1.0)
    dealt = _deal(_pieces(rows, weights, part), count)
    while _heaviest(dealt) > allowed:
        part /= 2
        dealt = _deal(_pieces(rows, weights, part), count)
    mine = {row.number for _, piece in dealt[index] for row in piece}
    return tuple(row for row in rows if row.number in mine)


def _pieces(rows: Sequence[Row], weights: Mapping[int, int], limit: float) -> list[Piece]:
    """Rows by video, with their weight; a video of more than ``limit`` is cut into even pieces."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.video].append(row)
    pieces: list[Piece] = []
    for group in groups.values():
        total = sum(weights[row.number] for row in group)
        cut: dict[int, list[Row]] = defaultdict(list)
        before = 0
        for row in group:
            cut[before * math.ceil(total / limit) // total].append(row)
            before += weights[row.number]
        pieces += [(sum(weights[row.number] for row in piece), piece) for piece in cut.values()]
    return pieces


def _deal(pieces: Iterable[Piece], count: int) -> list[list[Piece]]:
    """Deal pieces, the longest first, each to whom has the least: equal ones go round and round."""
    hands: list[list[Piece]] = [[] for _ in range(count)]
    least = [(0, 0, i) for i in range(count)]  # load, pieces, whose: a heap, for there may be 20,000 shards
    for piece in sorted(pieces, key=lambda piece: (-piece[0], piece[1][0].number)):
        load, _, i = least[0]
        hands[i].append(piece)
        heapq.heapreplace(least, (load + piece[0], len(hands[i]), i))
    return hands


def _heaviest(hands: Iterable[list[Piece]]) -> int:
    return max(sum(weight for weight, _ in hand) for hand in hands)
