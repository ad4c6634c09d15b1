"""Architecture settings of tri-plane generators: the published EG3D networks and the embedded one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RaySampling(_Frozen):
    """Placement of samples along rays. Distances are from the camera, in box units."""

    near: float = 2.25
    """Distance of the first coarse sample."""
    far: float = 3.3
    """Distance of the end of the last coarse interval."""
    n_coarse: int = Field(default=48, ge=3)
    """Stratified samples per ray."""
    n_fine: int = Field(default=48, ge=0)
    """Importance samples per ray, placed by the coarse weights; 0 leaves the coarse samples alone."""
    coarse_grad: bool = True
    """Differentiate through the coarse samples too. False computes them without gradient (cheaper
    training); they still take part in the compositing, so values do not change."""

    @model_validator(mode="after")
    def _check(self) -> RaySampling:
        if not 0 < self.near < self.far:
            raise ValueError(f"ray sampling needs 0 < near < far, got near={self.near}, far={self.far}")
        return self


class SuperresolutionSettings(_Frozen):
    """The convolutional up-sampler from the neural rendering to the image (EG3D section 4.4)."""

    input_resolution: int
    """Size of the neural rendering it was made for; other sizes are resized to it where
    ``resize_input`` is on."""
    channels: tuple[int, ...]
    """Output channels of each block."""
    upsample: tuple[bool, ...]
    """True for each block that doubles the resolution."""
    resize_input: bool = True
    """Resize inputs of another size (bilinear). Off: run fully convolutionally at any size."""
    antialias: bool = True
    """Low-pass filter when that resize shrinks."""
    filter_buffer: bool = False
    """Carry a ``resample_filter`` buffer of its own, as some published modules do (state-dict names)."""
    conv_clamp: float | None = Field(default=None, gt=0)
    """Limit of every layer's absolute output, its activation's gain included (Karras et al. 2020, "Training
    generative adversarial networks with limited data", on mixed precision); None: not clamped."""

    @model_validator(mode="after")
    def _check(self) -> SuperresolutionSettings:
        if not self.channels or len(self.channels) != len(self.upsample):
            raise ValueError(
                f"superresolution.channels and .upsample need one entry per block, got {self.channels} "
                f"and {self.upsample}"
            )
        return self

    @property
    def scale(self) -> int:
        """Output size divided by input size."""
        return int(2 ** sum(self.upsample))


class BackgroundSettings(_Frozen):
    """The background plane behind the head, fixed in the box frame, that fills the rest of every ray."""

    wall_z: float = -0.4
    """Box-frame z of the plane."""
    wall_half_extent: float = Field(default=0.8, gt=0)
    """The plane's feature map spans x and y in plus or minus this; its border repeats outside."""
    resolution: int = 64
    """Resolution of the plane's feature map: one of the backbone's."""
    basis_maps: int = Field(default=32, ge=0)
    """Learned maps mixed by the latent that are added to the plane (0: none)."""


PUBLISHED_SUPERRESOLUTION: dict[str, SuperresolutionSettings] = {
    "SuperresolutionHybrid8XDC": SuperresolutionSettings(
        input_resolution=128, channels=(256, 128), upsample=(True, True)
    ),
    "SuperresolutionHybrid8X": SuperresolutionSettings(
        input_resolution=128, channels=(128, 64), upsample=(True, True), filter_buffer=True
    ),
    "SuperresolutionHybrid4X": SuperresolutionSettings(
        input_resolution=128, channels=(128, 64), upsample=(False, True), filter_buffer=True
    ),
    "SuperresolutionHybrid2X": SuperresolutionSettings(
        input_resolution=64, channels=(128, 64), upsample=(False, True), filter_buffer=True
    ),
}
"""The published super-resolution modules, by class name."""

HALF_PRECISION_CLAMP = 256.0
"""``conv_clamp`` of the published super-resolution where it was trained in half precision."""


class GeneratorSettings(_Frozen):
    """Everything that fixes a generator's parameters and its numbers, apart from the weights."""

    z_dim: int = Field(default=512, gt=0)
    """Dimensions of the mapping network's input."""
    w_dim: int = Field(default=512, gt=0)
    """Dimensions of the intermediate latent w."""
    c_dim: int = Field(default=25, ge=0)
    """Dimensions of the camera label given to the mapping network."""
    mapping_kind: Literal["stylegan", "scene"] = "stylegan"
    """``stylegan``: normalised z and embedded c through an MLP (the published one). ``scene``: z holds a
    scene's parameters, and w = Linear(z) + MLP(z)."""
    mapping_layers: int = Field(default=2, ge=1)
    """Layers of the MLP."""
    mapping_width: int | None = None
    """Hidden features of the MLP; None: w_dim."""
    label_scale: float = 1.0
    """Factor on c before it is embedded; 0 makes the mapping independent of the camera."""
    ws_per_layer: bool = True
    """One row of ws for each layer (True), or a single row that all layers share."""

    base_resolution: int = 4
    """Resolution of the learned constant that the backbone starts from."""
    channels: dict[int, int]
    """Feature channels at each backbone resolution, from ``base_resolution`` up in powers of two."""
    plane_channels: int = Field(default=32, gt=0)
    """Channels of each of the three planes."""
    plane_resolution: int | None = None
    """Resolution of the planes: that of the last block (None), or a power of two times it, to which the
    planes are up-sampled without further convolutions (the basis and base plane then add the detail)."""
    use_noise: bool = True
    """Layers carry noise constants and strengths."""
    conv_clamp: float | None = Field(default=None, gt=0)
    """Limit of the absolute output of every layer of the backbone, its activation's gain included; None: not
    clamped."""
    learned_constants: bool = False
    """Add a learned map to the features after each block's first convolution."""
    basis_planes: dict[int, int] = Field(default_factory=dict)
    """Resolution to number of learned maps whose mixtures, weighted by w, are added to the planes."""
    base_plane: bool = False
    """Add a learned plane at the end."""
    flow: dict[int, int] = Field(default_factory=dict)
    """Resolution to number of learned displacements whose mixtures, weighted by w, warp the finished planes:
    what moves with shape and expression need not be faded from one place to another."""
    background: BackgroundSettings | None = None
    """The background plane behind the head; None: black, as published."""

    plane_axes: Literal["published", "orthogonal"] = "published"
    """``published``: (x,y), (x,z), (z,x), so y never meets z; ``orthogonal``: (x,y), (x,z), (z,y)."""
    plane_padding: Literal["zeros", "border"] = "zeros"
    """Values of the planes outside the box."""
    open_top: bool = False
    """Nothing is above the box. With border padding a bust goes on below and beside the box, as it should,
    but hair at its top would go on upwards as streaks."""
    box_warp: float = Field(default=1.0, gt=0)
    """Side length of the cube that the planes cover, in box units."""
    feature_channels: int = Field(default=32, ge=3)
    """Channels that are rendered; the first three are RGB."""
    decoder_hidden: int = Field(default=64, gt=0)
    """Hidden features of the decoder."""
    decoder_lr_multiplier: float = 1.0
    """Run-time factor on the decoder's weights."""
    decoder_activation: Literal["softplus", "silu", "leaky_relu"] = "softplus"
    """Activation of the decoder's hidden layer."""
    feature_activation: Literal["sigmoid", "linear"] = "sigmoid"
    """Output activation of the rendered features, before they are brought to [-1,1]."""
    density_gain: float = Field(default=1.0, gt=0)
    """alpha = 1 - exp(-softplus(sigma - 1) * density_gain * interval)."""
    sampling: RaySampling = RaySampling()
    """Sampling along rays where a call gives none."""
    neural_resolution: int = Field(default=128, gt=0)
    """Size of the volume rendering where a call gives none."""
    superresolution: SuperresolutionSettings | None = PUBLISHED_SUPERRESOLUTION["SuperresolutionHybrid8XDC"]
    """The up-sampler; None: the volume rendering is the image."""

    @model_validator(mode="after")
    def _check(self) -> GeneratorSettings:
        resolutions = self.resolutions
        expected = tuple(self.base_resolution * 2**i for i in range(len(resolutions)))
        if not resolutions or resolutions != expected:
            raise ValueError(
                f"channels must name every resolution from base_resolution={self.base_resolution} up in "
                f"powers of two, got {resolutions}"
            )
        if self.plane_size not in (resolutions[-1] * 2**i for i in range(6)):
            raise ValueError(
                f"plane_resolution must be {resolutions[-1]} times a power of two, "
                f"got {self.plane_resolution}"
            )
        if not set(self.basis_planes) <= {*resolutions, *self.extra_resolutions}:
            raise ValueError(
                f"basis_planes must name resolutions among {resolutions + self.extra_resolutions}, "
                f"got {sorted(self.basis_planes)}"
            )
        if self.background and self.background.resolution not in resolutions:
            raise ValueError(
                f"background.resolution must be one of {resolutions}, got {self.background.resolution}"
            )
        return self

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Backbone resolutions in order."""
        return tuple(sorted(self.channels))

    @property
    def plane_size(self) -> int:
        """Resolution of the planes."""
        return self.plane_resolution or self.resolutions[-1]

    @property
    def extra_resolutions(self) -> tuple[int, ...]:
        """Resolutions that the planes pass through after the last block."""
        sizes = [self.resolutions[-1] * 2**i for i in range(1, 6)]
        return tuple(r for r in sizes if r <= self.plane_size)

    @property
    def layer_count(self) -> int:
        """Rows of a ws that addresses every backbone layer: two a resolution."""
        return 2 * len(self.resolutions)

    @property
    def num_ws(self) -> int:
        """Rows of the ws that ``mapping`` returns."""
        return self.layer_count if self.ws_per_layer else 1

    @property
    def image_resolution(self) -> int:
        """Size of the image at the default neural resolution."""
        if self.superresolution is None:
            return self.neural_resolution
        size = self.superresolution.input_resolution
        if not self.superresolution.resize_input:
            size = self.neural_resolution
        return size * self.superresolution.scale

    def patch_step(self, resolution: int) -> int:
        """Return the number of rays of which every patch's side must be a multiple.

        The multiple gives a patch a whole size after super-resolution resizes it.
        """
        sr = self.superresolution
        return resolution // math.gcd(resolution, sr.input_resolution) if sr and sr.resize_input else 1

    @classmethod
    def from_published(cls, kwargs: Mapping[str, Any], neural_resolution: int = 128) -> GeneratorSettings:
        """Translate the constructor arguments that a published EG3D network file carries.

        Raises:
            ValueError: where they ask for something that is not implemented.
        """
        rendering = kwargs["rendering_kwargs"]
        module = str(rendering["superresolution_module"]).rsplit(".", 1)[-1]
        if module not in PUBLISHED_SUPERRESOLUTION:
            raise ValueError(
                f"unknown superresolution module {module!r}; expected one of "
                f"{sorted(PUBLISHED_SUPERRESOLUTION)}"
            )
        if rendering.get("clamp_mode", "softplus") != "softplus":
            raise ValueError(f"clamp_mode must be 'softplus', got {rendering['clamp_mode']!r}")
        for unsupported in ("disparity_space_sampling", "white_back"):
            if rendering.get(unsupported, False):
                raise ValueError(f"this network was trained with {unsupported}, which is not supported")
        base, most = kwargs.get("channel_base", 32768), kwargs.get("channel_max", 512)
        resolutions = [4 * 2**i for i in range(7)]  # the published class fixes planes of 256
        # what was trained in half precision clamps in single precision too
        half = int(kwargs.get("sr_num_fp16_res") or 0) > 0
        sr = PUBLISHED_SUPERRESOLUTION[module].model_copy(
            update={
                "antialias": bool(rendering.get("sr_antialias", True)),
                "conv_clamp": HALF_PRECISION_CLAMP if half else None,
            }
        )
        unconditional = rendering.get("c_gen_conditioning_zero", False)
        return cls(
            z_dim=kwargs["z_dim"],
            w_dim=kwargs["w_dim"],
            c_dim=kwargs["c_dim"],
            mapping_layers=(kwargs.get("mapping_kwargs") or {}).get("num_layers", 8),
            label_scale=0.0 if unconditional else float(rendering.get("c_scale", 0.0)),
            channels={r: min(base // r, most) for r in resolutions},
            conv_clamp=kwargs.get("conv_clamp"),
            box_warp=float(rendering["box_warp"]),
            decoder_lr_multiplier=float(rendering.get("decoder_lr_mul", 1.0)),
            sampling=RaySampling(
                near=float(rendering["ray_start"]),
                far=float(rendering["ray_end"]),
                n_coarse=int(rendering["depth_resolution"]),
                n_fine=int(rendering["depth_resolution_importance"]),
            ),
            neural_resolution=neural_resolution,
            superresolution=sr,
        )
