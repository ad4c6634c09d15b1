"""Settings of every stage, as frozen models that check themselves.

A profile (``deployments/profiles/NAME.yaml``) fixes every setting; ``section.field=value`` strings change
single ones. Fields marked ``how`` steer how the work is done (batch sizes, checkpoints), not what comes out:
:func:`key_settings` leaves them out of a stage's key, so changing them never throws finished work away.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from portrait_core.settings.cluster_options import refuse_unknown_options
from portrait_core.settings.profiles import explain, read_values, refuse_unknown

HOW: dict[str, JsonValue] = {"how": True}
"""``json_schema_extra`` of fields that do not change a result."""
DIGESTED: dict[str, JsonValue] = {"digested": True}
"""The same of paths whose files' digests are in the keys already: where a file lies changes nothing."""

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


def _off(value: object) -> object:
    """YAML reads a bare ``off`` as false."""
    return "off" if value is False else value


class Section(BaseModel):
    """Base of every settings section: frozen, unknown fields refused, docstrings are the descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=False
    )


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


class GeneratorChoice(Section):
    """Which generator, and how finely it renders while it is being fitted."""

    weights: str = Field(default="models/embedded_generator.safetensors", json_schema_extra=DIGESTED)
    """The generator: a file, relative to the data folder or absolute, or a model's name (``eg3d``) that
    ``portrait models list`` knows. A network file as published (.pkl) is converted once."""
    neural_resolution: int | None = Field(default=None, ge=16, le=512)
    """Side of the volume-rendered image before super-resolution; empty takes the generator's own."""
    samples: Count = 16
    """Uniform samples a ray."""
    importance_samples: Steps = 10
    """Samples a ray drawn from the first ones' weights."""
    coarse_gradient: bool = False
    """Differentiate through the uniform samples too: a third dearer, and what the published training does."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Precision of convolutions and matrix products: ``bf16`` halves their memory on a GPU (the published
    code takes float16 there), ``tf32`` is NVIDIA's quick float32, ``fp32`` is exact, and ``auto`` is ``tf32``
    on a GPU and ``fp32`` on a CPU. Volume rendering and weights stay float32."""
    ray_chunk: Count | None = Field(default=None, json_schema_extra=HOW)
    """Rays rendered at a time, where gradients are wanted at twice the arithmetic; empty: all of an image."""


class InversionSettings(Section):
    """Finding the latent of every frame with the generator frozen (paper, equation 2)."""

    phi: Literal["efficientnet", "vgg16"] = "efficientnet"
    """Perceptual features: ``efficientnet`` comes with the installation, ``vgg16`` is the paper's."""
    phi_weights: str | None = Field(default=None, json_schema_extra=DIGESTED)
    """Path of ``vgg16-397923af.pth``, relative to the data folder, for ``phi=vgg16``; empty takes the models
    folder's."""
    first_steps: Steps = 20
    """Adam steps on the first frame; the paper takes 2000 from the mean latent."""
    steps: Steps = 0
    """Adam steps on every later frame; the paper takes 100; 0 takes the tracker's latents as they are."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Adam's peak learning rate, in ``step_unit``."""
    step_unit: Literal["deviation", "w"] = "deviation"
    """Unit of the latent's steps: ``deviation``, the standard deviation of each of its dimensions, or ``w``,
    its own numbers, as Pivotal Tuning steps."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Adam's decay rates of its two means; Pivotal Tuning has 0.9 and 0.999."""
    warmup_fraction: Unit = 0.2
    """First share of the steps, over which the rate rises linearly from 0."""
    decay_fraction: Unit = 0.35
    """Last share of the steps, over which the rate falls to 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """Course of that fall."""
    space: Literal["w", "w+"] = "w"
    """``w``: one vector for all layers of the generator, as the paper writes G(w); ``w+``: one vector per
    layer, which fits closer and leaves the generator's distribution. Edits follow."""
    w_noise: Weight = 0.0
    """Noise on w in the first frame's steps, over the root mean square distance of w from its mean; it falls
    to 0 over three quarters of the steps. Pivotal Tuning has 0.05; 0 is off."""
    noise_maps: bool = False
    """Optimise the generator's noise maps beside the first frame's w, and forget them afterwards, as Pivotal
    Tuning does; the paper optimises w alone."""
    init: Literal["tracker", "mean"] = "tracker"
    """Start of the first frame: the latent of the tracker's coefficients, or the mean latent."""
    warm_start: bool = True
    """Start every later frame from the frame before it."""
    mouth: Literal["template", "render"] = "template"
    """Where the tuning target takes the mouth's inside: the template, or the inversion's render (paper)."""
    perceptual_weight: Weight = 0.5
    """Weight of the distance in Φ's feature space."""
    l1_weight: Weight = 1.0
    """Weight of the absolute colour difference."""
    l2_weight: Weight = 0.0
    """Weight of the squared colour difference."""
    outside_weight: Unit = 0.25
    """Weight outside the face on the first frame, which finds hair, clothes and wall; the paper has 0."""
    detail_weight: Weight = 3.0
    """Weight added on eyes, brows and lips; the paper has 0."""
    prior_weight: Weight = 0.002
    """Pull of the latent toward its start, per squared ``step_unit``; 0 is off."""
    phi_side: int | None = Field(default=None, ge=32, le=1024)
    """Side in pixels to which larger pictures are shrunk by area before Φ compares them; Pivotal Tuning's
    inversion has 256; empty compares them as they are."""
    patch_share: Annotated[float, Field(gt=0.1, le=1.0)] = 2 / 3
    """Side of the rendered patches over the image's: at two thirds the face fits, at less than half the rays;
    the paper renders the whole image."""
    seed: Seed = 0
    """Seed of every random draw."""


