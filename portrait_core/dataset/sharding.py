"""Dealing the rows of a manifest to machines."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from portrait_core.attribute_editing.edit_requests import parse_requests
from portrait_core.dataset.manifest import Row
from portrait_core.errors import InputError
from portrait_core.inputs.sources import in_threads
from portrait_core.inputs.table import NUMBER, write_table
from portrait_core.store.documents import canonical_json

UNBALANCED = 0.1
"""A shard may have so much more than its share, to keep rows of one video together."""
FOLDER = "manifests"
"""Folder of a store in which the manifests of shards lie."""

Piece = tuple[int, list[Row]]
"""Rows that stay together, with their weight: frames, or rows."""


@dataclass(frozen=True)
class ShardManifest:
    """A manifest of its own for one shard."""

    url: str
    """Where it lies."""
    label: str
    """Which shard of how many, ``0003-of-0032``, counted from 0."""
    digest: str
    """SHA-256 of its rows."""
    rows: tuple[Row, ...]


def shard(rows: Sequence[Row], index: int, count: int) -> tuple[Row, ...]:
    """Return the rows of one of ``count`` machines, as :func:`deal` deals them.

    Args:
        index: 0 to ``count - 1``.

    Raises:
        InputError: there is no such shard.
    """
    if not 0 <= index < count:
        raise InputError(f"there is no shard {index} of {count}; give 0 to {count - 1} of 1 or more")
    return deal(rows, count)[index]


def deal(rows: Sequence[Row], count: int) -> list[tuple[Row, ...]]:
    """Deal rows to ``count`` machines; every machine that has the same rows comes to the same deal.

    Shards are balanced by frames where every row's are known, else by rows. Rows of one video stay in one
    shard, so that it is tracked once, as far as the largest shard does not grow by over 10 % for it: videos
    are cut into ever smaller parts until it does not.

    Returns:
        The rows of each shard, in the manifest's order. Some shards are empty when there are fewer rows than
        shards, or when rows of one video stay together.
    """
    known = all(row.frames is not None for row in rows)
    weights = {row.number: max(row.frames or 0, 1) if known else 1 for row in rows}
    allowed = _heaviest(_deal([(weights[row.number], [row]) for row in rows], count)) * (1 + UNBALANCED)
    part = max(sum(weights.values()) / count * (1 + UNBALANCED), 1.0)
    dealt = _deal(_pieces(rows, weights, part), count)
    while _heaviest(dealt) > allowed:
        part /= 2
        dealt = _deal(_pieces(rows, weights, part), count)
    owner = {row.number: i for i, hand in enumerate(dealt) for _, piece in hand for row in piece}
    shards: list[list[Row]] = [[] for _ in range(count)]
    for row in rows:
        shards[owner[row.number]].append(row)
    return [tuple(mine) for mine in shards]


def write_shards(store: str, rows: Sequence[Row], count: int, profile: str) -> list[ShardManifest]:
    """Write a manifest for each of ``count`` shards into a store: a run then reads and checks only its own.

    The files lie in a folder named by a digest of all rows and the number of shards, each whole or not at
    all: the same rows give the same files. Places are absolute, and every row keeps the number and the name
    that it has in the manifest it came from. A shard without rows has no manifest.

    Args:
        store: path or fsspec URL of the store.
        rows: of a manifest that has been checked.
        profile: the profile that the runs are given; rows with another one name it.

    Raises:
        OSError: the store cannot be written.
    """
    shards = [mine for mine in deal(rows, count) if mine]
    cells = [[_cells(row, profile) for row in mine] for mine in shards]
    whole = hashlib.sha256(canonical_json(cells)).hexdigest()[:16]
    width = max(4, len(str(len(shards))))
    written = []
    for i, (mine, table) in enumerate(zip(shards, cells, strict=True)):
        label = f"{i:0{width}}-of-{len(shards):0{width}}"
        url = f"{store.rstrip('/')}/{FOLDER}/{whole}/{label}.csv"
        written.append(ShardManifest(url, label, hashlib.sha256(canonical_json(table)).hexdigest(), mine))
    in_threads(lambda item: write_table(item[0].url, item[1]), list(zip(written, cells, strict=True)))
    return written


def _cells(row: Row, profile: str) -> dict[str, str]:
    """Return the cells of a row as a manifest holds them."""
    edited = bool(parse_requests([row.edit]))  # the last override says then what the edit says
    cells = {
        "portrait": row.portrait,
        "video": row.video,
        "name": row.name,
        "profile": row.profile if row.profile != profile else "",
        "overrides": "; ".join(row.overrides[:-1] if edited else row.overrides),
        "edit": row.edit,
        "licence": row.licence,
        "consent": row.consent,
        NUMBER: str(row.number),
    }
    return {name: cell for name, cell in cells.items() if cell}


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
