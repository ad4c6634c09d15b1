"""Mapping networks: from z (and a camera label) to the intermediate latent w."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from portrait_core.generators.layers import FullyConnected
from portrait_core.generators.settings import GeneratorSettings


def _unit_second_moment(x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class LatentSizes(Protocol):
    """Dimensions of a generator's latents and label."""

    @property
    def z_dim(self) -> int:
        """Dimensions of the latent z."""

    @property
    def w_dim(self) -> int:
        """Dimensions of the intermediate latent w."""

    @property
    def c_dim(self) -> int:
        """Dimensions of the label; 0: there is none."""

    @property
    def num_ws(self) -> int:
        """Rows of the ws that the mapping returns."""


class StyleMappingSettings(LatentSizes, Protocol):
    """Settings of a :class:`StyleMapping`."""

    @property
    def mapping_layers(self) -> int:
        """Layers of the network."""

    @property
    def mapping_width(self) -> int | None:
        """Features of its hidden layers; None: w_dim."""

    @property
    def label_scale(self) -> float:
        """Factor on labels before they are embedded."""


class StyleMapping(nn.Module):
    """StyleGAN2's mapping network, conditioned on a label where there is one.

    The label is a class, or in EG3D a camera (EG3D section 4.5).
    """

    w_avg: Tensor

    def __init__(
        self, settings: StyleMappingSettings, *, embed_width: int | None = None, lr_multiplier: float = 0.01
    ) -> None:
        """Make a network whose label is embedded to ``embed_width`` features (w_dim, if None)."""
        super().__init__()
        self.z_dim = settings.z_dim
        self.rows = settings.num_ws
        self.label_scale = settings.label_scale
        self.c_dim = settings.c_dim
        self.layers = settings.mapping_layers
        w_dim = settings.w_dim
        if self.c_dim > 0:
            self.embed = FullyConnected(self.c_dim, embed_width or w_dim)
        features = settings.z_dim + ((embed_width or w_dim) if self.c_dim > 0 else 0)
        for i in range(self.layers):
            out = w_dim if i == self.layers - 1 else (settings.mapping_width or w_dim)
            layer = FullyConnected(features, out, activate=True, lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
            features = out
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b c"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Float[Tensor, "b rows w"]:
        """Map latents, with labels where there are any, to ws with ``num_ws`` equal rows.

        The first ``truncation_cutoff`` rows (all, if None) become ``w_avg + truncation_psi * (w - w_avg)``.

        Raises:
            ValueError: if z or c has other dimensions, or c is missing.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z must be [B,{self.z_dim}], got {list(z.shape)}")
        x = _unit_second_moment(z)
        if self.c_dim > 0:
            if c is None or c.shape != (len(z), self.c_dim):
                raise ValueError(
                    f"this generator's mapping needs camera labels (or classes) c [{len(z)},{self.c_dim}], "
                    f"got {None if c is None else list(c.shape)}"
                )
            x = torch.cat([x, _unit_second_moment(self.embed(c * self.label_scale))], dim=1)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        ws = x[:, None].expand(-1, self.rows, -1)
        if truncation_psi == 1.0:
            return ws.contiguous()
        cutoff = self.rows if truncation_cutoff is None else truncation_cutoff
        truncated = torch.lerp(self.w_avg.expand_as(ws), ws, truncation_psi)
        return torch.cat([truncated[:, :cutoff], ws[:, cutoff:]], dim=1)


class SceneMapping(nn.Module):
    """w = Linear(z) + MLP(z) for a z that holds a scene's parameters; no label, no truncation."""

    def __init__(self, settings: GeneratorSettings) -> None:
        super().__init__()
        self.rows = settings.num_ws
        width = settings.mapping_width or settings.w_dim
        self.linear = nn.Linear(settings.z_dim, settings.w_dim)
        self.hidden = nn.ModuleList(
            nn.Linear(settings.z_dim if i == 0 else width, width) for i in range(settings.mapping_layers)
        )
        self.out = nn.Linear(width, settings.w_dim)

    def forward(
        self,
        z: Float[Tensor, "b z"],
        c: Float[Tensor, "b c"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Float[Tensor, "b rows w"]:
        """Map latents to ws with ``num_ws`` equal rows; ``c`` has no effect.

        Raises:
            ValueError: if a truncation is asked for.
        """
        if truncation_psi != 1.0:
            raise ValueError(
                f"a scene mapping has no mean latent to truncate to, got truncation_psi={truncation_psi}; "
                "scale z instead"
            )
        x = z
        for layer in self.hidden:
            x = F.leaky_relu(layer(x), 0.2)
        return (self.linear(z) + self.out(x))[:, None].expand(-1, self.rows, -1)
