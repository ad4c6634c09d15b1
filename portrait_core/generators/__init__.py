"""Image generators: the tri-plane generator (EG3D and the embedded model), and StyleGAN2 in 2D."""

from portrait_core.generators.eg3d import TriPlaneGenerator
from portrait_core.generators.interface import ImageGenerator, VolumeGenerator
from portrait_core.generators.io import load_generator, load_latent_layout, save_generator
from portrait_core.generators.noise_maps import noise_regulariser, renormalise_, with_own_noise
from portrait_core.generators.patches import CameraRays, Patch, PatchRender, VolumePatch
from portrait_core.generators.precision import (
    Precision,
    at_precision,
    compiled,
    memory_format,
    resolved_precision,
)
from portrait_core.generators.published import load_published
from portrait_core.generators.rays import Rays, RaySampler
from portrait_core.generators.rendering import RayOutput
from portrait_core.generators.settings import (
    BackgroundSettings,
    GeneratorSettings,
    RaySampling,
    SuperresolutionSettings,
)
from portrait_core.generators.stylegan2 import StyleGAN2Generator, StyleGAN2Settings
from portrait_core.generators.triplane import Planes

__all__ = [
    "BackgroundSettings",
    "CameraRays",
    "GeneratorSettings",
    "ImageGenerator",
    "Patch",
    "PatchRender",
    "Planes",
    "Precision",
    "RayOutput",
    "RaySampler",
    "RaySampling",
    "Rays",
    "StyleGAN2Generator",
    "StyleGAN2Settings",
    "SuperresolutionSettings",
    "TriPlaneGenerator",
    "VolumeGenerator",
    "VolumePatch",
    "at_precision",
    "compiled",
    "load_generator",
    "load_latent_layout",
    "load_published",
    "memory_format",
    "noise_regulariser",
    "renormalise_",
    "resolved_precision",
    "save_generator",
    "with_own_noise",
]
