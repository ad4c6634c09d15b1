"""What the stage ``assess`` wrote of clips, for tables."""

from __future__ import annotations

from collections.abc import Sequence

from portrait_core.errors import MissingChunk
from portrait_core.evaluation.plan import Member
from portrait_core.evaluation.tables import ClipReadings
from portrait_core.pipeline import Array
from portrait_core.store import Store
from tasks.stages.assess import ASSESS, FOLLOW, NAMES


def read_clips(store: Store, members: Sequence[Member]) -> list[ClipReadings]:
    """Read the clips of a plan.

    Raises:
        MissingChunk: one of them is not in the store.
    """
    return [_read(store, member) for member in members]


def _read(store: Store, member: Member) -> ClipReadings:
    output = store.unit("reenactment", member.unit).output("assess", member.key)
    there = output.contents().described
    names = [item.name for item in ASSESS.writes if isinstance(item, Array) and item.name in there]
    follow, named = (output.read_note(name) for name in (FOLLOW, NAMES))
    if not names or follow is None or named is None:
        raise MissingChunk(f"{output.path}/landmarks", [0])
    arrays = {name: output.read(name) for name in names}
    return ClipReadings(member.pair, member.clip, arrays, follow, named)