class TuningSettings(Section):
    """Fine-tuning one generator on all frames with the latents held (paper, equations 3 and 4)."""

    steps: Steps = 160
    """Optimisation steps over the clip; the paper takes 10,000."""
    batch: Count = 2
    """Frames a step."""
    rare_share: Unit = 0.6
    """Share of the draws that goes to frames by how seldom the clip shows what they show: blinks and wide
    mouths; 0 draws all frames equally often."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 4e-3
    """Adam's peak learning rate."""
    adam_betas: tuple[Beta, Beta] = (0.9, 0.99)
    """Adam's decay rates of its two means; Pivotal Tuning has 0.9 and 0.999."""
    fast_multiplier: Annotated[float, Field(gt=0.0, le=100.0)] = 4.0
    """Learning-rate factor of learned constants and base planes."""
    warmup_steps: Steps = 5
    """Steps of linear warm-up."""
    decay_fraction: Unit = 0.4
    """Last part of the steps, over which the rate falls linearly to 0."""
    freeze_mapping: bool = True
    """Leave the mapping network as it is."""
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
    uncovered_weight: Unit = 0.0
    """Share of the weight that is left to the portrait's face where the template leaves it bare (under a chin
    that moved up): 0 lets the generator paint there, 1 keeps the photograph, second chin included."""
    depth_anchor: Weight = 1.0
    """Weight of the rendered depth against the fitted head; 0 is off."""
    novel_view: Weight = 1.0
    """Weight of the colours at a random view against the re-projected frame; 0 is off."""
    novel_view_rays: Count = 512
    """Rays a step for the novel view."""
    background: Weight = 0.3
    """Weight of the term that keeps space beside and behind the head empty; 0 is off."""
    locality: Weight = 0.0
    """Weight of locality regularisation: renders of latents near the clip's, from random cameras, against the
    untuned generator's; 0 is off."""
    locality_alpha: Annotated[float, Field(gt=0.0)] = 30.0
    """Distance of those latents from the clip's, per row; 30 is Pivotal Tuning's, for one vector of 512
    dimensions."""
    locality_every: Count = 4
    """Only every so many steps bear that term; Pivotal Tuning has it in every step."""
    locality_patch: int = Field(default=48, ge=8, le=512)
    """Side of its patches, in rays; Pivotal Tuning compares whole images."""
    patch: int = Field(default=64, ge=8, le=512)
    """Side of the patches of a step, in rays."""
    seed: Seed = 0
    """Seed of every random draw."""


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
    detail: Annotated[Literal["transfer", "off"], BeforeValidator(_off)] = "transfer"
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


