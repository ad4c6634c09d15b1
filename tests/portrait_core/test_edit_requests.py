"""What users write as edits."""

from __future__ import annotations

import pytest
import yaml

from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.attribute_editing.edit_requests import (
    EditRequest,
    as_override,
    check_requests,
    make_edits,
    parse_request,
    parse_requests,
)
from portrait_core.errors import InputError
from portrait_core.settings import load_settings

CONDITIONS = Conditions(
    attributes=(
        Condition(name="age", low=18.0, high=80.0, unit="years"),
        Condition(name="glasses", kind="switch"),
        Condition(name="yaw", low=-20.0, high=20.0, held_at=0.0),
    )
)


@pytest.mark.parametrize(
    ("text", "name", "value", "relative"),
    [
        ("age=+20", "age", 20.0, True),
        ("age=-5.5", "age", -5.5, True),
        (" age = 60 ", "age", 60.0, False),
        ("glasses=on", "glasses", 1.0, False),
        ("glasses=Off", "glasses", 0.0, False),
    ],
)
def test_a_sign_means_a_change(text: str, name: str, value: float, relative: bool) -> None:
    found = parse_request(text)
    assert (found.name, found.value, found.relative) == (name, value, relative)
    assert parse_request(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "age", "age=", "age=old", "=3", "age=nan", "age=inf", "age==3", "a b=3"]
)
def test_what_cannot_be_read_is_told_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"age=\+20"):
        parse_request(text)


def test_one_cell_holds_several() -> None:
    assert [str(one) for one in parse_requests(["age=+20; glasses=on", "beard=0.5,"])] == [
        "age=+20",
        "glasses=1",
        "beard=0.5",
    ]
    with pytest.raises(InputError, match="age twice"):
        parse_requests(["age=+20", "age=30"])


def test_a_change_stops_at_the_end_of_the_range_and_an_absolute_value_beyond_is_refused() -> None:
    assert parse_request("age=+20").target(70.0, CONDITIONS) == 80.0
    assert parse_request("age=-20").target(30.0, CONDITIONS) == 18.0
    assert parse_request("age=+20").target(40.0, CONDITIONS) == 60.0
    # a picture's own value may lie outside: it is not drawn back
    assert parse_request("age=+5").target(90.0, CONDITIONS) == 90.0
    assert parse_request("age=-5").target(90.0, CONDITIONS) == 85.0
    with pytest.raises(InputError, match=r"age is 95, expected 18\.\.80 years"):
        parse_request("age=95").target(30.0, CONDITIONS)


@pytest.mark.parametrize(
    ("text", "said"),
    [("beard=1", "there is no attribute"), ("yaw=+5", "held at 0"), ("glasses=3", "expected")],
)
def test_what_the_flow_cannot_do_is_refused_before_any_work(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_requests([parse_request(text)], CONDITIONS)


def test_edits_count_from_the_pictures_own_values() -> None:
    edits = make_edits(
        parse_requests(["age=+20", "glasses=on"]), {"age": 40.0, "glasses": 0.0}, CONDITIONS, 0.5
    )
    assert [(dict(edit.values), edit.strength) for edit in edits] == [
        ({"age": 60.0}, 0.5),
        ({"glasses": 1.0}, 0.5),
    ]


def test_requests_go_through_the_settings_as_they_are() -> None:
    requests = parse_requests(["age=+20", "glasses=on", "hair_length=-0.3"])
    override = as_override(requests)
    assert yaml.safe_load(override.partition("=")[2]) == ["age=+20", "glasses=1", "hair_length=-0.3"]
    settings = load_settings("embedded", [override])
    assert parse_requests(settings.edit.attributes) == requests


def test_slugs_are_safe_and_tell_signs_apart() -> None:
    slugs = [
        EditRequest("age", value, relative).slug for value, relative in ((20, True), (-20, True), (20, False))
    ]
    assert slugs == ["age-plus-20", "age-minus-20", "age-20"]
