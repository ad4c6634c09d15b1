"""Conditions and edits with a small flow: what is asked, what changes, and what is refused."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Condition, Conditions
from portrait_core.attribute_editing.latent_edits import (
    AttributeEdit,
    AttributeEditor,
    StyleFlowModel,
    edit_latent,
    light_edit,
    published_edit,
)
from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from portrait_core.errors import InputError
from tests import official_flow

SCHEMA = Conditions(
    attributes=(
        Condition(name="age", low=10, high=80, unit="years", mean=40, scale=20),
        Condition(name="glasses", kind="switch"),
        Condition(name="yaw", low=-0.5, high=0.5, unit="rad", held_at=0.0),
    )
)


def model(rows: int = 1) -> tuple[StyleFlowModel, Tensor, Tensor]:
    """A flow, a latent and its labels."""
    w = torch.randn(1, rows, 6, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
    return StyleFlowModel(official_flow.tiny(), SCHEMA), w, torch.tensor([[35.0, 0.0, 0.4]])


def test_the_published_conditions() -> None:
    assert len(PUBLISHED_CONDITIONS) == 17
    assert PUBLISHED_CONDITIONS.index("gender") == 9
    assert PUBLISHED_CONDITIONS.index("expression") == 16
    raw = torch.randn(2, 17)
    assert torch.equal(PUBLISHED_CONDITIONS.encode(raw), raw)  # published weights take raw units
    without = PUBLISHED_CONDITIONS.without(["yaw", "pitch"])
    assert len(without) == 15
    held = PUBLISHED_CONDITIONS.with_held({"yaw": 0, "pitch": 0})
    assert set(PUBLISHED_CONDITIONS.names) - set(held.editable) == {"yaw", "pitch"}
    with pytest.raises(InputError, match="yaw is held at 0"):
        held.checked_target("yaw", 5)


def test_labels_by_name() -> None:
    labels = SCHEMA.vector({"glasses": 1, "age": 60})
    assert labels.tolist() == [60, 1, 0]
    assert SCHEMA.encode(labels).tolist() == [1, 1, 0]
    assert SCHEMA.checked_labels(torch.tensor([[5.0, 0.2, 9.0]])).tolist() == [[5, pytest.approx(0.2), 0]]
    with pytest.raises(InputError, match="no value is given for glasses"):
        SCHEMA.vector({"age": 3})
    with pytest.raises(
        InputError, match="there is no attribute 'hat'; this StyleFlow knows age, glasses, yaw"
    ):
        SCHEMA.vector({"age": 3, "glasses": 0, "hat": 1})
    with pytest.raises(InputError, match=r"shape \[2\], expected 3 values each: age, glasses, yaw"):
        SCHEMA.checked_labels(torch.zeros(2))
    with pytest.raises(InputError, match="values of glasses are not finite"):
        SCHEMA.checked_labels(torch.tensor([1, torch.nan, 2]))


def test_standardised() -> None:
    labels = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 7 + 30
    schema = SCHEMA.standardised(labels)
    made = schema.encode(schema.checked_labels(labels))
    assert torch.allclose(made.mean(0), torch.zeros(3), atol=1e-4)
    assert made[:, :2].std(0).tolist() == pytest.approx([1, 1], abs=0.01)
    assert schema.attributes[2].scale == 1  # held: constant
    assert schema.attributes[0].unit == "years"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": ""}, "at least 1 character"),
        ({"name": "a", "low": 1, "high": 1}, "attribute a needs low < high, got 1 and 1"),
        ({"name": "a", "kind": "share", "high": 2}, r"attribute a is a share, whose range is 0\.\.1"),
        ({"name": "a", "scale": 0}, "greater than 0"),
        ({"name": "a", "high": float("inf")}, "finite"),
        ({"name": "a", "colour": 1}, "Extra inputs"),
    ],
)
def test_conditions_check_themselves(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Condition(**values)


def test_schemas_check_themselves() -> None:
    with pytest.raises(ValidationError, match="a comes twice"):
        Conditions(attributes=(Condition(name="a"), Condition(name="a")))
    with pytest.raises(ValidationError, match="at least 1 item"):
        Conditions(attributes=())


def test_an_edit_is_a_way_there_and_back() -> None:
    made, w, labels = model()
    editor = AttributeEditor(made, w, labels)
    start = torch.tensor([[35.0, 0, 0]], dtype=torch.float64)
    assert torch.equal(editor.labels, start)  # yaw is held, whatever the label says
    editor.apply(AttributeEdit({"age": 55}, strength=0.5, degree=2))
    assert editor.labels.tolist() == [[55, 0, 0]]
    encoded = SCHEMA.encode(torch.tensor([[55.0, 0, 0]], dtype=torch.float64))
    wanted = made.flow(made.flow(w, SCHEMA.encode(start)), encoded, reverse=True)
    assert torch.equal(editor.w, wanted)
    assert float((editor.w - w).abs().max()) > 0.02


def test_strength_is_continuous() -> None:
    made, w, labels = model()
    moves = []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        edited = edit_latent(made, w, labels, [AttributeEdit({"age": 80, "glasses": 1}, strength)])
        moves.append(float((edited - w).norm()))
    assert moves[0] < 1e-4
    assert moves == sorted(moves)
    assert moves[-1] > 0.1
    steps = [b - a for a, b in pairwise(moves)]
    assert max(steps) < 0.6 * moves[-1]


def test_edits_build_on_each_other() -> None:
    made, w, labels = model()
    first, second = AttributeEdit({"age": 70}), AttributeEdit({"glasses": 1})
    both = edit_latent(made, w, labels, [first, second])
    at_once = edit_latent(made, w, labels, [AttributeEdit({"age": 70, "glasses": 1})])
    assert torch.allclose(both, at_once, atol=1e-3)  # all rows go: only the solver's error lies between
    there_and_back = edit_latent(made, w, labels, [first, AttributeEdit({"age": 35})])
    assert torch.allclose(there_and_back, w, atol=1e-3)


def test_rows_of_a_w_plus() -> None:
    made, w, labels = model(rows=5)
    editor = AttributeEditor(made, w, labels)
    editor.apply(AttributeEdit({"age": 70}, rows=(1, 3)))
    changed = (editor.w != w)[0].any(-1).tolist()
    assert changed == [False, True, True, False, False]
    before = editor.w
    editor.apply(AttributeEdit({"glasses": 1}))
    assert (editor.w != before)[0].any(-1).all()
    for rows in ((3, 3), (-1, 2), (4, 6)):
        kept = editor.w
        with pytest.raises(InputError, match="are not in a latent of 5 rows"):
            editor.apply(AttributeEdit({"age": 20}, rows=rows))
        assert editor.w is kept
    single, w, labels = model(rows=1)
    edited = edit_latent(single, w, labels, [AttributeEdit({"age": 70}, rows=(4, 8))])
    assert (edited != w).all()


def test_published_edits_know_their_rows() -> None:
    assert published_edit("age", 40, rows=18).rows == (4, 8)
    assert published_edit("age", 40, rows=14).rows is None
    assert published_edit("glasses", 1, rows=1).degree == 2.5
    assert light_edit(torch.zeros(9), rows=18).rows == (7, 12)
    with pytest.raises(InputError, match="there is no slider for 'hat'; there are gender, glasses"):
        published_edit("hat", 1, rows=18)
    with pytest.raises(InputError, match="expected 9"):
        light_edit(torch.zeros(8), rows=18)
    # every slider is an attribute, and its whole range can be asked for
    for attribute in PUBLISHED_CONDITIONS.attributes[9:]:
        made = published_edit(attribute.name, attribute.high, rows=18)
        assert (
            PUBLISHED_CONDITIONS.checked_target(attribute.name, made.values[attribute.name]) == attribute.high
        )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hat": 1}, "there is no attribute 'hat'"),
        ({"age": 90}, r"age is 90, expected 10\.\.80 years"),
        ({"age": float("nan")}, "age is nan"),
        ({"yaw": 0.1}, "yaw is held at 0 in this StyleFlow; edit age, glasses"),
    ],
)
def test_what_cannot_be_asked(values: dict[str, float], words: str) -> None:
    made, w, labels = model()
    editor = AttributeEditor(made, w, labels)
    with pytest.raises(InputError, match=words):
        editor.apply(AttributeEdit(values))
    assert editor.w is w


def test_a_flow_of_other_width_is_told_apart() -> None:
    made, w, _ = model()
    with pytest.raises(InputError, match="expected 3 values each"):
        AttributeEditor(made, w, torch.zeros(1, 17))
    with pytest.raises(ValueError, match="latents have shape"):
        AttributeEditor(made, torch.zeros(1, 1, 512, dtype=torch.float64), torch.zeros(1, 3))
    with pytest.raises(ValidationError, match="hidden"):
        StyleFlowArchitecture(hidden=())