class FlowSettings(Section):
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


class RunnerSettings(Section):
    """Where tasks run and how large they are. None of it changes a result."""

    kind: Literal["threads", "local_cluster", "local_gpus", "address", "slurm", "kubernetes"] = "threads"
    """``threads``: this process; ``local_cluster``: Dask workers here; ``local_gpus``: one a GPU here;
    ``address``: a Dask cluster that is there; ``slurm``, ``kubernetes``: workers that those start."""
    address: str | None = None
    """The Dask scheduler, for example ``tcp://host:8786``; for ``kind=address``."""
    cluster: dict[str, JsonValue] = {}
    """Options of the cluster's own class, for example ``{queue: gpu, walltime: "24:00:00"}`` of
    dask-jobqueue's SLURMCluster; which are taken stands in :mod:`portrait_core.settings.cluster_options`."""
    storage_options: dict[str, JsonValue] = {}
    """Options of the store's file system, such as ``endpoint_url`` or credentials; kept in no store. The
    environment and the machine's own configuration are read without it."""
    pack: bool = True
    """Put the arrays of a finished clip into one object each: about 60 objects instead of 28 per frame."""
    clips: Steps = 0
    """Clips of a dataset at work at once; 0 means two a worker: the inversion is a chain, so that many clips
    keep a GPU busy where one cannot."""
    workers: Steps = 0
    """Tasks at once; 0 means one a CPU core that this process may use (one a GPU where there are GPUs)."""
    threads_per_worker: Count = 1
    """CPU threads of each task in a fan-out; a stage of one task uses all workers' threads."""
    compile: bool = False
    """Compile the generator on first use (a minute or so in each process); its numbers stay equal to
    rounding. Worth trying on a GPU with long clips."""
    cuda_graphs: bool = False
    """Capture optimisation steps on a GPU as CUDA graphs, which start all kernels of a step by one call. The
    numbers are those of plain steps; not measured on a card yet."""
    checkpoint_s: Annotated[float, Field(ge=0.0)] = 300.0
    """Seconds between two checkpoints of a long optimisation; a thread writes them."""
    target_memory_mib: Count | None = None
    """Memory that tuning may keep of its frames and their features on its device, in MiB; empty is a quarter
    of a card's memory, or 1 GiB on a CPU. Frames that do not fit are loaded again when they are drawn."""
    frames_per_task: Count = 24
    """Frames a task: a task should last about ten seconds or more."""
    prefect: Literal["auto", "always", "never"] = "auto"
    """``auto``: a Prefect flow run when a server answers at PREFECT_API_URL; ``always``: start Prefect's
    temporary server if there is none (20 s of processor time); ``never``: without Prefect."""
    retries: Steps = 5
    """Retries of a task whose failure is transient (input or output, a broken connection)."""
    retry_delay_s: Annotated[float, Field(ge=0.0)] = 2.0
    """Wait before the first retry; doubled each time."""
    stall_s: Annotated[float, Field(ge=0.0)] = 3600.0
    """A task that commits no frame and no step for so many seconds is taken for hung: its worker is ended and
    the work done again; in threads the run ends. 0 waits for ever."""
    grace_s: Annotated[float, Field(ge=0.0)] = 20.0
    """After Ctrl-C or SIGTERM: time for the frames and steps at work to reach a point that can be kept."""
    lease_s: Annotated[float, Field(gt=0.0)] = 30.0
    """A run on another host that has said nothing for so long is taken for dead, and its work taken over."""
    input_cache_gb: Annotated[float, Field(ge=0.0)] = 20.0
    """Copies of portraits and videos that lie elsewhere are kept on this machine up to so many gigabytes
    (10^9 bytes); those used within the last hour stay even above it."""

    @property
    def input_cache_bytes(self) -> int:
        """``input_cache_gb`` in bytes."""
        return int(self.input_cache_gb * 10**9)

    @model_validator(mode="after")
    def _address_with_kind(self) -> RunnerSettings:
        if (self.kind == "address") != (self.address is not None):
            raise ValueError(
                f"kind={self.kind!r} and address={self.address!r} do not go together; "
                "set runner.kind=address and runner.address=tcp://HOST:8786, or neither"
            )
        return self

    @model_validator(mode="after")
    def _options_that_the_cluster_takes(self) -> RunnerSettings:
        refuse_unknown_options(self.kind, self.cluster)
        return self


