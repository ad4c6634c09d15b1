"""Settings of all stages, as frozen models that check themselves.

A profile (``deployments/profiles/NAME.yaml``) fixes every setting; ``section.field=value`` strings change
single ones. Fields marked ``how`` control how the work is done (batch sizes, checkpoints), not its result:
:func:`key_settings` leaves them out of a stage's key, so that changing them never discards finished work.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from portrait_core.settings.base import DIGESTED, HOW, Section, Seed
from portrait_core.settings.consistency_section import ConsistencySettings
from portrait_core.settings.edit_sections import EditSettings, SampleSettings, StyleFlowTrainingSettings
from portrait_core.settings.evaluation_sections import BaselineSettings, EvaluationSettings
from portrait_core.settings.generator_sections import GeneratorChoice, InversionSettings, TuningSettings
from portrait_core.settings.input_sections import MediaSettings, TemplateSettings, TrackingSettings
from portrait_core.settings.limits import Limits
from portrait_core.settings.output_sections import CompositeSettings, OutputSettings, RenderSettings
from portrait_core.settings.profiles import explain, read_values, refuse_unknown
from portrait_core.settings.runner_section import RunnerSettings


class Settings(Section):
    """Every setting of a run."""

    profile: str = Field(default="embedded", json_schema_extra=HOW)
    """Name of the profile that the settings come from."""
    device: Literal["auto", "cpu", "cuda", "second"] = "auto"
    """Device of the networks; ``auto`` takes a GPU when PyTorch sees one. ``second`` is for tests alone,
    which register a device of that name (``tests/second_device``)."""
    seed: Seed = 0
    """Added to every stage's own seed."""
    commercial: bool = Field(default=False, json_schema_extra=HOW)
    """Refuse weights whose licence does not allow commercial use."""
    media: MediaSettings = MediaSettings()
    """Reading of the driving video and the portrait."""
    tracking: TrackingSettings = TrackingSettings()
    """Landmarks and the fit of the morphable head."""
    template: TemplateSettings = TemplateSettings()
    """The expression template."""
    generator: GeneratorChoice = GeneratorChoice()
    """The generator."""
    inversion: InversionSettings = InversionSettings()
    """The latents."""
    tuning: TuningSettings = TuningSettings()
    """Pivotal tuning."""
    render: RenderSettings = RenderSettings()
    """Rendering at the driver's poses."""
    composite: CompositeSettings = CompositeSettings()
    """The face composite."""
    output: OutputSettings = OutputSettings()
    """The clip."""
    edit: EditSettings = EditSettings()
    """Edits of the portrait's attributes."""
    sample: SampleSettings = SampleSettings()
    """Samples that a StyleFlow network is trained on."""
    flow: StyleFlowTrainingSettings = StyleFlowTrainingSettings()
    """Training of a StyleFlow network."""
    baseline: BaselineSettings = BaselineSettings()
    """Another method, for comparison."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """What is measured of clips, and how they become tables."""
    consistency: ConsistencySettings = ConsistencySettings()
    """Multi-view consistency of a generator's people (the paper's table 3)."""
    runner: RunnerSettings = Field(default=RunnerSettings(), json_schema_extra=HOW)
    """Where tasks run."""
    limits: Limits = Field(default=Limits(), json_schema_extra=HOW)
    """The largest numbers that a file may announce."""

    @model_validator(mode="after")
    def _check_needs_detail_transfer(self) -> Settings:
        if self.render.detail == "transfer":
            return self
        changes = ["render.motion=camera"] if self.render.motion == "head" else []
        changes += ["output.frame=crop"] if self.output.frame == "photograph" else []
        changes += ["output.alpha=false"] if self.output.alpha else []
        if changes:
            raise ValueError(
                f"render.detail=off gives the generator's own pictures, the face crop alone; set "
                f"{', '.join(changes)} with it, or render.detail=transfer"
            )
        return self

    @model_validator(mode="after")
    def _check_needs_embedded_head(self) -> Settings:
        if self.tracking.tracker == "embedded":
            return self
        changes = [
            f"tuning.{name}=0" for name in ("depth_anchor", "novel_view") if getattr(self.tuning, name)
        ]
        changes += ["inversion.init=mean"] if self.inversion.init == "tracker" else []
        off = "render.detail=off render.motion=camera output.frame=crop"
        changes += [off] if self.render.detail == "transfer" else []
        if changes:
            raise ValueError(
                f"tracking.tracker={self.tracking.tracker} gives no head in the generator's space and no "
                f"latents; set {', '.join(changes)}, or start from the profile paper"
            )
        return self

    @model_validator(mode="after")
    def _check_needs_deep3d(self) -> Settings:
        if self.baseline.method == "pirenderer" and "deep3d" not in self.evaluation.estimators:
            raise ValueError(
                "baseline.method=pirenderer is driven by Deep3DFaceRecon's coefficients; name deep3d among "
                "evaluation.estimators"
            )
        return self


def key_settings(section: Section) -> dict[str, Any]:
    """Return the fields of ``section`` that change a result, for a stage's key, as plain values."""
    fields = type(section).model_fields
    kept = {name for name, field in fields.items() if field.json_schema_extra not in (HOW, DIGESTED)}
    return section.model_dump(mode="json", include=kept)


def load_settings(profile: str | Path = "embedded", overrides: Iterable[str] = ()) -> Settings:
    """Read a profile and apply ``section.field=value`` strings to it.

    Args:
        profile: a name in ``deployments/profiles`` or the path of a YAML file. A profile may begin with
            ``extends: NAME`` and then holds only what differs.
        overrides: strings whose values are read as YAML: ``null``, ``true``, ``0.5``.

    Raises:
        ValueError: an unknown profile, an unknown field (the message lists close names) or a value that does
            not fit its field; the message names the field.
    """
    values = read_values(profile, overrides, Settings.model_fields)
    refuse_unknown(Settings, values)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
