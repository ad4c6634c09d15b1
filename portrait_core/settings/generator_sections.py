"""Settings of the generator: its choice, inversion, tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from portrait_core.settings.base import DIGESTED, HOW, Beta, Count, Fraction, Section, Seed, Steps, Weight


class GeneratorChoice(Section):
    """The generator, and its sampling while it is being fitted."""

    weights: str = Field(default="models/embedded_generator.safetensors", json_schema_extra=DIGESTED)
    """The generator: a file, relative to the data folder or absolute, or the name of a model (``eg3d``) in
    ``portrait models list``. A published network file (.pkl) is converted once."""
    neural_resolution: int | None = Field(default=None, ge=16, le=512)
    """Side of the volume-rendered image before super-resolution, in pixels; empty takes the generator's
    own."""
    samples: Count = 16
    """Uniform samples per ray."""
    importance_samples: Steps = 10
    """Samples per ray drawn from the weights of the uniform ones."""
    coarse_gradient: bool = False
    """Differentiate through the uniform samples too, as the published training does; a third more
    expensive."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Precision of convolutions and matrix products: ``bf16`` halves their memory on a GPU (the published
    code uses float16 there), ``tf32`` is NVIDIA's fast float32, ``fp32`` is exact, and ``auto`` is ``tf32``
    on a GPU and ``fp32`` on a CPU. Volume rendering and weights stay float32."""
    ray_chunk: Count | None = Field(default=None, json_schema_extra=HOW)
    """Rays rendered at a time; empty renders all rays of an image. With gradients, chunks double the
    arithmetic."""


class InversionSettings(Section):
    """Optimisation of the latent of every frame with the generator frozen (paper, equation 2)."""

    phi: Literal["efficientnet", "vgg16"] = "efficientnet"
    """Network of the perceptual features: ``efficientnet`` comes with the installation, ``vgg16`` is the
    paper's."""
    phi_weights: str | None = Field(default=None, json_schema_extra=DIGESTED)
    """Path of ``vgg16-397923af.pth``, relative to the data folder, for ``phi=vgg16``; empty takes the file of
    the models folder."""
    first_steps: Steps = 20
    """Adam steps on the first frame; the paper takes 2000 from the mean latent."""
    steps: Steps = 0
    """Adam steps on every later frame; the paper takes 100; 0 keeps the tracker's latents unchanged."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Adam's peak learning rate, in ``step_unit``."""
    step_unit: Literal["deviation", "w"] = "deviation"
    """Unit of the latent's steps: ``deviation`` is the standard deviation of each of its dimensions; ``w`` is
    the unscaled latent, as in Pivotal Tuning."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Adam's decay rates of its two moments; Pivotal Tuning takes 0.9 and 0.999."""
    warmup_fraction: Fraction = 0.2
    """First fraction of the steps, over which the rate rises linearly from 0."""
    decay_fraction: Fraction = 0.35
    """Last fraction of the steps, over which the rate falls to 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of that fall."""
    space: Literal["w", "w+"] = "w"
    """``w``: one vector for all layers of the generator, as the paper writes G(w); ``w+``: one vector per
    layer, which fits more closely and leaves the generator's distribution. Edits use the same space."""
    w_noise: Weight = 0.0
    """Noise on w in the first frame's steps, relative to the root mean square distance of w from its mean; it
    falls to 0 over three quarters of the steps. Pivotal Tuning takes 0.05; 0 is off."""
    noise_maps: bool = False
    """Optimise the generator's noise maps together with the first frame's w, and discard them afterwards, as
    Pivotal Tuning does; the paper optimises w alone."""
    init: Literal["tracker", "mean"] = "tracker"
    """Start of the first frame: the latent of the tracker's coefficients, or the mean latent."""
    warm_start: bool = True
    """Start every later frame from the frame before it."""
    mouth: Literal["template", "render"] = "template"
    """Source of the mouth interior in the tuning target: the template, or the inversion's render (paper)."""
    perceptual_weight: Weight = 0.5
    """Weight of the distance in Φ's feature space."""
    l1_weight: Weight = 1.0
    """Weight of the absolute colour difference."""
    l2_weight: Weight = 0.0
    """Weight of the squared colour difference."""
    outside_weight: Fraction = 0.25
    """Weight outside the face on the first frame, which fits hair, clothes and background; the paper takes
    0."""
    detail_weight: Weight = 3.0
    """Weight added on eyes, brows and lips; the paper takes 0."""
    prior_weight: Weight = 0.002
    """Weight of the latent's squared distance from its start, in ``step_unit``; 0 is off."""
    phi_side: int | None = Field(default=None, ge=32, le=1024)
    """Side in pixels to which larger pictures are shrunk by area before Φ compares them; Pivotal Tuning's
    inversion takes 256; empty compares them at full size."""
    patch_share: Annotated[float, Field(gt=0.1, le=1.0)] = 2 / 3
    """Side of the rendered patches relative to the image's: at two thirds the face fits, with less than half
    the rays; the paper renders the whole image."""
    seed: Seed = 0
    """Seed of every random draw."""


