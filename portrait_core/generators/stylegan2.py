"""The StyleGAN2 generator (Karras et al. 2020): latent to image without a camera, the 2D baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from portrait_core.generators.blocks import BlockStack
from portrait_core.generators.interface import ImageGenerator
from portrait_core.generators.layers import NoiseMode
from portrait_core.generators.mapping import StyleMapping
from portrait_core.generators.patches import CameraRays, Patch, PatchRender
from portrait_core.generators.precision import memory_format
from portrait_core.generators.scene_latents_2d import LAYOUT_2D, pose_latents
from portrait_core.generators.settings import RaySampling

# Arguments that change how published code computes or trains, and not what it computes in float32.
_WITHOUT_EFFECT = {"num_fp16_res", "fused_modconv_default", "w_avg_beta"}
# Arguments of which one value is implemented: the one that every published StyleGAN2 network has.
_FIXED: dict[str, Any] = {"architecture": "skip", "activation": "lrelu", "resample_filter": [1, 3, 3, 1]}


class StyleGAN2Settings(BaseModel):
    """Everything that fixes a StyleGAN2 generator's parameters and its numbers, apart from the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    z_dim: int = Field(default=512, gt=0)
    """Dimensions of the mapping network's input."""
    w_dim: int = Field(default=512, gt=0)
    """Dimensions of the intermediate latent w."""
    c_dim: int = Field(default=0, ge=0)
    """Dimensions of the label given to the mapping network; 0: no labels."""
    mapping_layers: int = Field(default=8, ge=1)
    """Layers of the mapping network."""
    mapping_width: int | None = Field(default=None, gt=0)
    """Features of its hidden layers; None: w_dim."""
    embed_width: int | None = Field(default=None, gt=0)
    """Features that a label is embedded to; None: w_dim."""
    mapping_lr_multiplier: float = Field(default=0.01, gt=0)
    """Run-time factor on the mapping network's weights and biases."""
    channels: dict[int, int]
    """Feature channels at each resolution, from 4 up in powers of two."""
    image_channels: int = Field(default=3, gt=0)
    """Channels of the image."""
    use_noise: bool = True
    """Layers carry noise constants and strengths."""
    conv_clamp: float | None = Field(default=None, gt=0)
    """Limit of every layer's absolute output, its activation's gain included; None: not clamped. Published
    networks trained in half precision clamp in single precision too."""

    @model_validator(mode="after")
    def _check(self) -> StyleGAN2Settings:
        resolutions = self.resolutions
        if not resolutions or resolutions != tuple(4 * 2**i for i in range(len(resolutions))):
            raise ValueError(
                f"channels must name every resolution from 4 up in powers of two, got {resolutions}"
            )
        if min(self.channels.values()) < 1:
            raise ValueError(f"channels must be positive, got {self.channels}")
        return self

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions in order."""
        return tuple(sorted(self.channels))

    @property
    def image_resolution(self) -> int:
        """Side of the image in pixels."""
        return self.resolutions[-1]

    @property
    def neural_resolution(self) -> int:
        """Side of the grid that patches are cut from, in pixels: that of the image."""
        return self.image_resolution

    @property
    def num_ws(self) -> int:
        """Rows of the ws that ``mapping`` returns: two a resolution."""
        return 2 * len(self.resolutions)

    @property
    def label_scale(self) -> float:
        """Factor on labels before they are embedded."""
        return 1.0

    @classmethod
    def from_published(cls, kwargs: Mapping[str, Any]) -> StyleGAN2Settings:
        """Translate the constructor arguments that a published StyleGAN2 network file carries.

        Those of the synthesis may stand in ``synthesis_kwargs`` or, as later files have them, beside the
        others.

        Raises:
            ValueError: where they ask for something that is not implemented, or lack something.
        """
        rest = dict(kwargs)
        mapping = dict(rest.pop("mapping_kwargs", None) or {})
        synthesis = dict(rest.pop("synthesis_kwargs", None) or {})
        base = _take(rest, "z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
        synthesis = rest | synthesis
        resolution = int(base.get("img_resolution", 0))
        if resolution < 4 or resolution & (resolution - 1):
            raise ValueError(f"img_resolution must be a power of two from 4 up, got {resolution}")
        channel_base = int(synthesis.pop("channel_base", 32768))
        channel_max = int(synthesis.pop("channel_max", 512))
        found: dict[str, Any] = {
            **{name: base[name] for name in ("z_dim", "c_dim", "w_dim") if name in base},
            "image_channels": base.get("img_channels", 3),
            "mapping_layers": mapping.pop("num_layers", 8),
            "mapping_width": mapping.pop("layer_features", None),
            "embed_width": mapping.pop("embed_features", None),
            "mapping_lr_multiplier": mapping.pop("lr_multiplier", 0.01),
            "use_noise": synthesis.pop("use_noise", True),
            "conv_clamp": synthesis.pop("conv_clamp", None),
            "channels": {
                4 * 2**i: min(channel_base // (4 * 2**i), channel_max)
                for i in range(resolution.bit_length() - 2)
            },
        }
        _refuse_others("mapping_kwargs", mapping)
        _refuse_others("synthesis_kwargs", synthesis)
        return cls.model_validate(found)


def _take(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: values.pop(name) for name in names if name in values}


def _refuse_others(where: str, left: Mapping[str, Any]) -> None:
    for name, value in left.items():
        if name in _WITHOUT_EFFECT:
            continue
        if name not in _FIXED:
            raise ValueError(f"this network was built with {where} {name}={value!r}, which is not known here")
        given = list(value) if isinstance(value, tuple) else value
        if given != _FIXED[name]:
            raise ValueError(
                f"this network was built with {where} {name}={value!r}; only {_FIXED[name]!r} is supported"
            )


class Synthesis(BlockStack):
    """Blocks ``b4``, ``b8``, ... up to the image, whose skip connections add up the image."""

    def forward(
        self,
        ws: Float[Tensor, "b rows d"],
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return images in [-1,1] (not clipped) of ``ws``, whose rows are one for all layers or one each."""
        return self.walk(self.rows(ws), noise_mode, rng)


