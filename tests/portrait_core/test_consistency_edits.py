"""The edits of table 3: which attribute each column moves, how far, and what is refused."""

from __future__ import annotations

import pytest
import torch

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Condition, Conditions
from portrait_core.attribute_editing.consistency_edits import (
    COLUMN_ATTRIBUTES,
    TYPICAL,
    column_attribute,
    column_edit,
    column_target,
    pose_edit,
    turning,
)
from portrait_core.attribute_editing.latent_edits import AttributeEdit, StyleFlowModel, edit_latent
from portrait_core.attribute_editing.scene_attributes import posed_scene_conditions, scene_conditions
from portrait_core.errors import ColumnError, InputError
from portrait_core.report.table3 import COLUMNS
from tests import official_flow

OWN_FLOW = Conditions(
    attributes=(Condition(name="age", low=0.0, high=80.0), Condition(name="glasses", kind="switch"))
)


def _published() -> StyleFlowModel:
    return StyleFlowModel(official_flow.tiny(context=17), PUBLISHED_CONDITIONS)


def test_every_column_but_the_first_has_attributes() -> None:
    assert set(COLUMN_ATTRIBUTES) == set(COLUMNS) - {""}


@pytest.mark.parametrize(
    ("conditions", "attributes"),
    [
        (PUBLISHED_CONDITIONS, ["age", "beard", "gender", "glasses", "baldness"]),
        (scene_conditions(), ["age", "beard", "gender", "glasses", "hair_length"]),
        (posed_scene_conditions(), ["age", "beard", "gender", "glasses", "hair_length"]),
    ],
)
def test_columns_find_their_attributes(conditions: Conditions, attributes: list[str]) -> None:
    assert [column_attribute(column, conditions) for column in COLUMN_ATTRIBUTES] == attributes


def test_a_column_that_a_flow_does_not_know_names_what_it_knows() -> None:
    with pytest.raises(
        ColumnError, match=r"'hair' edits hair_length or baldness, .* it edits age, glasses\."
    ):
        column_attribute("hair", OWN_FLOW)
    with pytest.raises(ColumnError, match="no column 'hat'; there are age, facial_hair"):
        column_attribute("hat", OWN_FLOW)
    with pytest.raises(ColumnError):  # held attributes cannot be edited
        column_attribute("age", OWN_FLOW.with_held({"age": 30.0}))


@pytest.mark.parametrize(
    ("own", "amount", "target"), [(30, 0.5, 70), (60, 0.5, 20), (30, 1.0, 80), (90, 0.5, 50), (-5, 0.25, 15)]
)
def test_people_move_toward_the_end_that_is_further_away(own: float, amount: float, target: float) -> None:
    assert column_target(own, OWN_FLOW.attributes[0], amount) == target


def test_a_switch_goes_to_its_other_end() -> None:
    assert [column_target(own, OWN_FLOW.attributes[1], 0.5) for own in (0.0, 0.2, 1.0)] == [1.0, 1.0, 0.0]


def test_published_networks_have_published_gains_and_rows() -> None:
    model = _published()
    assert set(TYPICAL) == set(PUBLISHED_CONDITIONS.names)
    edit = column_edit(model, "glasses", TYPICAL, 0.5, 18)
    assert (edit.values, edit.degree, edit.rows) == ({"glasses": 1.0}, 2.5, (2, 4))
    assert pose_edit(model, 10.0, -5.0, 18) == AttributeEdit({"yaw": 10.0, "pitch": -5.0}, rows=(0, 4))
    own = StyleFlowModel(official_flow.tiny(context=2), OWN_FLOW)
    assert column_edit(own, "age", {"age": 30.0}, 0.5, 1) == AttributeEdit({"age": 70.0})


def test_a_published_network_turns_beyond_its_sliders() -> None:
    model = _published()
    w = torch.randn(1, 18, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = model.conditions.vector(TYPICAL)[None]
    with pytest.raises(InputError, match=r"yaw is 30, expected -20\.\.20 degrees"):
        edit_latent(model, w, labels, [pose_edit(model, 30.0, 0.0, 18)])
    turned = edit_latent(turning(model, 30.0, 20.0), w, labels, [pose_edit(model, 30.0, 20.0, 18)])
    assert not torch.equal(turned[:, :4], w[:, :4])
    assert torch.equal(turned[:, 4:], w[:, 4:])


def test_a_network_that_cannot_turn_heads_is_refused() -> None:
    held = _published()._replace(conditions=PUBLISHED_CONDITIONS.with_held({"yaw": 0.0}))
    with pytest.raises(InputError, match=r"cannot edit yaw, .*consistency\.flow_2d=FILE"):
        turning(held, 30.0, 20.0)
