"""The reference that every task gets: where things are and under which keys, never the data itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from portrait_core.config import Section, Settings, key_settings
from portrait_core.models.needs import (
    DECA_TRACKING,
    FLAME_MODELS,
    LANDMARK_MODELS,
    weight_file,
    weight_sources,
)
from portrait_core.shrinking import smaller
from portrait_core.store import Kind
from portrait_core.store.keys import recipe_key, stage_recipe

Stage = Literal[
    "portrait",
    "landmarks",
    "fit",
    "retarget",
    "template",
    "inversion",
    "tuning",
    "pose",
    "render",
    "encode",
    "measure",
    "edit",
    "sample",
    "flow",
]

Goal = Literal["clip", "edit", "flow"]
"""What a job makes: a reenacted clip, an edited portrait, or the flow that edits attributes."""

STAGES: tuple[Stage, ...] = tuple(
    stage for stage in get_args(Stage) if stage not in ("edit", "sample", "flow")
)
"""Those of a clip, in the order in which they can run."""

GOALS: Mapping[Goal, tuple[Stage, ...]] = {
    "clip": STAGES,
    "edit": ("portrait", "inversion", "tuning", "edit"),
    "flow": ("sample", "flow"),
}
"""Stages of a job, in the order in which they can run. An edit inverts the photograph itself and tunes the
generator on it: a clip of one frame without a template; the frames of a flow's job are its samples."""

ENDS: Mapping[Goal, tuple[Stage, ...]] = {"clip": ("encode", "measure"), "edit": ("edit",), "flow": ("flow",)}
"""Stages with which a job is finished."""

PER_FRAME: frozenset[Stage] = frozenset(
    {"landmarks", "fit", "retarget", "template", "inversion", "render", "sample"}
)
"""Stages with a commit marker a frame; the others have one marker, for frame 0."""

FANNED: frozenset[Stage] = frozenset({"landmarks", "template", "inversion", "render", "sample"})
"""Stages whose tasks take ranges of frames and spread over workers (the inversion unless it is a chain)."""

UNIT_KINDS: Mapping[Stage, Kind] = {
    "portrait": "portrait",
    "landmarks": "video",
    "fit": "video",
    "edit": "edited",
    "sample": "flow",
    "flow": "flow",
}
"""Kind of the unit that holds a stage's output; stages that are not named write the reenactment's, or in the
job of an edit the inverted portrait's, which other edits of the portrait share."""

TRACK_ARRAYS = (
    "expression",
    "jaw",
    "rotation",
    "crop_center_px",
    "crop_side_px",
    "cameras",
    "fit_error",
    "ok",
)
"""Per-frame fields of a track; ``shape`` is kept once."""

_TRACK = ("shape", *TRACK_ARRAYS)
_MASKS = ("face_mask", "mouth_mask", "uncovered")

ARRAYS: Mapping[Stage, tuple[str, ...]] = {
    "portrait": (*_TRACK, "landmarks", "crop"),
    "landmarks": ("landmarks",),
    "fit": _TRACK[1:],
    "retarget": ("expression", "jaw"),
    "template": ("template", *_MASKS),
    "inversion": ("latents", "inversion", "inversion_loss"),
    "render": ("frames", "render", "render_mask", "render_depth"),
    "edit": ("edited", "edited_latents"),
    "sample": ("latents", "labels", "pictures"),
}
"""Arrays that a stage writes: a frame whose chunk is gone is not done."""

KEPT_ONCE: Mapping[Stage, tuple[str, ...]] = {"fit": ("shape",)}
"""Arrays of one row for the whole clip."""

TUNED = "tuned_generator.safetensors"

CAMERAS = "output_cameras.npy"

FIRST = "first_latent.npz"

STRIP = "strip.png"
"""An edit at several strengths."""

FLOW, FLOW_SHEET = "attribute_flow.safetensors", "contact_sheet.png"
"""A trained flow, and its edits of some samples."""

EDIT_REPORT, CURVE = "edit", "flow_curve"
"""Metadata: what an edit was asked and what came of it; a flow's loss and held-out density by pass."""

FILES: Mapping[Stage, tuple[str, ...]] = {
    "inversion": (FIRST,),
    "tuning": (TUNED,),
    "pose": (CAMERAS,),
    "edit": (STRIP,),
    "flow": (FLOW, FLOW_SHEET),
}
"""Files that a stage leaves for later stages."""

DECA_ARRAYS: Mapping[Stage, tuple[str, ...]] = {"portrait": ("deca_code", "deca_tform", "deca_placement")}
"""What ``tracking.tracker=deca`` keeps further: the portrait's code, its crop's transform, and where the
generator's crop lies."""