class StyleGAN2Generator(ImageGenerator):
    """Latent to image. State-dict names are the published ones; everything runs in float32.

    It has no volume: a camera has no effect on its images, and patches are cut from whole images.

    Args:
        settings: its dimensions.
        latent_layout: the meaning of z (:func:`.io.save_generator`); None where it has none.
    """

    settings: StyleGAN2Settings
    mapping: StyleMapping

    def __init__(self, settings: StyleGAN2Settings, latent_layout: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.latent_layout = dict(latent_layout or {})
        self.synthesis = Synthesis(
            settings.channels,
            settings.w_dim,
            settings.image_channels,
            noise=settings.use_noise,
            conv_clamp=settings.conv_clamp,
        )
        self.mapping = StyleMapping(
            settings, embed_width=settings.embed_width, lr_multiplier=settings.mapping_lr_multiplier
        )
        # as for a CPU, where it is made; at_precision lays it out for the device where it runs
        self.to(memory_format=memory_format("cpu", "fp32"))  # type: ignore[call-overload]

    @property
    def has_scene_latents(self) -> bool:
        """True where z holds a scene and the camera's yaw and pitch (:mod:`.scene_latents_2d`)."""
        return self.latent_layout == LAYOUT_2D

    def pose_latents(self, camera: Float[Tensor, "b 25"]) -> Float[Tensor, "b p"]:
        """Return the camera's part of z: yaw and pitch, where z holds a scene."""
        if not self.has_scene_latents:
            return super().pose_latents(camera)
        return torch.from_numpy(pose_latents(camera.cpu().numpy())).to(camera)

    def mapping_label(self, camera: Float[Tensor, "b 25"]) -> None:
        """Return None: a camera is no label of this generator."""

    def mapping_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the mapping network."""
        return self.mapping.parameters()

    def render_image(
        self,
        ws: Float[Tensor, "b rows w"],
        camera: Float[Tensor, "b 25"],
        resolution: int | None = None,
        sampling: RaySampling | None = None,
    ) -> Float[Tensor, "b 3 s s"]:
        """Render whole images in [-1,1] (not clipped); only ``ws`` has an effect."""
        image: Tensor = self.synthesis(ws)
        return image

    def render_patch(
        self,
        ws: Float[Tensor, "b rows w"],
        rays: CameraRays,
        patch: Patch,
        sampling: RaySampling | None = None,
        rng: torch.Generator | None = None,
    ) -> PatchRender:
        """Cut one patch from the image of every latent; only ``ws`` and ``patch`` have an effect."""
        return PatchRender(patch.cut(self.synthesis(ws)))

    def forward(
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b c"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
        rng: torch.Generator | None = None,
    ) -> Float[Tensor, "b channels h w"]:
        """Return images in [-1,1] (not clipped) of latents.

        Args:
            z: latents, standard normal.
            c: labels, where ``settings.c_dim`` is not 0.
            truncation_psi: factor of ``w_avg + truncation_psi * (w - w_avg)``.
            truncation_cutoff: number of rows of ws, from the first, that are truncated; None: all.
            noise_mode: the stored noise (``const``), fresh noise (``random``), or ``none``.
            rng: random state of fresh noise, on the device of ``z``; None: that device's default one.

        Raises:
            ValueError: if z or c has other dimensions, or c is missing.
        """
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        image: Tensor = self.synthesis(ws, noise_mode, rng)
        return image
