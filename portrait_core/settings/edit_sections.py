"""Settings of attribute edits: the edit itself, samples, and the training of a StyleFlow network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portrait_core.settings.base import DIGESTED, HOW, Count, Fraction, Section, Steps, Weight


class EditSettings(Section):
    """Editing attributes of the portrait before it is animated (paper section 3.4, edit-then-fit)."""

    attributes: tuple[str, ...] = ()
    """Changes of attributes, for example ``[age=+20, beard=0.8, glasses=on]``, applied one after the other. A
    value with a sign is added to the portrait's own."""
    strength: Annotated[float, Field(ge=-2.0, le=3.0)] = 1.0
    """Fraction of each edit that is applied: 0 is none, more than 1 extrapolates."""
    flow: str | None = Field(default="models/embedded_flow.safetensors", json_schema_extra=DIGESTED)
    """StyleFlow network that knows the attributes and belongs to this generator: a file, relative to the data
    folder or absolute (``portrait train-styleflow`` makes one), or ``styleflow``, the published network for a
    2D generator."""
    labels: str = "latent"
    """Source of the portrait's own attributes: ``latent`` reads them from its latent by a regression learned
    with the network; ``photograph`` uses a local model; a CSV file holds a row for the portrait."""
    first_steps: Steps = 20
    """Optimisation steps that invert the portrait, in place of ``inversion.first_steps``; the paper takes
    500. With the embedded generator many steps leave the latents of its people, and edits then hardly show;
    the tracker's start and tuning give better edits."""
    tuning_steps: Steps = 100
    """Optimisation steps that tune the generator to the portrait, in place of ``tuning.steps``; the paper
    takes 100."""
    locality: Weight = 0.1
    """Weight of locality regularisation in that tuning, in place of ``tuning.locality``, because the edited
    latent lies beside the tuned one. The paper uses the term without stating its weight; 0.1 is Pivotal
    Tuning's."""
    strip: Annotated[int, Field(ge=2, le=9)] = 5
    """Pictures in the strip that shows the edit, from no edit to the whole edit."""


class SampleSettings(Section):
    """Samples that a StyleFlow network is trained on (paper section 4.2)."""

    truncation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """Truncation of the samples toward the mean latent; the paper takes 0.7."""
    labels: Literal["scene", "photograph"] = "scene"
    """``scene``: labels are read from the generator's z, which holds the scene exactly. ``photograph``: a
    local model labels the pictures, with weak accuracy."""
    neural_resolution: int | None = Field(default=64, ge=16, le=512)
    """Side of the samples' volume rendering, in pixels; empty takes the generator's own. Where labels do not
    come from pictures, the pictures are only for people."""
    batch: Count = Field(default=8, json_schema_extra=HOW)
    """Samples rendered, labelled, written and committed together."""


class StyleFlowTrainingSettings(Section):
    """Training of the StyleFlow network between latents and attributes."""

    labels: str | None = Field(default=None, json_schema_extra=DIGESTED)
    """CSV file with labels of your own, one row per sample (column ``picture`` is its number) and one column
    per attribute; they take precedence over ``sample.labels``."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 128)
    """Widths of the hidden layers; the published network has five of 512."""
    epochs: Count = 20
    """Passes over the samples; the paper takes 20."""
    batch: Count = 64
    """Samples per step; the paper takes 5."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Adam's peak learning rate."""
    decay_fraction: Fraction = 0.0
    """Last fraction of the steps, over which the rate falls to 0."""
    jitter: Fraction = 0.1
    """Noise added to w, as a fraction of its standard deviation. A generator whose z has fewer dimensions
    than its w leaves directions empty, in which the equation would become stiff."""
    solver: Literal["dopri5", "bosh3", "rk4", "midpoint"] = "rk4"
    """Solver of the network's differential equation in training: ``dopri5`` (published) and ``bosh3`` choose
    their step sizes, ``rk4`` and ``midpoint`` take ``solver_steps`` equal steps."""
    solver_steps: Count = 2
    """Equal steps of ``rk4`` and ``midpoint``."""
    held_out: Count = 500
    """Samples that are not trained on: the validation curve is the network's density on them, and the
    accuracy of labels read from latents is measured on them."""
    sheet: Annotated[int, Field(ge=1, le=16)] = 4
    """Samples on the contact sheet of edits."""

    def steps(self, samples: int) -> int:
        """Return the number of training steps on ``samples`` samples, held-out ones included."""
        return self.epochs * max(1, (samples - self.held_out) // self.batch)
