"""Keys: everything that decides a result, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from portrait_core.errors import InputError
from portrait_core.store import describe_differences, file_digest, key_with_gaps, recipe_key, stage_recipe

A, B = "a" * 64, "b" * 16


class Settings(BaseModel):
    steps: int = 100
    rate: float = 0.1


def _key(
    stage: str,
    inputs: Mapping[str, str],
    settings: BaseModel | Mapping[str, Any],
    weights: Mapping[str, str],
    version: int = 1,
) -> str:
    return recipe_key(stage_recipe(stage, inputs, settings, weights, version))


def test_key_is_the_same_everywhere() -> None:
    # Written down: a key that depended on a process, a host or a version of Python would differ.
    expected = "74f1a28efc971932"
    assert _key("stage", {"video": A, "portrait": B}, Settings(), {"generator": A}) == expected
    plain = {"rate": 0.1, "steps": 100}
    assert _key("stage", {"portrait": B, "video": A}, plain, {"generator": A}) == expected


def test_key_depends_on_all_that_decides_the_result() -> None:
    keys = {
        _key("inversion", {"video": A}, Settings(), {"g": A}),
        _key("tuning", {"video": A}, Settings(), {"g": A}),
        _key("inversion", {"video": B}, Settings(), {"g": A}),
        _key("inversion", {"portrait": A}, Settings(), {"g": A}),
        _key("inversion", {"video": A}, Settings(steps=101), {"g": A}),
        _key("inversion", {"video": A}, Settings(), {"g": B}),
        _key("inversion", {"video": A, "g": A}, Settings(), {}),
        _key("inversion", {"video": A}, Settings(), {"g": A}, version=2),
    }
    assert len(keys) == 8
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_what_is_no_digest_or_no_data_is_refused() -> None:
    with pytest.raises(InputError, match="no digest"):
        _key("track", {"video": "/home/me/driver.mp4"}, {}, {})
    with pytest.raises(InputError, match="no digest"):
        _key("track", {}, {}, {"generator": "latest"})
    with pytest.raises(InputError, match="plain, finite"):
        _key("track", {}, {"rate": float("inf")}, {})
    with pytest.raises(InputError, match="plain, finite"):
        _key("track", {}, {"path": Path("x")}, {})


def test_digest_of_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert file_digest(tmp_path / "f") == file_digest(f"file://{tmp_path}/f") == expected
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="not a file"):
            file_digest(missing)


def test_differences_of_recipes_are_said_in_words() -> None:
    old = stage_recipe(
        "tuning", {"inversion": A}, {"tuning": {"steps": 160, "rate": None}, "seed": 0}, {"g": A}
    )
    changed = {
        "settings": {"tuning": {"steps": 400, "rate": 0.5}, "seed": 1},
        "weights": {"g": B},
        "version": old["version"] + 1,
        "inputs": {"inversion": B},
    }
    assert describe_differences(old, old) == []
    assert describe_differences(old, {**old, "inputs": changed["inputs"]}) == ["inversion changed"]
    assert describe_differences(old, {**old, **changed}) == [
        "seed 0 -> 1",
        "tuning.rate none -> 0.5",
        "tuning.steps 160 -> 400",
        "weights g changed",
        f"its code changed (version {old['version']} -> {old['version'] + 1})",
    ]


def test_the_key_of_a_clip_names_the_frames_that_show_a_neighbour() -> None:
    assert key_with_gaps("00aa", []) == "00aa"
    keys = {key_with_gaps("00aa", gaps) for gaps in ([], [3], [4], [3, 4])}
    assert len(keys) == 4
    assert key_with_gaps("00aa", [4, 3]) == key_with_gaps("00aa", [3, 4])
