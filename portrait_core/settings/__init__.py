"""Settings of a run: one model per section, profiles, overrides, and the fallback to less memory."""

from portrait_core.settings.base import DIGESTED, HOW, Section
from portrait_core.settings.consistency_section import ConsistencySettings
from portrait_core.settings.edit_sections import EditSettings, SampleSettings, StyleFlowTrainingSettings
from portrait_core.settings.evaluation_sections import BaselineSettings, EvaluationSettings
from portrait_core.settings.generator_sections import GeneratorChoice, InversionSettings, TuningSettings
from portrait_core.settings.input_sections import MediaSettings, TemplateSettings, TrackingSettings
from portrait_core.settings.limits import Limits
from portrait_core.settings.output_sections import CompositeSettings, OutputSettings, RenderSettings
from portrait_core.settings.runner_section import RunnerSettings
from portrait_core.settings.safeguards import allowing_hosts_of, guard_process
from portrait_core.settings.whole import Settings, key_settings, load_settings

__all__ = [
    "DIGESTED",
    "HOW",
    "BaselineSettings",
    "CompositeSettings",
    "ConsistencySettings",
    "EditSettings",
    "EvaluationSettings",
    "GeneratorChoice",
    "InversionSettings",
    "Limits",
    "MediaSettings",
    "OutputSettings",
    "RenderSettings",
    "RunnerSettings",
    "SampleSettings",
    "Section",
    "Settings",
    "StyleFlowTrainingSettings",
    "TemplateSettings",
    "TrackingSettings",
    "TuningSettings",
    "allowing_hosts_of",
    "guard_process",
    "key_settings",
    "load_settings",
]
