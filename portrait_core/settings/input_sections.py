"""Settings of what is read, tracked and drawn before the generator: media, tracking, template."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portrait_core.settings.base import DIGESTED, HOW, Count, Section, Steps, Unit, Weight


class MediaSettings(Section):
    """What is read from the driving video and the portrait."""

    max_frames: Count | None = None
    """Use only the first so many frames of the driving video; empty means all."""
    portrait_max_side: int = Field(default=2048, ge=64)
    """A larger portrait is scaled down so that its longer side has so many pixels."""


class TrackingSettings(Section):
    """Landmarks and the morphable-head fit."""

    tracker: Literal["embedded", "deca"] = "embedded"
    """``embedded``: landmarks and the embedded head. ``deca``: DECA and FLAME for expressions and
    Deep3DFaceRecon for poses, brought by the user; iterations, weights and smoothing below are not its."""
    models: str = Field(default="models", json_schema_extra=DIGESTED)
    """Folder of the landmark models, relative to the data folder."""
    head: str = Field(default="models/embedded_head.safetensors", json_schema_extra=DIGESTED)
    """The morphable head, relative to the data folder."""
    batch: Count = Field(default=16, json_schema_extra=HOW)
    """Frames a landmark batch."""
    min_face_score: Unit = 0.95
    """A frame whose best face scores less has no face. Faces score above 0.99, cats up to 0.87."""
    shape_frames: Count = 40
    """Frames, spread over the clip, that fit the shape they share."""
    iterations: Count = 12
    """Gauss-Newton iterations a frame."""
    shape_weight: Weight = 1.0
    """Pull of the shape coefficients toward the mean head."""
    expression_weight: Weight = 1.0
    """Pull of the expression coefficients toward rest."""
    smooth_expression: Weight = 0.3
    """Pull of a frame's expression toward its neighbours'; 0 fits every frame alone."""
    smooth_pose: Weight = 0.3
    """Pull of a frame's head pose toward its neighbours'."""
    eye_closure_weight: Weight = 4.0
    """Weight of the eyelid-opening residual; it keeps blinks."""
    gaze_weight: Weight = 1.0
    """Weight of the iris points."""


class TemplateSettings(Section):
    """The expression template: the portrait's texture on the re-posed head."""

    size: int = Field(default=256, ge=64, le=1024)
    """Side of the square face crop and of the output, in pixels."""
    transfer: Literal["relative", "absolute"] = "relative"
    """``relative``: what is seen of the portrait's face changes as the driver's does from its rest; with DECA
    its coefficients do. ``absolute``: the driver's coefficients as they are."""
    neutral_frame: Steps | None = None
    """The frame of the driving video, counted from 0, in which the driver's face is at rest; empty finds the
    rest in the clip. For ``transfer=relative``, and for the eyes with DECA."""
    mouth_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of jaw and lips; with DECA of the jaw. Eyes, brows and gaze are the embedded head's."""
    eyes_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of the eyelids."""
    brows_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of the brows and the upper face."""
    gaze_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of the gaze."""
    eyes: Literal["driven", "paper"] = "driven"
    """``driven``: lids and gaze follow the driver. ``paper``: the portrait's eyes stay as they are, as DECA
    knows neither."""
    feather_px: Annotated[float, Field(ge=0.0)] = 4.0
    """Width of the soft edge between the rendered face and the photograph, in pixels of the crop."""
    supersample: Annotated[int, Field(ge=1, le=4)] = 2
    """Render at so many times the size and average: smooth edges."""
    batch: Count = Field(default=8, json_schema_extra=HOW)
    """Frames rendered, written and committed together."""