EYES = "eyes"
"""Array of the stage ``retarget`` for eyes that FLAME cannot move: coefficients of the embedded head."""


FRAME_INPUT: Mapping[Stage, Stage] = {"inversion": "template", "render": "inversion"}
"""Stages that can do a frame only where another stage of their job has done it (:meth:`Job.frame_input`);
the others do what they are given."""

READS: Mapping[Stage, tuple[Stage, ...]] = {
    "portrait": (),
    "landmarks": (),
    "fit": ("landmarks",),
    "retarget": ("portrait", "landmarks", "fit"),
    "template": ("portrait", "retarget"),
    "inversion": ("portrait", "retarget", "template"),
    "tuning": ("portrait", "retarget", "template", "inversion"),
    "pose": ("portrait", "fit", "retarget", "template", "inversion", "tuning"),
    "render": ("portrait", "retarget", "template", "inversion", "tuning", "pose"),
    "encode": ("portrait", "landmarks", "fit", "retarget", "template", "inversion", "tuning", "render"),
    "measure": ("portrait", "landmarks", "fit", "pose", "render"),
    "edit": ("portrait", "inversion", "tuning"),
    "sample": (),
    "flow": ("sample",),
}
"""Whose data in the store a stage reads, of those that its job has. What nobody needs to read any more may be
dropped."""


class Job(BaseModel):
    """One pair of portrait and driving video, or another :data:`Goal`, with everything that decides what is
    done already."""

    model_config = ConfigDict(frozen=True)

    goal: Goal = "clip"
    store: str
    """URL or path of the store."""
    portrait_path: str = ""
    video_path: str = ""
    portrait_unit: str = ""
    """Names of the units."""
    video_unit: str = ""
    reenactment_unit: str = ""
    """Of the goal itself: the clip, the inverted portrait, or the flow."""
    edited_unit: str = ""
    """Of the edited portrait, in an edit's job."""
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
        """Frames a second."""
        return Fraction(self.frame_rate)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The job's stages, in their order."""
        return GOALS[self.goal]

    @property
    def home(self) -> tuple[Kind, str]:
        """Kind and name of the unit that holds what the job makes, and the job itself."""
        return self.unit_of(self.stages[-1])

    @property
    def name(self) -> str:
        """Of what the job makes, as users see it."""
        return self.home[1]

    def reads(self, stage: Stage) -> tuple[Stage, ...]:
        """Stages of the job whose data a stage reads."""
        return tuple(before for before in READS[stage] if before in self.stages)

    def frame_input(self, stage: Stage) -> Stage | None:
        """The stage that has to have done a frame before this one can; None where none has to."""
        before = FRAME_INPUT.get(stage)
        return before if before in self.stages else None

    def dependents(self, stage: Stage) -> list[Stage]:
        """The stages that read what a stage makes, directly or not, in their order."""
        after = {stage}
        for later in self.stages:
            if after & set(self.reads(later)):
                after.add(later)
        return [later for later in self.stages if later in after - {stage}]

    def total(self, stage: Stage) -> int:
        """How many commit markers the stage has when it is finished."""
        return self.frames if stage in PER_FRAME else 1

    def arrays(self, stage: Stage) -> tuple[str, ...]:
        """Arrays that a stage writes under the job's settings."""
        more: tuple[str, ...] = ()
        if self.settings.tracking.tracker == "deca":
            more = DECA_ARRAYS.get(stage, ())
            if stage == "retarget" and self.settings.template.eyes == "driven":
                more = (EYES,)
        return ARRAYS.get(stage, ()) + more

    def kept(self, stage: Stage) -> tuple[str, ...]:
        """Everything that a stage leaves in its unit: arrays, and files as ``files/NAME``."""
        return (*self.arrays(stage), *(f"files/{name}" for name in FILES.get(stage, ())))

    def unit_of(self, stage: Stage) -> tuple[Kind, str]:
        """Kind and name of the unit that holds the stage's output."""
        kind: Kind = UNIT_KINDS.get(stage, "inverted" if self.goal == "edit" else "reenactment")
        names = {"portrait": self.portrait_unit, "video": self.video_unit, "edited": self.edited_unit}
        return kind, names.get(kind, self.reenactment_unit)

    def recipe(self, stage: Stage) -> dict[str, Any]:
        """What the stage's key is made of."""
        second = "video" if self.goal == "clip" else "labels"
        inputs = self.inputs.get("portrait", ""), self.inputs.get(second, "")
        return make_recipes(*inputs, self.frames, self.settings, self.weights, self.goal)[stage]

    def smaller(self) -> tuple[Job, str] | None:
        """The same job with less memory for each task, and what changed; None if nothing is left to halve."""
        found = smaller(self.settings)
        return None if found is None else (self.model_copy(update={"settings": found[0]}), found[1])


