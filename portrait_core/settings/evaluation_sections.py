"""Settings of evaluations: methods that are compared, and what is measured of their results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portrait_core.settings.base import HOW, Count, Section, Steps

Estimator = Literal["embedded", "deep3d", "deca"]
"""Network or tracker that reads head poses and expressions: the embedded one, Deep3DFaceRecon, DECA."""
View = tuple[Steps, float, float, float]
"""Frame of the clip, and yaw, pitch and roll in radians of the camera from which its head is seen."""


class BaselineSettings(Section):
    """A method that animates the portrait without optimisation (``portrait evaluate``)."""

    method: Literal["still", "template", "pirenderer", "facevid2vid"] = "still"
    """``still``: the photograph, unmoved. ``template``: the expression template, pasted. ``pirenderer`` and
    ``facevid2vid``: the published networks, whose weights the user brings."""
    eyes: Literal["driven", "first"] = "driven"
    """``first``: the eyes of PIRenderer's expressions stay as in the driver's first frame, which the paper's
    tables call "w/o eyes"."""
    relative: bool = True
    """Face-vid2vid: add the change of the driver's key points since its first frame to the portrait's, rather
    than take over the driver's."""
    batch: Count = Field(default=4, json_schema_extra=HOW)
    """Frames drawn, written and committed together."""


class EvaluationSettings(Section):
    """What is measured of a clip, and how clips become tables (paper sections 4.1 and 4.2)."""

    identity: Literal["shipped", "arcface"] = "shipped"
    """Face-recognition network: ``shipped`` comes with the program, ``arcface`` is the paper's, whose file
    the user brings."""
    features: Literal["efficientnet", "inception"] = "efficientnet"
    """Network whose features the Fréchet distance compares: ``inception`` gives FID, with a file that the
    user brings; ``efficientnet`` comes with the installation, and its distance is not FID."""
    estimators: Annotated[tuple[Estimator, ...], Field(min_length=1)] = ("embedded",)
    """Readers of poses and expressions for APD and AED. The paper takes Deep3DFaceRecon, and its supplement
    DECA too; the user brings the files of both."""
    lpips: tuple[Literal["vgg16", "alexnet"], ...] = ()
    """Networks of LPIPS, which self-reenactment reports beside the distance of the shipped features; the user
    brings their files. Where the inversion reads VGG16, its LPIPS is reported anyway."""
    views: tuple[View, ...] = ()
    """Views whose identity is compared; an evaluation draws two per clip (paper: ID)."""
    truth: bool = False
    """Compare pixels with the driver's frames: for self-reenactment, where the portrait is the driver's first
    frame."""
    realisations: Count = 100
    """Draws of one frame per clip, over which the Fréchet distance is averaged; the paper takes 100."""
    resamples: Count = 1000
    """Bootstrap resamples of the clips, of which intervals are made."""
    batch: Count = Field(default=16, json_schema_extra=HOW)
    """Pictures that a network looks at together."""
