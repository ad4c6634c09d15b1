"""A stage's key names every setting that the stage reads: else changing it would leave old work in place."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import flows.runners
from flows.cli import app
from flows.stages import TASKS
from portrait_core.config import HOW, Section, Settings
from portrait_core.models.cache import forget_models
from tasks.job import STAGES, Stage, make_recipes
from tests.flows.conftest import Arguments
from tests.tasks.test_job import WEIGHTS

SECTIONS = {type(getattr(Settings(), name)): name for name in Settings.model_fields}
STAGE_OF = {task.fn.__name__: stage for stage, tasks in TASKS.items() for task in tasks}
NOT_IN_KEYS = {"device", "media.max_frames", "tracking.tracker"}
"""Results are equal on one type of device; the frames themselves are in the keys; another
tracker has other units."""
CHOOSE_WEIGHTS = {
    "generator.weights",
    "inversion.phi",
    "tuning.perceptual",
    "tracking.models",
    "tracking.head",
    "edit.attributes",
    "edit.flow",
}
"""Looked at to find files of weights, whose digests are in the keys of the stages that use them."""


def _settings_in_keys() -> dict[Stage, set[str]]:
    """Every setting that a stage's key depends on, through the stages before it too."""
    recipes = make_recipes("0" * 64, "1" * 64, 9, Settings(), WEIGHTS)
    known: dict[Stage, set[str]] = {}
    for stage in STAGES:
        own: set[str] = set()
        for section, values in recipes[stage]["settings"].items():
            own |= {f"{section}.{name}" for name in values} if isinstance(values, dict) else {section}
        before = (known[name] for name in recipes[stage]["inputs"] if name in known and name != stage)
        known[stage] = own.union(*before)
    return known


@pytest.mark.timeout(600)
def test_stages_read_no_setting_that_their_key_leaves_out(
    tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_models()  # what is loaded already was read for another stage
    at_work = threading.local()
    read: dict[Stage, set[str]] = {stage: set() for stage in STAGES}
    plain, run = Section.__getattribute__, flows.runners.run_by_name

    def recorded(self: Section, name: str) -> Any:
        stage, section = (
            getattr(at_work, "stage", None),
            SECTIONS.get(object.__getattribute__(self, "__class__")),
        )
        field = object.__getattribute__(self, "__class__").model_fields.get(name)
        if stage is not None and field is not None and field.json_schema_extra != HOW:
            if section is not None:
                read[stage].add(f"{section}.{name}")
            elif name not in SECTIONS.values():
                read[stage].add(name)
        return plain(self, name)

    def run_by_name(module: str, name: str, *rest: Any) -> Any:
        at_work.stage = STAGE_OF[name]
        try:
            return run(module, name, *rest)
        finally:
            at_work.stage = None

    monkeypatch.setattr(Section, "__getattribute__", recorded)
    monkeypatch.setattr(flows.runners, "run_by_name", run_by_name)
    line = arguments(tmp_path / "store", tmp_path / "out", "inversion.steps=1", "tuning.locality=0.1")
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code == 1, ended.output  # one frame shows no face
    known = _settings_in_keys()
    ours = {f"runner.{name}" for name in type(Settings().runner).model_fields}
    left_out = {stage: read[stage] - known[stage] - NOT_IN_KEYS - CHOOSE_WEIGHTS - ours for stage in STAGES}
    assert {stage: names for stage, names in left_out.items() if names} == {}
    assert "tuning.steps" in read["tuning"]
    assert "output.crf" in read["encode"]
