"""The edits of the paper's table 3: the attribute of each column, and how far a person is moved by it."""

from __future__ import annotations

from collections.abc import Mapping

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Condition, Conditions
from portrait_core.attribute_editing.latent_edits import (
    AttributeEdit,
    StyleFlowModel,
    published_edit,
    published_pose_edit,
)
from portrait_core.errors import ColumnError, InputError

COLUMN_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "age": ("age",),
    "facial_hair": ("beard",),
    "gender": ("gender",),
    "glasses": ("glasses",),
    "hair": ("hair_length", "baldness"),
}
"""Attributes that a column may edit, the embedded networks' before the published ones'; the first one that
a StyleFlow knows is taken."""
TYPICAL: Mapping[str, float] = {
    "light_0": 0.85,
    **{f"light_{i}": 0.0 for i in range(1, 9)},
    "gender": 0.5,
    "glasses": 0.0,
    "yaw": 0.0,
    "pitch": 0.0,
    "baldness": 0.1,
    "beard": 0.1,
    "age": 31.0,
    "expression": 0.74,
}
"""Values of a typical person under the published conditions, by attribute, for what no local model reads:
about the middle of the values that were published with StyleFlow, without glasses."""


def is_published(conditions: Conditions) -> bool:
    """Tell whether a schema is that of the published networks, whose edits have their own gains and rows."""
    return conditions.names == PUBLISHED_CONDITIONS.names


def column_attribute(column: str, conditions: Conditions) -> str:
    """Return the attribute that a column of the table edits.

    Args:
        column: a key of :data:`COLUMN_ATTRIBUTES`.
        conditions: schema of the StyleFlow.

    Raises:
        ColumnError: the column is unknown, or the StyleFlow cannot edit such an attribute.
    """
    if column not in COLUMN_ATTRIBUTES:
        raise ColumnError(f"there is no column {column!r}; there are {', '.join(COLUMN_ATTRIBUTES)}")
    wanted = COLUMN_ATTRIBUTES[column]
    found = next((name for name in wanted if name in conditions.editable), None)
    if found is None:
        raise ColumnError(
            f"the column {column!r} edits {' or '.join(wanted)}, which this StyleFlow does not know; it "
            f"edits {', '.join(conditions.editable)}. Leave the column out, or train a StyleFlow with labels "
            "of it"
        )
    return found


def column_target(own: float, attribute: Condition, amount: float) -> float:
    """Return the value to which a person is moved.

    Args:
        own: the person's value.
        attribute: the attribute, whose ends are those of its range of edits.
        amount: change as a fraction of the range, toward the end that is further away, where it stops. A
            switch always reaches that end.
    """
    up = own < (attribute.low + attribute.high) / 2
    if attribute.kind == "switch":
        return attribute.high if up else attribute.low
    way = amount * (attribute.high - attribute.low)
    return min(max(own + (way if up else -way), attribute.low), attribute.high)


def column_edit(
    model: StyleFlowModel, column: str, own: Mapping[str, float], amount: float, rows: int
) -> AttributeEdit:
    """Return a column's edit of a person; published networks have the published gains and rows.

    Args:
        model: the StyleFlow.
        column: a key of :data:`COLUMN_ATTRIBUTES`.
        own: the person's attributes by name.
        amount: as for :func:`column_target`.
        rows: rows of the latent.

    Raises:
        ColumnError: the column is unknown, or the StyleFlow cannot edit such an attribute.
    """
    name = column_attribute(column, model.conditions)
    target = column_target(own[name], model.conditions.attributes[model.conditions.index(name)], amount)
    if is_published(model.conditions):
        return published_edit(name, target, rows=rows)
    return AttributeEdit({name: target})


def pose_edit(model: StyleFlowModel, yaw_deg: float, pitch_deg: float, rows: int) -> AttributeEdit:
    """Return the edit that turns a person's head; arguments as for :func:`column_edit`."""
    if is_published(model.conditions):
        return published_pose_edit(yaw_deg, pitch_deg, rows=rows)
    return AttributeEdit({"yaw": yaw_deg, "pitch": pitch_deg})


def turning(model: StyleFlowModel, yaw_deg: float, pitch_deg: float) -> StyleFlowModel:
    """Return the StyleFlow with poses up to these angles to either side within its ranges of edits.

    Raises:
        InputError: it does not know yaw and pitch, or holds them.
    """
    lacking = [name for name in ("yaw", "pitch") if name not in model.conditions.editable]
    if lacking:
        raise InputError(
            f"a 2D generator turns heads by the attributes yaw and pitch of its StyleFlow; this one cannot "
            f"edit {' and '.join(lacking)}, it edits {', '.join(model.conditions.editable)}. Set "
            "consistency.flow_2d=FILE to one that can"
        )
    reached = {"yaw": (-yaw_deg, yaw_deg), "pitch": (-pitch_deg, pitch_deg)}
    return model._replace(conditions=model.conditions.reaching(reached))