class Settings(Section):
    """Every setting of a run."""

    profile: str = Field(default="embedded", json_schema_extra=HOW)
    """Name of the profile these came from."""
    device: Literal["auto", "cpu", "cuda", "second"] = "auto"
    """Device of the networks; ``auto`` takes a GPU when PyTorch sees one. ``second`` is for tests alone,
    which register a device of that name (``tests/second_device``)."""
    seed: Seed = 0
    """Added to every stage's own seed."""
    commercial: bool = Field(default=False, json_schema_extra=HOW)
    """Refuse weights whose licence does not allow commercial use."""
    media: MediaSettings = MediaSettings()
    """Reading the driving video and the portrait."""
    tracking: TrackingSettings = TrackingSettings()
    """Landmarks and the morphable-head fit."""
    template: TemplateSettings = TemplateSettings()
    """The expression template."""
    generator: GeneratorChoice = GeneratorChoice()
    """Which generator."""
    inversion: InversionSettings = InversionSettings()
    """The latents."""
    tuning: TuningSettings = TuningSettings()
    """Pivotal tuning."""
    render: RenderSettings = RenderSettings()
    """Rendering at the driver's poses."""
    composite: CompositeSettings = CompositeSettings()
    """The face composite."""
    output: OutputSettings = OutputSettings()
    """The clip."""
    edit: EditSettings = EditSettings()
    """Attributes of the portrait."""
    sample: SampleSettings = SampleSettings()
    """What a flow learns from."""
    flow: FlowSettings = FlowSettings()
    """Training a flow."""
    runner: RunnerSettings = Field(default=RunnerSettings(), json_schema_extra=HOW)
    """Where tasks run."""

    @model_validator(mode="after")
    def _what_only_detail_transfer_has(self) -> Settings:
        if self.render.detail == "transfer":
            return self
        asked = ["render.motion=camera"] if self.render.motion == "head" else []
        asked += ["output.frame=crop"] if self.output.frame == "photograph" else []
        asked += ["output.alpha=false"] if self.output.alpha else []
        if asked:
            raise ValueError(
                f"render.detail=off gives the generator's own pictures, the face crop alone; set "
                f"{', '.join(asked)} with it, or render.detail=transfer"
            )
        return self

    @model_validator(mode="after")
    def _what_only_the_embedded_head_has(self) -> Settings:
        if self.tracking.tracker == "embedded":
            return self
        asked = [f"tuning.{name}=0" for name in ("depth_anchor", "novel_view") if getattr(self.tuning, name)]
        asked += ["inversion.init=mean"] if self.inversion.init == "tracker" else []
        off = "render.detail=off render.motion=camera output.frame=crop"
        asked += [off] if self.render.detail == "transfer" else []
        if asked:
            raise ValueError(
                f"tracking.tracker={self.tracking.tracker} gives no head in the generator's space and no "
                f"latents; set {', '.join(asked)}, or start from the profile paper"
            )
        return self


def key_settings(section: Section) -> dict[str, Any]:
    """The fields of ``section`` that change a result, as plain values: what goes into a stage's key."""
    fields = type(section).model_fields
    kept = {name for name, field in fields.items() if field.json_schema_extra not in (HOW, DIGESTED)}
    return section.model_dump(mode="json", include=kept)


def load_settings(profile: str | Path = "embedded", overrides: Iterable[str] = ()) -> Settings:
    """Read a profile and apply ``section.field=value`` strings to it.

    Args:
        profile: a name in ``deployments/profiles`` or the path of a YAML file. A profile may begin with
            ``extends: NAME`` and then holds only what differs.
        overrides: values are read as YAML, so ``null``, ``true``, ``0.5`` mean what they say.

    Raises:
        ValueError: for an unknown profile, an unknown field (close names are listed) or a value that does
            not fit its field; the message names the field.
    """
    values = read_values(profile, overrides)
    refuse_unknown(Settings, values)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error)) from None
