"""Settings of the clip's pictures: rendering, the composite, the files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from portrait_core.settings.base import HOW, Count, Section, Steps, Unit, off


class RenderSettings(Section):
    """Rendering the tuned generator at the driver's head poses."""

    pose_window: Annotated[int, Field(ge=1, le=61)] = 2
    """Frames that a pose is averaged over, ending at its frame; the paper takes 2."""
    pose_transfer: Literal["auto", "relative", "absolute", "none"] = "auto"
    """``absolute``: the driver's head pose. ``relative``: the portrait's pose plus the driver's change.
    ``auto``: absolute, but relative for a portrait that is turned by more than 15 degrees, of which one side
    was never seen. ``none``: the portrait's own pose throughout, which the paper's tables call "w/o pose"."""
    motion: Literal["head", "camera"] = "head"
    """``head``: the head turns on its neck before a still body. ``camera``: the camera turns, and with it
    shoulders and background (paper)."""
    travel: Unit = 1.0
    """Share of the driver's travel through its picture that a head on its neck takes along, up to a ninth of
    the face crop; 0: the head turns where it is."""
    detail: Annotated[Literal["transfer", "off"], BeforeValidator(off)] = "transfer"
    """``transfer``: the photograph's own pixels, and the template's in the face, wherever the portrait's
    camera saw what is shown; the generator's elsewhere. ``off``: the generator's everywhere (paper)."""
    calibration_frames: Steps = 10
    """Frames that are rendered and tracked to correct the head pose asked of the generator, so that the
    result is read as the driver is; 0 asks for the driver's pose as it is, as the paper does."""
    neural_resolution: int | None = Field(default=None, ge=16, le=1024)
    """Side of the volume-rendered image; empty takes the generator's."""
    samples: Count = 16
    """Uniform samples a ray."""
    importance_samples: Steps = 16
    """Samples a ray drawn from the first ones' weights."""
    max_yaw_deg: Annotated[float, Field(gt=0.0, le=90.0)] = 40.0
    """Larger head turns are held at this yaw: the generator has not seen the back of a head."""
    max_pitch_deg: Annotated[float, Field(gt=0.0, le=90.0)] = 35.0
    """The same for pitch."""
    max_turn_deg: Annotated[float, Field(gt=0.0, le=180.0)] = 45.0
    """A head that would turn further from the portrait's own pose is held there: the photograph has not seen
    its other side."""


class CompositeSettings(Section):
    """Laying frame i's face on the first frame's render."""

    mode: Literal["face", "whole"] = "face"
    """``face``: only the face from frame i (paper). ``whole``: frame i's render as it is."""
    feather_px: Annotated[float, Field(ge=0.0)] = 5.0
    """Soft edge of the face mask, in pixels."""
    dilate_px: Annotated[float, Field(ge=0.0)] = 2.0
    """Growth of the face mask before the soft edge, in pixels."""
    union_first: bool = True
    """Take frame i wherever it or the first frame has its face: no double chin."""


class OutputSettings(Section):
    """The clip and what is written beside it."""

    frame: Literal["photograph", "crop"] = "photograph"
    """``photograph``: the whole photograph with the animated head in it. ``crop``: the square face crop."""
    size: Literal["auto"] | Annotated[int, Field(ge=64, le=1024)] = "auto"
    """Side of the largest face crop in the output, in pixels; ``auto`` is 1,024. A photograph whose face has
    fewer pixels keeps its own. With ``render.detail=off`` it is ``template.size``."""
    alpha: bool = False
    """Write the person with transparency too: ``reenactment.mov``, ProRes 4444."""
    frames: bool = Field(default=False, json_schema_extra=HOW)
    """Write the frames too, to the folder ``frames``, as PNG files; with ``alpha`` the person's."""
    crf: Annotated[int, Field(ge=0, le=51)] = 16
    """H.264 quality: 0 is lossless, 23 the usual, larger is smaller and worse."""
    side_by_side: bool = True
    """Write driving | template | inversion | result beside the clip."""
    contact_sheet_frames: Annotated[int, Field(ge=2, le=16)] = 8
    """Frames on the contact sheet."""
