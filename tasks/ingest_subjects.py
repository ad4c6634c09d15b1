"""Jobs of the paper's table 3: people of a generator, edited, from two sides."""

from __future__ import annotations

import json
from pathlib import Path

from portrait_core.errors import ColumnError, InputError
from portrait_core.inputs.copies import local_copy
from portrait_core.inputs.known import local_digest
from portrait_core.model_files.needs import (
    IDENTITY_MODELS,
    LANDMARK_MODELS,
    check_models,
    evaluation_sources,
    weight_file,
    weight_files,
)
from portrait_core.pipeline import Job, find_pipeline
from portrait_core.pipeline.job import make_stage_keys
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings
from portrait_core.store.places import local_path
from portrait_core.weights.registry import MODELS
from tasks.ingest import LABEL_SOURCES, said_of_generator


def subject_settings(settings: Settings) -> Settings:
    """Return the settings with the generator and the StyleFlow of the row that ``consistency.gan`` names."""
    chosen = settings.consistency
    if chosen.gan == "3d":
        return settings
    generator = settings.generator.model_copy(update={"weights": chosen.generator_2d})
    edit = settings.edit.model_copy(update={"flow": chosen.flow_2d})
    return settings.model_copy(update={"generator": generator, "edit": edit})


def ingest_subjects(store: str, settings: Settings) -> Job:
    """Return the job that shows ``settings.consistency.subjects`` people: a cell of the paper's table 3.

    Its generator and StyleFlow are those of :func:`subject_settings`.

    Raises:
        ColumnError: the StyleFlow cannot make the edit, or there is none for this generator.
        InputError: the StyleFlow is another generator's, or cannot turn a 2D generator's heads.
        ValueError: weights are missing, not of the row's kind, or may not be used.
    """
    settings = subject_settings(settings)
    chosen = settings.consistency
    moved = chosen.gan == "2d" or bool(chosen.edit)
    if moved and settings.edit.flow is None:
        name = "consistency.flow_2d" if chosen.gan == "2d" else "edit.flow"
        raise ColumnError(f"there is no StyleFlow for {settings.generator.weights}; set {name}=FILE")
    purposes = [Path(file).stem for file in LANDMARK_MODELS] + ["generator"] + ["flow"] * moved
    check_models(settings, purposes)
    files = weight_files(settings, purposes)
    _check_subjects(files["generator"], files.get("flow"), settings)
    labelled = moved and chosen.labels != "latent"
    if labelled:
        files["age_gender"] = data_file(settings.tracking.models) / MODELS["age_gender"].file
    weights = {name: local_digest(path) for name, path in files.items()}
    recognition = [name for name in evaluation_sources(settings) if name in IDENTITY_MODELS]
    weights |= {name: local_digest(weight_file(settings, name)) for name in recognition}
    has_table = labelled and chosen.labels not in LABEL_SOURCES
    inputs = {"labels": local_digest(local_copy(chosen.labels, limit="table_bytes")) if has_table else ""}
    keys = make_stage_keys(find_pipeline("subjects"), inputs, chosen.subjects, settings, weights)
    return Job(
        goal="subjects",
        store=str(local_path(store) or store),
        label="-".join(["subjects", chosen.gan, chosen.edit or "pose_only", str(chosen.subjects)]),
        frames=chosen.subjects,
        inputs=inputs,
        stage_keys=keys,
        weights=weights,
        settings=settings,
    )


def _check_subjects(generator: Path, flow: Path | None, settings: Settings) -> None:
    """Look at generator and StyleFlow before any work."""
    about, chosen = said_of_generator(generator), settings.consistency
    if about.get("kind", "triplane") != {"3d": "triplane", "2d": "stylegan2"}[chosen.gan]:
        name = "consistency.generator_2d" if chosen.gan == "2d" else "generator.weights"
        raise ValueError(f"{generator} holds no {chosen.gan.upper()} generator; set {name}=FILE to one")
    if flow is None:
        return
    from portrait_core.attribute_editing.consistency_edits import column_attribute, turning
    from portrait_core.attribute_editing.styleflow_files import load_styleflow

    model = load_styleflow(flow)
    width, own = model.flow.settings.width, json.loads(about.get("settings", "{}")).get("w_dim", 512)
    if width != own:
        raise InputError(
            f"the StyleFlow {flow} moves latents of {width} numbers, those of {generator} have {own}: it "
            "belongs to another generator"
        )
    if chosen.gan == "2d":
        turning(model, chosen.yaw_deg, chosen.pitch_deg)
    if chosen.edit:
        column_attribute(chosen.edit, model.conditions)
    if chosen.labels == "latent" and model.reader is None:
        raise InputError(
            f"the StyleFlow {flow} was published without a reader of attributes from latents; set "
            "consistency.labels=photograph, or consistency.labels=FILE.csv with a row for each person"
        )
