"""What the stage ``assess`` wrote of clips, for tables."""

from __future__ import annotations

from collections.abc import Sequence

from portrait_core.errors import MissingChunk
from portrait_core.evaluation.plan import Member
from portrait_core.evaluation.sheet import Strip
from portrait_core.evaluation.tables import ClipReadings
from portrait_core.pipeline import Array
from portrait_core.store import Output, Store
from tasks.stages.assess import ASSESS, FOLLOW, NAMES, STRIPS

UNREAD = {*STRIPS, "landmarks"}
"""Arrays that no number of a table is made of."""


def read_clips(store: Store, members: Sequence[Member]) -> list[ClipReadings]:
    """Read the clips of a plan.

    Raises:
        MissingChunk: one of them is not in the store.
    """
    return [_read(store, member) for member in members]


def read_strips(store: Store, members: Sequence[Member]) -> tuple[dict[int, Strip], dict[int, Strip]]:
    """Read the small pictures of the clips of a plan, and those of their drivers, by the number of the pair.

    Raises:
        MissingChunk: one of them is not in the store.
    """
    outputs = {one.pair: _output(store, one) for one in members}
    shown, driver = ({pair: found.read(name) for pair, found in outputs.items()} for name in STRIPS)
    return shown, driver


def _output(store: Store, member: Member) -> Output:
    return store.unit("reenactment", member.unit).output("assess", member.key)


def _read(store: Store, member: Member) -> ClipReadings:
    output = _output(store, member)
    there = output.contents().described
    wanted = [item.name for item in ASSESS.writes if isinstance(item, Array) and item.name not in UNREAD]
    names = [name for name in wanted if name in there]
    follow, named = (output.read_note(name) for name in (FOLLOW, NAMES))
    if not names or not isinstance(follow, dict) or not isinstance(named, dict):
        raise MissingChunk(f"{output.path}/identity", [0])
    arrays = {name: output.read(name) for name in names}
    return ClipReadings(member.pair, member.clip, arrays, follow, named)