def unit_name(path: str, digest: str) -> str:
    """A readable, unique unit name: the file's stem and the first 8 digits of ``digest``."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(path).stem).strip("-")[:40] or "input"
    return f"{stem}-{digest[:8]}"


def short_hash(*parts: str) -> str:
    """8 hex digits of the parts' SHA-256, for unit names."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def weight_paths(settings: Settings) -> dict[str, Path]:
    """Where the weights should be that the settings give a path for, by what they are for."""
    return {name: path for name, path in weight_sources(settings).items() if isinstance(path, Path)}


def weight_files(settings: Settings) -> dict[str, Path]:
    """Files of weights that a run with these settings reads, by what they are for.

    Raises:
        ValueError: when some are missing; the message lists them.
    """
    missing = [str(path) for path in weight_paths(settings).values() if not path.is_file()]
    if missing:
        raise ValueError(
            f"weights that the profile {settings.profile} needs are missing: {', '.join(missing)}. "
            f"`portrait doctor --profile {settings.profile}` lists what is there"
        )
    return {name: weight_file(settings, name) for name in weight_sources(settings)}


def make_stage_keys(
    portrait_digest: str,
    video_digest: str,
    frames: int,
    settings: Settings,
    weights: Mapping[str, str],
    goal: Goal = "clip",
) -> dict[str, str]:
    """Key of every stage, from its recipe (:func:`make_recipes`)."""
    recipes = make_recipes(portrait_digest, video_digest, frames, settings, weights, goal)
    return {stage: recipe_key(recipe) for stage, recipe in recipes.items()}


def make_recipes(
    portrait_digest: str,
    video_digest: str,
    frames: int,
    settings: Settings,
    weights: Mapping[str, str],
    goal: Goal = "clip",
) -> dict[Stage, dict[str, Any]]:
    """What decides every stage: its inputs, the settings it reads and the weights it uses.

    An input is the content digest of a file or the key of the stage that made it, so a key changes with
    everything before it and with nothing else: not with hosts, times, batch sizes or numbers of workers. What
    a goal has not is empty; in place of a video, edits and flows may have a table of labels.
    """
    landmark = {name: weights[Path(name).stem] for name in LANDMARK_MODELS if Path(name).stem in weights}
    head = {name: weights[name] for name in ("head", *FLAME_MODELS) if name in weights}
    tracking = {name: weights[name] for name in DECA_TRACKING if name in weights} or head
    fitting = {name: weights[name] for name in ("head", "generator", "phi") if name in weights}
    labelling = landmark | {"age_gender": weights["age_gender"]} if "age_gender" in weights else {}
    sources = {"portrait": portrait_digest, "video" if goal == "clip" else "labels": video_digest}
    # stage: (what it reads: sources or earlier stages, sections of the settings, weights)
    recipes: dict[Stage, tuple[list[str], list[str], dict[str, str]]] = {
        "portrait": (
            ["portrait"],
            ["media.portrait_max_side", "tracking", "template.size"],
            landmark | tracking,
        ),
        "landmarks": (["video"], ["tracking.min_face_score"], landmark),
        "fit": (["landmarks"], ["tracking"], tracking),
        "retarget": (["portrait", "fit"], ["template"], head),
        "template": (["portrait", "retarget"], ["template"], head),
        # an edit has no template: it inverts the portrait
        "inversion": (["portrait", "template"], ["generator", "inversion", "seed"], fitting),
        "tuning": (["inversion"], ["generator", "inversion", "tuning", "seed"], fitting),
        "pose": (["tuning", "fit"], ["render", "composite", "tracking"], landmark | tracking),
        "render": (["tuning", "pose"], ["render", "composite"], {}),
        "encode": (["render", "video"], ["output"], {}),
        "measure": (["render"], ["tracking"], landmark | tracking),
        "edit": (["tuning", "labels"], ["edit", "render"], {"flow": weights.get("flow", "")} | labelling),
        "sample": ([], ["generator", "sample", "seed"], fitting | labelling),
        "flow": (["sample", "labels"], ["flow", "seed"], {}),
    }
    known = dict(sources)
    made: dict[Stage, dict[str, Any]] = {}
    for stage in GOALS[goal]:
        reads, sections, used = recipes[stage]
        # The portrait stage has the portrait's own name: it reads the file, later stages read its key.
        inputs = {name: known[name] for name in reads if known.get(name)}
        values = {name: _setting(settings, name) for name in sections}
        if "video" in reads or stage == "flow":
            values["frames"] = frames
        made[stage] = stage_recipe(stage, inputs, values, used)
        known[stage] = recipe_key(made[stage])
    return made


def _setting(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return key_settings(value) if isinstance(value, Section) else value
