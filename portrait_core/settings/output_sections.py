"""Settings of the clip's pictures: rendering, the composite, the files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from portrait_core.settings.base import HOW, Count, Fraction, Section, Steps, off


class RenderSettings(Section):
    """Rendering of the tuned generator at the driver's head poses."""

    pose_window: Annotated[int, Field(ge=1, le=61)] = 2
    """Number of frames over which a pose is averaged, ending at its own frame; the paper takes 2."""
    pose_transfer: Literal["auto", "relative", "absolute", "none"] = "auto"
    """``absolute``: the driver's head pose. ``relative``: the portrait's pose plus the driver's change.
    ``auto``: absolute, but relative for a portrait that is turned by more than 15 degrees, because the
    photograph does not show its other side. ``none``: the portrait's own pose throughout, which the paper's
    tables call "w/o pose"."""
    motion: Literal["head", "camera"] = "head"
    """``head``: the head turns on its neck before a still body. ``camera``: the camera turns, and with it
    shoulders and background (paper)."""
    travel: Fraction = 1.0
    """Fraction of the driver's translation in its picture that a head on its neck follows, up to a ninth of
    the face crop; 0 only rotates the head."""
    detail: Annotated[Literal["transfer", "off"], BeforeValidator(off)] = "transfer"
    """``transfer``: the photograph's own pixels, and the template's in the face, wherever the portrait's
    camera saw the rendered surface; the generator's pixels elsewhere. ``off``: the generator's pixels
    everywhere (paper)."""
    calibration_frames: Steps = 10
    """Frames that are rendered and tracked to correct the head pose given to the generator, so that the
    tracker reads the same pose from the result as from the driver; 0 takes the driver's pose without
    correction, as the paper does."""
    neural_resolution: int | None = Field(default=None, ge=16, le=1024)
    """Side of the volume-rendered image, in pixels; empty takes the generator's own."""
    samples: Count = 16
    """Uniform samples per ray."""
    importance_samples: Steps = 16
    """Samples per ray drawn from the weights of the uniform ones."""
    max_yaw_deg: Annotated[float, Field(gt=0.0, le=90.0)] = 40.0
    """Largest yaw in degrees, at which larger head turns are held: the generator has not learned the back of
    a head."""
    max_pitch_deg: Annotated[float, Field(gt=0.0, le=90.0)] = 35.0
    """Largest pitch in degrees, for the same reason."""
    max_turn_deg: Annotated[float, Field(gt=0.0, le=180.0)] = 45.0
    """Largest angle in degrees from the portrait's own pose, at which a head that would turn further is held:
    the photograph does not show its other side."""


class CompositeSettings(Section):
    """Composite of frame i's face and the first frame's render."""

    mode: Literal["face", "whole"] = "face"
    """``face``: only the face from frame i (paper). ``whole``: all of frame i's render."""
    feather_px: Annotated[float, Field(ge=0.0)] = 5.0
    """Width of the face mask's soft edge, in pixels."""
    dilate_px: Annotated[float, Field(ge=0.0)] = 2.0
    """Growth of the face mask before the soft edge, in pixels."""
    union_first: bool = True
    """Take frame i wherever it or the first frame has its face, which avoids a double chin."""


class OutputSettings(Section):
    """The clip and the files beside it."""

    frame: Literal["photograph", "crop"] = "photograph"
    """``photograph``: the whole photograph with the animated head in it. ``crop``: the square face crop."""
    size: Literal["auto"] | Annotated[int, Field(ge=64, le=1024)] = "auto"
    """Side of the largest face crop in the output, in pixels; ``auto`` is 1,024. A photograph whose face has
    fewer pixels keeps its own resolution. With ``render.detail=off`` the side is ``template.size``."""
    alpha: bool = False
    """Also write the person with transparency: ``reenactment.mov``, ProRes 4444."""
    frames: bool = Field(default=False, json_schema_extra=HOW)
    """Also write the frames to the folder ``frames`` as PNG files; with ``alpha``, those of the person."""
    crf: Annotated[int, Field(ge=0, le=51)] = 16
    """H.264 quality: 0 is lossless, 23 is usual, larger numbers give smaller files of less quality."""
    side_by_side: bool = True
    """Write driving | template | inversion | result beside the clip."""
    contact_sheet_frames: Annotated[int, Field(ge=2, le=16)] = 8
    """Frames on the contact sheet."""
