"""The reference that every task receives: where data lies and under which keys, never the data itself."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from portrait_core.pipeline.pipelines import Pipeline, find_pipeline
from portrait_core.pipeline.stage import Stage
from portrait_core.settings import Settings
from portrait_core.settings.less_memory import with_less_memory
from portrait_core.store import Declared, Kind, Output, Store, Unit, recipe_key, stage_recipe
from portrait_core.store.places import place_name

WORDS = ("first_frame", "rate")
"""Inputs that are choices rather than digests."""


class Job(BaseModel):
    """One clip, or the product of another pipeline, with everything that decides its keys."""

    model_config = ConfigDict(frozen=True)

    goal: str = "clip"
    """Name of the pipeline (:mod:`tasks.pipelines`)."""
    store: str
    """URL or path of the store."""
    label: Annotated[str, Field(max_length=40_000)] = ""
    """Name for people: that of a manifest's row, or those of its files."""
    portrait: str = ""
    """Path or URL of the portrait, as the user wrote it; of a job in a store without secrets."""
    video: str = ""
    """Path or URL of the driving video."""
    frames: Annotated[int, Field(ge=0)]
    """Frames of the clip at its constant rate; for StyleFlow training, samples."""
    frame_rate: Annotated[str, Field(pattern=r"^[0-9]{1,18}(/[1-9][0-9]{0,17})?$")] = "1"
    """Exact frames per second, for example ``30000/1001``."""
    has_audio: bool = False
    """True if the driving video has a sound track."""
    source: dict[str, Any] = {}
    """Properties of the whole driving video that only people read: ``is_vfr`` (its own rate varies),
    ``repeated`` (frames that show the picture before them), ``dropped`` (pictures that no frame shows) and
    ``rotation_deg`` (counter-clockwise, as its file asks); of a folder or a pattern of pictures ``files``
    and, as their numbers tell, ``missing``."""
    edited: Job | None = None
    """Job that makes the portrait, where it is edited before it is animated."""
    inputs: dict[str, str]
    """Content digests of ``portrait`` and ``video``; for an edited portrait, the key of its edit; for a table
    of ``labels`` that edits or StyleFlow training read, its digest; ``driver_face`` and ``portrait_face``,
    digests of the persons that were asked for: of a picture, or of a number; ``first_frame``, where the clip
    does not begin with the video; ``rate``, of a video that is a folder or a pattern of pictures."""
    stage_keys: dict[str, str]
    """Key of every stage."""
    weights: dict[str, str]
    """Digest of every file of weights, by name."""
    settings: Settings
    """Settings of the run."""

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.frame_rate)

    @property
    def first_frame(self) -> int:
        """Frame of the driving video, at its constant rate, with which the clip begins."""
        return int(self.inputs.get("first_frame") or 0)

    @property
    def start_s(self) -> float:
        """Seconds from the driving video's first frame to the clip's."""
        return float(self.first_frame / self.rate)

    @property
    def pipeline(self) -> Pipeline:
        """Pipeline of the job's goal."""
        return find_pipeline(self.goal)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the job's stages, in their order."""
        return self.pipeline.names

    @property
    def id(self) -> str:
        """Name of its records in the store: jobs with the same results share it."""
        ends = {stage: self.stage_keys[stage] for stage in self.pipeline.ends}
        return recipe_key({"goal": self.goal, "ends": ends})

    def stage(self, name: str) -> Stage:
        """Return the declaration of one of its stages."""
        return self.pipeline.stage(name)

    def frame_input(self, name: str) -> str | None:
        """Return the stage that has to finish a frame before this one can start it, or None."""
        before = self.stage(name).needs_frame_of
        return before if before in self.stages else None

    def total(self, name: str) -> int:
        """Return the number of commit markers of the finished stage."""
        return self.frames if self.stage(name).per_frame else 1

    def is_chained(self, name: str) -> bool:
        """Tell whether a range of the stage's frames begins only when the range before it has ended."""
        return self.stage(name).chained(self.settings)

    def steps(self, name: str) -> int | None:
        """Return the steps of a stage's optimisation; None where it has none."""
        steps = self.stage(name).steps
        return None if steps is None else steps(self.settings, self.frames)

    def declared(self, name: str) -> Declared:
        """Return what a stage writes under the job's settings."""
        return self.stage(name).declared(self.settings)

    def open_store(self) -> Store:
        """Return the store, opened with the credentials of the settings."""
        return Store(self.store, self.settings.runner.storage_options)

    def unit_of(self, name: str) -> tuple[Kind, str]:
        """Return kind and name of the unit that holds the stage's output."""
        kind = self.stage(name).unit
        return kind, unit_name(kind, self.inputs, self.stage_keys, self.weights)

    def unit(self, name: str) -> Unit:
        """Return the unit that holds the stage's output."""
        return self.open_store().unit(*self.unit_of(name))

    def output(self, name: str) -> Output:
        """Return the folder of a stage under the job's key.

        A reader finds there the data that it expects, or nothing.
        """
        return self.unit(name).output(name, self.stage_keys[name])

    def recipe(self, name: str) -> dict[str, Any]:
        """Return the values that the stage's key is a hash of."""
        return make_recipes(self.pipeline, self.inputs, self.frames, self.settings, self.weights)[name]

    def with_less_memory(self) -> tuple[Job, str] | None:
        """Return the same job with less memory per task, and a description of the change.

        Returns None when nothing is left to halve.
        """
        smaller = with_less_memory(self.settings)
        return None if smaller is None else (self.model_copy(update={"settings": smaller[0]}), smaller[1])


