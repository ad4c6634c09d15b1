"""Settings of attribute edits: the edit, samples, the training of a flow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portrait_core.settings.base import DIGESTED, HOW, Count, Section, Steps, Unit, Weight


class EditSettings(Section):
    """Editing attributes of the portrait before it is animated (paper section 3.4, edit-then-fit)."""

    attributes: tuple[str, ...] = ()
    """What to change, for example ``[age=+20, beard=0.8, glasses=on]``; one after the other. With a sign a
    value is added to the portrait's own."""
    strength: Annotated[float, Field(ge=-2.0, le=3.0)] = 1.0
    """Share of the way that every edit goes: 0 none, more than 1 beyond."""
    flow: str | None = Field(default="models/embedded_flow.safetensors", json_schema_extra=DIGESTED)
    """The flow that knows the attributes, of this generator: a file, relative to the data folder or absolute
    (``portrait train-styleflow`` makes one), or ``styleflow``, the published one, for a 2D generator."""
    labels: str = "latent"
    """Where the portrait's own attributes come from: ``latent``, read from its latent by what the flow's
    training learned; ``photograph``, a local model; or a CSV file with a row for the portrait."""
    first_steps: Steps = 20
    """Steps that invert the portrait, in place of ``inversion.first_steps``; the paper takes 500. With the
    embedded generator they lead far from the latents that its people have, where edits hardly show; the
    tracker's start and tuning do better."""
    tuning_steps: Steps = 100
    """Steps that tune the generator to it, in place of ``tuning.steps``; the paper takes 100."""
    locality: Weight = 0.1
    """Weight of locality regularisation in that tuning, in place of ``tuning.locality``: the edited latent
    lies beside the one that is tuned on. The paper has it and does not state the weight; 0.1 is Pivotal
    Tuning's."""
    strip: Annotated[int, Field(ge=2, le=9)] = 5
    """Pictures of the strip that shows the edit, from none of it to all."""


class SampleSettings(Section):
    """Samples that a flow is trained on (paper section 4.2)."""

    truncation: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """How near to the average they lie; the paper takes 0.7."""
    labels: Literal["scene", "photograph"] = "scene"
    """``scene``: the generator's z holds what its pictures show, which is exact; ``photograph``: a local
    model labels the pictures, weakly."""
    neural_resolution: int | None = Field(default=64, ge=16, le=512)
    """Side of the samples' volume rendering; empty takes the generator's own. Where labels do not come from
    pictures these are for people to look at."""
    batch: Count = Field(default=8, json_schema_extra=HOW)
    """Samples rendered, labelled, written and committed together."""


class StyleFlowTrainingSettings(Section):
    """Training of the flow between latents and attributes."""

    labels: str | None = Field(default=None, json_schema_extra=DIGESTED)
    """A CSV file with labels of your own, a row a sample (``picture`` is its number) and a column an
    attribute: they come before ``sample.labels``."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 128)
    """Widths of the hidden layers; published are five of 512."""
    epochs: Count = 20
    """Passes over the samples; the paper takes 20."""
    batch: Count = 64
    """Samples a step; the paper takes 5."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-3
    """Adam's."""
    decay_fraction: Unit = 0.0
    """The rate falls to nothing over this last share of the steps."""
    jitter: Unit = 0.1
    """Noise added to w, as a share of its deviation: a generator whose z is narrower than its w leaves
    directions empty, in which the flow grows stiff."""
    solver: Literal["dopri5", "bosh3", "rk4", "midpoint"] = "rk4"
    """How the flow's equation is solved in training: ``dopri5`` (published) and ``bosh3`` choose their steps,
    ``rk4`` and ``midpoint`` take ``solver_steps``."""
    solver_steps: Count = 2
    """Equal steps of those."""
    held_out: Count = 500
    """Samples that teach nothing: the flow's density on them is the curve that counts, and how well labels
    are read from latents is measured on them."""
    sheet: Annotated[int, Field(ge=1, le=16)] = 4
    """Samples on the contact sheet of edits."""

    def steps(self, samples: int) -> int:
        """Steps of the training on so many samples, the held-out ones among them."""
        return self.epochs * max(1, (samples - self.held_out) // self.batch)
