"""Super-resolution: from the rendered feature image to the image (EG3D section 4.4)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators.layers import SynthesisBlock, resample_filter
from portrait_core.generators.settings import GeneratorSettings


def resize(x: Float[Tensor, "b c h w"], size: int, antialias: bool) -> Float[Tensor, "b c s s"]:
    """Resize bilinearly to ``size`` x ``size``, low-pass filtered when it shrinks and ``antialias`` is on."""
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)


class Superresolution(nn.Module):
    """Synthesis blocks ``block0``, ``block1``, ... that refine the first three feature channels."""

    resample_filter: Tensor

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        sr = settings.superresolution
        if sr is None:
            raise ValueError("superresolution settings are missing; set superresolution")
        self.settings = sr
        if sr.filter_buffer:
            self.register_buffer("resample_filter", resample_filter())
        in_channels, resolution = settings.feature_channels, sr.input_resolution
        for i, (channels, upsample) in enumerate(zip(sr.channels, sr.upsample, strict=True)):
            resolution *= 2 if upsample else 1
            block = SynthesisBlock(
                in_channels,
                channels,
                settings.w_dim,
                resolution,
                3,
                upsample=upsample,
                noise=settings.use_noise,
                conv_clamp=sr.conv_clamp,
            )
            self.add_module(f"block{i}", block)
            in_channels = channels

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        w: Float[Tensor, "b d"],
        resolution: int | None = None,
    ) -> Float[Tensor, "b 3 h2 w2"]:
        """Return the image in [-1,1] (not clipped) for features whose first three channels are RGB.

        ``resolution`` is the side of the whole rendering of which they are a patch (None: all of it).
        """
        wanted, whole = self.settings.input_resolution, resolution or features.shape[-1]
        if self.settings.resize_input and whole != wanted:
            size, rest = divmod(features.shape[-1] * wanted, whole)
            if rest:
                raise ValueError(
                    f"a patch of {features.shape[-1]} of {whole} rays has no whole size at the {wanted} that "
                    f"super-resolution takes; set the neural resolution to {wanted} or a divisor of it"
                )
            features = resize(features, size, self.settings.antialias)
        x, image = features, features[:, :3]
        rows = w[:, None].expand(-1, 3, -1)
        for i in range(len(self.settings.channels)):
            x, image = self.get_submodule(f"block{i}")(x, image, rows, "none")
        return image
