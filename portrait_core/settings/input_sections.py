"""Settings of the stages before the generator: media, tracking, template."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from portrait_core.settings.base import DIGESTED, HOW, Count, Fraction, Section, Steps, Weight

_FACES = r"^(largest|[1-9][0-9]{0,2}|like:.+)$"
FaceChoice = Annotated[
    str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value), Field(pattern=_FACES)
]
"""Choice of a person in a picture or a video with several."""
MOMENT = r"^(\d{1,7}f|(\d{1,3}:)?(\d{1,4}:)?\d{1,6}(\.\d{1,6})?)$"
"""Expression of :data:`Moment`."""
RATE = r"^[1-9]\d{0,4}(/[1-9]\d{0,4}|\.\d{1,4})?$"
"""Expression of frames per second."""
Moment = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
    Field(pattern=MOMENT),
]
"""Place in a video: seconds (``12.5``), ``1:02.5``, ``1:00:00``, or a frame counted from 0 (``300f``)."""


class MediaSettings(Section):
    """Reading of the driving video and the portrait."""

    begin: Moment = Field(default="0", json_schema_extra=DIGESTED)
    """Place in the driving video at which the clip begins: seconds (``12.5``), minutes and seconds
    (``1:02.5``), or a frame of the video counted from 0 (``300f``). Other settings count frames from
    here."""
    end: Moment | None = Field(default=None, json_schema_extra=DIGESTED)
    """Place in the driving video before which the clip ends, in the same words; empty is the video's end."""
    rate: Annotated[
        str,
        BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
        Field(pattern=RATE),
    ] = Field(default="25", json_schema_extra=DIGESTED)
    """Frames per second of a driving video that is a folder or a pattern of pictures, such as ``25`` or
    ``30000/1001``; other videos have a rate of their own."""
    max_frames: Count | None = None
    """Number of frames used from ``begin`` on; empty uses all."""
    portrait_max_side: int = Field(default=2048, ge=64)
    """Longer side in pixels to which a larger portrait is scaled down."""
    portrait_part: Literal["auto", "whole"] = "auto"
    """``auto``: where a face is small in a large photograph, the clip shows the part of the photograph
    around it, at most ``portrait_max_side`` pixels long, in which the face is as large as the photograph has
    it, up to 256 pixels; ``whole``: it always shows the whole photograph."""


class TrackingSettings(Section):
    """Landmarks and the fit of the morphable head."""

    tracker: Literal["embedded", "deca"] = "embedded"
    """``embedded``: landmarks and the embedded head. ``deca``: DECA and FLAME for expressions and
    Deep3DFaceRecon for poses, with weights that the user brings; the iterations, weights and smoothing below
    do not apply to it."""
    models: str = Field(default="models", json_schema_extra=DIGESTED)
    """Folder of the landmark models, relative to the data folder."""
    head: str = Field(default="models/embedded_head.safetensors", json_schema_extra=DIGESTED)
    """The morphable head, relative to the data folder."""
    batch: Count = Field(default=16, json_schema_extra=HOW)
    """Frames per batch of landmarks."""
    min_face_score: Fraction = 0.95
    """Score below which a frame's best face does not count. Faces score above 0.99, cats up to 0.87."""
    looks: Annotated[int, Field(ge=1, le=4)] = 4
    """Looks at a face, every second one mirrored, of which its landmarks are the mean; each costs a run of a
    network (5 ms per face), and they err less together."""
    driver_face: FaceChoice = Field(default="largest", json_schema_extra=DIGESTED)
    """Person of the driving video who drives: ``largest`` (and most central, over the whole clip), a number
    as ``portrait check`` shows it, or ``like:IMAGE`` for the one who looks like a picture."""
    portrait_face: FaceChoice = Field(default="largest", json_schema_extra=DIGESTED)
    """Person of the portrait who is animated, in the same words; ``largest`` refuses a portrait in which two
    are about as large."""
    any_face: bool = Field(default=False, json_schema_extra=HOW)
    """Go on with a face that is hardly a human one, such as a dog's or a monkey's."""
    shape_frames: Count = 40
    """Frames, spread over the clip, to which the common shape is fitted."""
    iterations: Count = 12
    """Gauss-Newton iterations per frame."""
    shape_weight: Weight = 1.0
    """Weight of the shape coefficients' distance from the mean head."""
    expression_weight: Weight = 1.0
    """Weight of the expression coefficients' distance from rest."""
    smooth_expression: Weight = 0.3
    """Weight of a frame's expression differing from its neighbours'; 0 fits every frame alone."""
    smooth_pose: Weight = 0.3
    """Weight of a frame's head pose differing from its neighbours'."""
    eye_closure_weight: Weight = 4.0
    """Weight of the eyelid-opening residual, which preserves blinks."""
    gaze_weight: Weight = 1.0
    """Weight of the iris points."""


class TemplateSettings(Section):
    """The expression template: the portrait's texture on the re-posed head."""

    size: int = Field(default=256, ge=64, le=1024)
    """Side of the square face crop and of the output, in pixels."""
    transfer: Literal["relative", "absolute"] = "relative"
    """``relative``: the portrait's visible face changes as the driver's changes from its rest; with DECA, its
    coefficients do. ``absolute``: the driver's coefficients are used unchanged."""
    neutral_frame: Steps | None = None
    """Frame of the driving video, counted from 0, in which the driver's face is at rest; empty estimates the
    rest from the clip. Used by ``transfer=relative``, and for the eyes with DECA."""
    mouth_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of jaw and lips; with DECA, of the jaw alone."""
    eyes_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of the eyelids."""
    brows_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of the brows and the upper face."""
    gaze_gain: Annotated[float, Field(ge=0.0, le=3.0)] = 1.0
    """Strength of the gaze."""
    eyes: Literal["driven", "paper"] = "driven"
    """``driven``: lids and gaze follow the driver. ``paper``: the portrait's eyes stay as they are, because
    DECA models neither."""
    mouth_inside: Literal["driven", "lips"] = "driven"
    """``driven``: an open mouth shows teeth and tongue as the driver's does, by its pixels. ``lips``: as the
    lips' landmarks alone suggest. DECA paints no mouth."""
    feather_px: Annotated[float, Field(ge=0.0)] = 4.0
    """Width of the soft edge between the rendered face and the photograph, in pixels of the crop."""
    supersample: Annotated[int, Field(ge=1, le=4)] = 2
    """Factor by which the render is larger than the crop before it is averaged, for smooth edges."""
    batch: Count = Field(default=8, json_schema_extra=HOW)
    """Frames rendered, written and committed together."""
