"""A generator of the embedded kind, small enough to optimise in a test, and a head to go with it."""

import numpy as np
import torch

from portrait_core.cameras import orbit_labels
from portrait_core.generators import (
    BackgroundSettings,
    GeneratorSettings,
    RaySampling,
    StyleGAN2Generator,
    StyleGAN2Settings,
    SuperresolutionSettings,
    TriPlaneGenerator,
)
from portrait_core.generators.scene_latents import N_LATENT
from portrait_core.generators.scene_latents_2d import LAYOUT_2D, N_LATENT_2D
from portrait_core.inversion.targets import FrameTarget

RESOLUTION, SIZE = 32, 64
CAMERA = torch.from_numpy(orbit_labels(0.05, -0.05))


def generator(seed: int = 0) -> TriPlaneGenerator:
    torch.manual_seed(seed)
    settings = GeneratorSettings(
        z_dim=N_LATENT,
        w_dim=32,
        c_dim=0,
        mapping_kind="scene",
        ws_per_layer=False,
        channels={4: 16, 8: 16, 16: 16, 32: 8},
        plane_channels=8,
        use_noise=False,
        learned_constants=True,
        basis_planes={32: 4},
        base_plane=True,
        background=BackgroundSettings(resolution=16, basis_maps=4),
        plane_axes="orthogonal",
        plane_padding="border",
        box_warp=0.72,
        feature_channels=8,
        decoder_hidden=16,
        feature_activation="linear",
        density_gain=10.0,
        sampling=RaySampling(near=2.25, far=3.15, n_coarse=8, n_fine=6),
        neural_resolution=RESOLUTION,
        superresolution=SuperresolutionSettings(
            input_resolution=RESOLUTION, channels=(8, 8), upsample=(False, True), resize_input=False
        ),
    )
    return TriPlaneGenerator(settings).eval().requires_grad_(False)


def flat(scene: bool = False) -> StyleGAN2Generator:
    """A seeded 2D generator of pictures of 64 pixels; with ``scene``, its z is the embedded one's."""
    torch.manual_seed(0)
    channels = {4: 16, 8: 16, 16: 16, 32: 8, SIZE: 8}
    settings = StyleGAN2Settings(
        z_dim=N_LATENT_2D if scene else 16, w_dim=32, mapping_layers=2, channels=channels
    )
    made = StyleGAN2Generator(settings, LAYOUT_2D if scene else None)
    return made.eval().requires_grad_(False)


SAMPLING = RaySampling(near=2.25, far=3.15, n_coarse=8, n_fine=6)


def disc(radius: float, centre: tuple[float, float] = (0.5, 0.5)) -> torch.Tensor:
    """A disc as a mask ``[1,SIZE,SIZE]``."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    return torch.from_numpy(inside.astype(np.float32))[None]


def target(image: torch.Tensor) -> FrameTarget:
    """A frame whose face is a disc with a mouth low in it."""
    return FrameTarget(
        image=image,
        face=disc(0.3),
        mouth=disc(0.05, (0.5, 0.65)),
        detail=disc(0.08, (0.5, 0.65)),
        uncovered=torch.zeros(1, SIZE, SIZE),
    )


class Memory:
    """A checkpoint kept in memory."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def read(self) -> bytes | None:
        return self.data

    def write(self, data: bytes) -> None:
        self.data = data