class TuningSettings(Section):
    """Fine-tuning of one generator on all frames with the latents fixed (paper, equations 3 and 4)."""

    steps: Steps = 160
    """Optimisation steps over the clip; the paper takes 10,000."""
    batch: Count = 2
    """Frames per step."""
    rare_share: Fraction = 0.6
    """Fraction of the draws that favours frames with rare expressions of the clip (blinks, wide mouths); 0
    draws all frames equally often."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 4e-3
    """Adam's peak learning rate."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Adam's decay rates of its two moments; Pivotal Tuning takes 0.9 and 0.999."""
    fast_multiplier: Annotated[float, Field(gt=0.0, le=100.0)] = 4.0
    """Learning-rate factor of learned constants and base planes."""
    warmup_steps: Steps = 5
    """Steps of linear warm-up."""
    decay_fraction: Fraction = 0.4
    """Last fraction of the steps, over which the rate falls linearly to 0."""
    freeze_mapping: bool = True
    """Keep the weights of the mapping network fixed."""
    perceptual: Literal["phi", "lpips"] = "phi"
    """The perceptual loss: Φ of the inversion, or LPIPS on VGG16 (paper)."""
    lpips_weight: Weight = 0.5
    """Weight of the perceptual loss."""
    l1_weight: Weight = 1.0
    """Weight of the absolute colour difference."""
    l2_weight: Weight = 0.0
    """Weight of the squared colour difference."""
    face_weight: Weight = 1.0
    """Pixel weight on the face."""
    outside_weight: Weight = 0.7
    """Pixel weight outside the face."""
    detail_weight: Weight = 8.0
    """Pixel weight added on mouth, eyes and brows."""
    uncovered_weight: Fraction = 0.0
    """Fraction of the weight that stays on the portrait's face where the template no longer covers it (under
    a chin that moved up): 0 lets the generator fill the area, 1 keeps the photograph, including its chin."""
    depth_anchor: Weight = 1.0
    """Weight of the difference between the rendered depth and the fitted head's; 0 is off."""
    novel_view: Weight = 1.0
    """Weight of the colour difference between a random view and the re-projected frame; 0 is off."""
    novel_view_rays: Count = 512
    """Rays per step for the novel view."""
    background: Weight = 0.3
    """Weight of the term that keeps the space beside and behind the head empty; 0 is off."""
    locality: Weight = 0.0
    """Weight of locality regularisation, which compares renders of latents near the clip's, from random
    cameras, with the untuned generator's; 0 is off."""
    locality_alpha: Annotated[float, Field(gt=0.0)] = 30.0
    """Distance of those latents from the clip's, per row; Pivotal Tuning takes 30 for one vector of 512
    dimensions."""
    locality_every: Count = 4
    """Interval in steps at which that term is included; Pivotal Tuning includes it in every step."""
    locality_patch: int = Field(default=48, ge=8, le=512)
    """Side of the patches of that term, in rays; Pivotal Tuning compares whole images."""
    patch: int = Field(default=64, ge=8, le=512)
    """Side of the patches of a step, in rays."""
    seed: Seed = 0
    """Seed of every random draw."""
