"""Settings of the evaluation of multi-view consistency: people of a generator, each from two sides."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portrait_core.settings.base import DIGESTED, HOW, Count, Fraction, Section


class ConsistencySettings(Section):
    """Multi-view consistency of the identity of random people, with and without edits (paper, table 3)."""

    gan: Literal["3d", "2d"] = Field(default="3d", json_schema_extra=DIGESTED)
    """Row of the table: ``3d`` draws people of ``generator.weights``, edits them with ``edit.flow`` and moves
    the camera; ``2d`` takes ``generator_2d`` and ``flow_2d``, which moves the pose too."""
    generator_2d: str = Field(default="models/embedded_2d.safetensors", json_schema_extra=DIGESTED)
    """The 2D generator: a file, relative to the data folder or absolute, or the name of a model
    (``stylegan2``) in ``portrait models list``."""
    flow_2d: str | None = Field(default="models/embedded_2d_flow.safetensors", json_schema_extra=DIGESTED)
    """StyleFlow network of the 2D generator, which knows yaw and pitch: a file, or ``styleflow``, the
    published network for ``stylegan2``."""
    subjects: Count = 128
    """People; the paper draws 128."""
    edit: Literal["", "age", "facial_hair", "gender", "glasses", "hair"] = ""
    """Column of the table: the edit of every person; empty makes none (pose only)."""
    amount: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Change of the edited attribute, as a fraction of its range, from the person's own value toward the end
    that is further away, where the change stops. The paper does not state its edits' strength."""
    labels: str = "latent"
    """Source of people's own attributes: ``latent`` reads them from the latent by the regression learned with
    the StyleFlow network. ``photograph`` reads age, gender, smile and pose from a frontal picture by local
    models, and takes a typical person's values for the rest, as published networks need, which have no
    regression. A CSV file holds values that precede those, one row per person (column ``picture`` is the
    number)."""
    yaw_deg: Annotated[float, Field(ge=0.0, le=90.0)] = 30.0
    """Largest yaw of a view to either side, in degrees; the paper takes 30."""
    pitch_deg: Annotated[float, Field(ge=0.0, le=90.0)] = 20.0
    """Largest pitch of a view up and down, in degrees; the paper takes 20."""
    truncation: Fraction = 0.7
    """Truncation of people toward the mean latent; the paper takes 0.7 for the networks' samples and does not
    say what it takes here."""
    neural_resolution: int | None = Field(default=None, ge=16, le=512)
    """Side of the views' volume rendering, in pixels; empty takes the generator's own."""
    size: Annotated[int, Field(ge=32, le=1024)] = 256
    """Side of the views that are kept and compared, in pixels, to which pictures are scaled."""
    detail: int | None = Field(default=186, ge=16, le=1024)
    """Side in pixels to which pictures of the 3D generator are shrunk before they are scaled to ``size``, so
    that they show no more detail than those of the 2D generator, whose 128 pixels cover 0.69 of this side;
    empty shrinks nothing."""
    batch: Count = Field(default=4, json_schema_extra=HOW)
    """People written and committed together."""