def unit_name(
    kind: Kind, inputs: Mapping[str, str], stage_keys: Mapping[str, str], weights: Mapping[str, str]
) -> str:
    """Return the name of a unit: 16 hexadecimal digits of a digest of its content."""
    if kind == "video":
        return _short(inputs["video"])
    if kind in ("portrait", "inverted"):
        return _short(inputs["portrait"])
    if kind == "reenactment":
        return recipe_key({"portrait": inputs["portrait"], "video": inputs["video"]})
    if kind == "edited":
        return _short(stage_keys["edit"])
    if kind == "evaluation" and inputs.get("plan"):
        return _short(inputs["plan"])
    return _short(weights["generator"])  # a StyleFlow network, or drawn people, belong to a generator


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:16]


def file_name(place: str) -> str:
    """Return the name of a path or URL without folders and without secrets."""
    return PurePosixPath(place_name(place)).name


def stem(place: str) -> str:
    """Return the name of a path or URL without folders and suffix, for labels."""
    return PurePosixPath(file_name(place)).stem or "input"


def make_stage_keys(
    pipeline: Pipeline,
    inputs: Mapping[str, str],
    frames: int,
    settings: Settings,
    weights: Mapping[str, str],
) -> dict[str, str]:
    """Compute the key of every stage from its recipe (:func:`make_recipes`)."""
    recipes = make_recipes(pipeline, inputs, frames, settings, weights)
    return {stage: recipe_key(recipe) for stage, recipe in recipes.items()}


def make_recipes(
    pipeline: Pipeline,
    inputs: Mapping[str, str],
    frames: int,
    settings: Settings,
    weights: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Collect everything that decides the result of each stage: inputs, settings and weights.

    An input is the content digest of a file or the key of the stage that made it, so a key changes with
    everything before it and with nothing else: not with hosts, times, batch sizes or numbers of workers.
    Inputs that a job does not have are left out.
    """
    keys: dict[str, str] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for stage in pipeline.stages:
        given = {f"input {name}": inputs[name] for name in stage.inputs if inputs.get(name)}
        words = {f"input {name}" for name in WORDS} & given.keys()
        sources = {name: digest for name, digest in given.items() if name not in words}
        earlier = {name: keys[name] for name in pipeline.reads(stage.name)}
        values = stage.setting_values(settings) | {name: given[name] for name in words}
        if stage.counts_frames:
            values["frames"] = frames
        used: dict[str, str] = {}
        for choose in stage.weights:
            used |= choose(weights)
        recipes[stage.name] = stage_recipe(stage.name, sources | earlier, values, used, stage.version)
        keys[stage.name] = recipe_key(recipes[stage.name])
    return recipes
