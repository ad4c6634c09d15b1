"""Profiles and overrides: what is accepted, what is refused and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from portrait_core.runtime.package_files import profile_folder, profile_names
from portrait_core.settings import (
    HOW,
    Section,
    Settings,
    TrackingSettings,
    TuningSettings,
    key_settings,
    load_settings,
)
from portrait_core.settings.profiles import setting_names


@pytest.mark.parametrize("name", ["embedded", "paper", "fast"])
def test_profiles_that_ship_are_valid_and_known_by_name(name: str) -> None:
    assert name in profile_names()
    assert load_settings(name).profile == name


def test_embedded_profile_is_the_default_of_the_code() -> None:
    assert load_settings("embedded") == Settings()


def test_paper_profile_has_the_published_step_counts() -> None:
    paper = load_settings("paper")
    assert (paper.inversion.first_steps, paper.inversion.steps, paper.tuning.steps) == (2000, 100, 10_000)
    assert (paper.inversion.init, paper.inversion.mouth, paper.render.pose_window) == ("mean", "render", 2)
    assert (paper.tuning.batch, paper.template.size, paper.template.eyes) == (1, 512, "paper")
    assert (paper.tracking.tracker, paper.generator.weights) == ("deca", "eg3d")


def test_overrides_are_read_as_yaml() -> None:
    settings = load_settings("embedded", ["media.max_frames=12", "tuning.learning_rate=1e-3", "device=cpu"])
    assert settings.media.max_frames == 12
    assert settings.tuning.learning_rate == pytest.approx(1e-3)
    assert load_settings("embedded", ["media.max_frames=null"]).media.max_frames is None


def test_a_profile_extends_another_and_a_file_is_a_profile(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: paper\ntuning: {steps: 77}\n")
    settings = load_settings(mine)
    assert (settings.profile, settings.tuning.steps, settings.tuning.batch) == ("mine", 77, 1)


def test_a_profile_that_extends_itself_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {mine}\n")
    with pytest.raises(ValueError, match="extends itself"):
        load_settings(mine)


@pytest.mark.parametrize(
    ("override", "hint"),
    [
        ("tunning.steps=3", "tuning.steps"),
        ("tuning.step=3", "tuning.steps"),
        ("first_steps=3", "inversion.first_steps"),
        ("template.sise=128", "template.size"),
    ],
)
def test_unknown_settings_list_close_names(override: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"unknown setting .*did you mean: .*{hint}"):
        load_settings("embedded", [override])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tuning.steps=-1", ["tuning.steps", "-1", "greater than or equal to 0"]),
        ("device=tpu", ["device", "'tpu'", "cuda"]),
        ("media.max_frames=many", ["media.max_frames", "'many'", "integer"]),
        ("runner.kind=address", ["runner", "runner.address"]),
        ("tuning=4", ["tuning", "4"]),
        ("tracking.tracker=deca", ["tuning.depth_anchor=0", "inversion.init=mean", "profile paper"]),
        ("tuning.steps", ["section.field=value"]),
    ],
)
def test_wrong_values_name_the_field_and_what_fits(override: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"setting|section") as caught:
        load_settings("embedded", [override])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_aliases_of_yaml_are_refused_before_they_grow(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 10)]
    bomb = tmp_path / "bomb.yaml"
    bomb.write_text("runner: {cluster: {resources: {" + ", ".join(lines) + "}}}")
    with pytest.raises(ValueError, match=r"aliases \(\*name\) are not read"):
        load_settings(bomb)
    with pytest.raises(ValueError, match=r"setting runner\.cluster"):
        load_settings("embedded", ["runner.cluster={" + ", ".join(lines) + "}"])
    with pytest.raises(ValueError, match=r"setting tuning\.steps"):
        load_settings("embedded", ["tuning.steps=" + "[" * 5000])


def test_unknown_profile_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="embedded, fast, paper"):
        load_settings("embeded")


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.device = "cpu"


def test_key_settings_leave_out_how_the_work_is_done() -> None:
    assert key_settings(TrackingSettings(batch=7)) == key_settings(TrackingSettings())
    assert key_settings(TuningSettings(steps=7)) != key_settings(TuningSettings())


def test_every_setting_says_what_it_does() -> None:
    described = [
        field.description
        for section in Settings.model_fields.values()
        for field in getattr(section.annotation, "model_fields", {"": section}).values()
    ]
    assert len(described) == len(setting_names(Settings))
    assert all(described)


_OPERATORS = ("runner", "limits")
MARKS = ("[paper]", "[PTI]", "[EG3D]", "[ours]")
WITHOUT_MARKS = {"profile", "device", "seed", "commercial"}
"""Settings of the profile as a whole, beside the sections of :data:`_OPERATORS`, which change no result."""


def marked_settings(path: Path) -> dict[str, str]:
    """Names of the settings that a profile fixes, with what their lines say of them."""
    lines = path.read_text().splitlines()
    found = {}
    document = yaml.compose(path.read_text())
    assert document is not None, path
    for section, values in document.value:
        if isinstance(values, yaml.MappingNode) and section.value not in _OPERATORS:
            for name, _ in values.value:
                found[f"{section.value}.{name.value}"] = lines[name.start_mark.line].partition("#")[2]
    return found


def test_every_setting_of_the_published_profile_says_where_it_is_from() -> None:
    found = marked_settings(profile_folder() / "paper.yaml")
    assert {name: said for name, said in found.items() if not said.strip().startswith(MARKS)} == {}
    how = {
        f"{section}.{name}"
        for section, value in Settings()
        if isinstance(value, Section)
        for name, field in type(value).model_fields.items()
        if field.json_schema_extra == HOW
    }
    every = {name for name in setting_names(Settings) if name.partition(".")[0] not in _OPERATORS}
    assert every - how - WITHOUT_MARKS == set(found), "the profile leaves nothing to another one's defaults"


def test_the_published_profile_optimises_one_vector_as_pivotal_tuning_does() -> None:
    for profile in ("paper", "fast"):
        settings = load_settings(profile)
        assert (settings.inversion.space, settings.inversion.step_unit) == ("w", "w")
        assert settings.inversion.adam_betas == settings.tuning.adam_betas == (0.9, 0.999)
        assert settings.tuning.locality_every == 1
        assert settings.tuning.locality_patch == settings.tuning.patch == settings.generator.neural_resolution
        assert settings.render.max_yaw_deg == settings.render.max_pitch_deg == 90
