"""Division of a manifest's rows among machines."""

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

MAX_IMBALANCE = 0.1
"""Fraction by which a shard may exceed its even share, to keep rows of one video together."""
FOLDER = "manifests"
"""Folder of a store in which the manifests of shards lie."""

Piece = tuple[int, list[Row]]
"""Rows that stay together, with their weight: the number of frames, or of rows."""


@dataclass(frozen=True)
class ShardManifest:
    """The manifest of one shard."""

    url: str
    """Path or URL of the manifest."""
    label: str
    """Number of the shard, from 0, and of all shards: ``0003-of-0032``."""
    digest: str
    """SHA-256 of its rows."""
    rows: tuple[Row, ...]
    """Rows of the shard."""


def shard(rows: Sequence[Row], index: int, count: int) -> tuple[Row, ...]:
    """Return the rows of one of ``count`` machines, as :func:`deal` divides them.

    Args:
        rows: rows of a manifest.
        index: number of the machine, 0 to ``count - 1``.
        count: number of machines.

    Raises:
        InputError: there is no such shard.
    """
    if not 0 <= index < count:
        raise InputError(f"there is no shard {index} of {count}; give 0 to {count - 1} of 1 or more")
    return deal(rows, count)[index]


def deal(rows: Sequence[Row], count: int) -> list[tuple[Row, ...]]:
    """Divide rows among ``count`` machines; every machine with the same rows comes to the same result.

    Shards are balanced by frames where every row's are known, else by rows. Rows of one video stay in one
    shard, so that it is tracked once, as long as the largest shard does not grow by more than 10 % for it;
    else videos are divided into ever smaller pieces.

    Returns:
        The rows of each shard, in the manifest's order. Some shards are empty when there are fewer rows than
        shards, or when rows of one video stay together.
    """
    known = all(row.frames is not None for row in rows)
    weights = {row.number: max(row.frames or 0, 1) if known else 1 for row in rows}
    allowed = _heaviest(_deal([(weights[row.number], [row]) for row in rows], count)) * (1 + MAX_IMBALANCE)
    limit = max(sum(weights.values()) / count * (1 + MAX_IMBALANCE), 1.0)
    dealt = _deal(_pieces(rows, weights, limit), count)
    while _heaviest(dealt) > allowed:
        limit /= 2
        dealt = _deal(_pieces(rows, weights, limit), count)
    owner = {row.number: i for i, pieces in enumerate(dealt) for _, piece in pieces for row in piece}
    shards: list[list[Row]] = [[] for _ in range(count)]
    for row in rows:
        shards[owner[row.number]].append(row)
    return [tuple(shard_rows) for shard_rows in shards]


def write_shards(store: str, rows: Sequence[Row], count: int, profile: str) -> list[ShardManifest]:
    """Write a manifest for each of ``count`` shards into a store; a run then reads and checks only its own.

    The files lie in a folder named by a digest of all rows and the number of shards, each whole or not at
    all: the same rows give the same files. Places are absolute, and every row keeps the number and the name
    that it has in the original manifest. A shard without rows has no manifest.

    Args:
        store: path or fsspec URL of the store.
        rows: rows of a manifest that has been checked.
        count: number of shards.
        profile: profile of the runs; rows with another one name it.

    Raises:
        OSError: the store cannot be written.
    """
    shards = [shard_rows for shard_rows in deal(rows, count) if shard_rows]
    cells = [[_cells(row, profile) for row in shard_rows] for shard_rows in shards]
    whole = hashlib.sha256(canonical_json(cells)).hexdigest()[:16]
    width = max(4, len(str(len(shards))))
    written = []
    for i, (shard_rows, table) in enumerate(zip(shards, cells, strict=True)):
        label = f"{i:0{width}}-of-{len(shards):0{width}}"
        url = f"{store.rstrip('/')}/{FOLDER}/{whole}/{label}.csv"
        written.append(
            ShardManifest(url, label, hashlib.sha256(canonical_json(table)).hexdigest(), shard_rows)
        )
    in_threads(lambda item: write_table(item[0].url, item[1]), list(zip(written, cells, strict=True)))
    return written


def _cells(row: Row, profile: str) -> dict[str, str]:
    """Return the cells of a row as a manifest holds them."""
    edited = bool(parse_requests([row.edit]))  # the last override then repeats the edit
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
    """Group rows by video, with their weights; a video above ``limit`` is divided into even pieces."""
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
    """Assign pieces, the longest first, each to the shard with the smallest load; equal ones take turns."""
    hands: list[list[Piece]] = [[] for _ in range(count)]
    # a heap of load, number of pieces and shard, because there may be 20,000 shards
    loads = [(0, 0, i) for i in range(count)]
    for piece in sorted(pieces, key=lambda piece: (-piece[0], piece[1][0].number)):
        load, _, i = loads[0]
        hands[i].append(piece)
        heapq.heapreplace(loads, (load + piece[0], len(hands[i]), i))
    return hands


def _heaviest(hands: Iterable[list[Piece]]) -> int:
    return max(sum(weight for weight, _ in hand) for hand in hands)
