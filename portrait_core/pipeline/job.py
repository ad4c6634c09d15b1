"""The reference that every task gets: where things are and under which keys, never the data itself."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict

from portrait_core.pipeline.pipelines import Pipeline, find_pipeline
from portrait_core.pipeline.stage import Stage
from portrait_core.settings import Settings
from portrait_core.settings.less_memory import with_less_memory
from portrait_core.store import Declared, Kind, Output, Store, Unit, recipe_key, stage_recipe


class Job(BaseModel):
    """One pair of portrait and driving video, or what another pipeline makes, with everything that decides
    what is done already.
    """

    model_config = ConfigDict(frozen=True)

    goal: str = "clip"
    """Name of the pipeline (:mod:`tasks.pipelines`)."""
    store: str
    """URL or path of the store."""
    label: str = ""
    """What people call it: the name of a manifest's row, or the names of its files."""
    portrait: str = ""
    """Path or URL of the portrait, as it was given."""
    video: str = ""
    """Path or URL of the driving video."""
    frames: int
    """Frames of the clip at its constant rate; samples of a flow."""
    frame_rate: str = "1"
    """Exact, for example ``30000/1001``."""
    has_audio: bool = False
    edited: Job | None = None
    """What makes the portrait, where it is edited before it is animated."""
    inputs: dict[str, str]
    """Content digests of ``portrait`` and ``video``; of an edited portrait, the key of its edit; of a table
    of ``labels`` that edits or flows read."""
    stage_keys: dict[str, str]
    """Key of every stage."""
    weights: dict[str, str]
    """Digest of every file of weights, by name."""
    settings: Settings

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.frame_rate)

    @property
    def pipeline(self) -> Pipeline:
        """What makes it."""
        return find_pipeline(self.goal)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the job's stages, in their order."""
        return self.pipeline.names

    @property
    def id(self) -> str:
        """Name of its records in the store: jobs that make the same are one."""
        ends = {stage: self.stage_keys[stage] for stage in self.pipeline.ends}
        return recipe_key({"goal": self.goal, "ends": ends})

    def stage(self, name: str) -> Stage:
        """The declaration of one of its stages."""
        return self.pipeline.stage(name)

    def frame_input(self, name: str) -> str | None:
        """The stage that has to have done a frame before this one can; None where none has to."""
        before = self.stage(name).needs_frame_of
        return before if before in self.stages else None

    def total(self, name: str) -> int:
        """How many commit markers the stage has when it is finished."""
        return self.frames if self.stage(name).per_frame else 1

    def chained(self, name: str) -> bool:
        """Whether a range of the stage's frames begins only when the one before it has ended."""
        return self.stage(name).chained(self.settings)

    def steps(self, name: str) -> int | None:
        """Steps of a stage's optimisation; None where it has none."""
        steps = self.stage(name).steps
        return None if steps is None else steps(self.settings, self.frames)

    def declared(self, name: str) -> Declared:
        """What a stage writes under the job's settings."""
        return self.stage(name).declared(self.settings)

    def open_store(self) -> Store:
        """The store, with the credentials that the settings give."""
        return Store(self.store, self.settings.runner.storage_options)

    def unit_of(self, name: str) -> tuple[Kind, str]:
        """Kind and name of the unit that holds the stage's output."""
        kind = self.stage(name).unit
        return kind, unit_name(kind, self.inputs, self.stage_keys, self.weights)

    def unit(self, name: str) -> Unit:
        """The unit that holds the stage's output."""
        return self.open_store().unit(*self.unit_of(name))

    def output(self, name: str) -> Output:
        """The folder of a stage under the job's key. Readers find there what they expect or nothing."""
        return self.unit(name).output(name, self.stage_keys[name])

    def recipe(self, name: str) -> dict[str, Any]:
        """What the stage's key is made of."""
        return make_recipes(self.pipeline, self.inputs, self.frames, self.settings, self.weights)[name]

    def with_less_memory(self) -> tuple[Job, str] | None:
        """The same job with less memory for each task, and what changed; None if nothing is left to halve."""
        found = with_less_memory(self.settings)
        return None if found is None else (self.model_copy(update={"settings": found[0]}), found[1])


def unit_name(
    kind: Kind, inputs: Mapping[str, str], stage_keys: Mapping[str, str], weights: Mapping[str, str]
) -> str:
    """Name a unit by the digest of its content: 16 hexadecimal digits."""
    if kind == "video":
        return _short(inputs["video"])
    if kind in ("portrait", "inverted"):
        return _short(inputs["portrait"])
    if kind == "reenactment":
        return recipe_key({"portrait": inputs["portrait"], "video": inputs["video"]})
    if kind == "edited":
        return _short(stage_keys["edit"])
    return _short(weights["generator"])  # a flow belongs to a generator


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:16]


def file_name(place: str) -> str:
    """The name of a path or URL without folders and query."""
    return PurePosixPath(place.partition("?")[0].rstrip("/")).name


def stem(place: str) -> str:
    """The name of a path or URL without folders and suffix, for labels."""
    return PurePosixPath(file_name(place)).stem or "input"


def make_stage_keys(
    pipeline: Pipeline,
    inputs: Mapping[str, str],
    frames: int,
    settings: Settings,
    weights: Mapping[str, str],
) -> dict[str, str]:
    """Make the key of every stage, from its recipe (:func:`make_recipes`)."""
    recipes = make_recipes(pipeline, inputs, frames, settings, weights)
    return {stage: recipe_key(recipe) for stage, recipe in recipes.items()}


def make_recipes(
    pipeline: Pipeline,
    inputs: Mapping[str, str],
    frames: int,
    settings: Settings,
    weights: Mapping[str, str],
) -> dict[str, dict[str, Any]]:
    """Say what decides every stage: its inputs, the settings it reads and the weights it uses.

    An input is the content digest of a file or the key of the stage that made it, so a key changes with
    everything before it and with nothing else: not with hosts, times, batch sizes or numbers of workers. What
    a job does not have is left out.
    """
    keys: dict[str, str] = {}
    recipes: dict[str, dict[str, Any]] = {}
    for stage in pipeline.stages:
        given = {f"input {name}": inputs[name] for name in stage.inputs if inputs.get(name)}
        read = {name: keys[name] for name in pipeline.reads(stage.name)}
        values = stage.values(settings)
        if stage.counts_frames:
            values["frames"] = frames
        used: dict[str, str] = {}
        for choose in stage.weights:
            used |= choose(weights)
        recipes[stage.name] = stage_recipe(stage.name, given | read, values, used, stage.version)
        keys[stage.name] = recipe_key(recipes[stage.name])
    return recipes
