"""Generators as a run works with them: at its precision, compiled where it asks for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from portrait_core.errors import InputError
from portrait_core.generators.eg3d import TriPlaneGenerator
from portrait_core.generators.interface import ImageGenerator, VolumeGenerator
from portrait_core.generators.io import AnyGenerator, load_generator, save_generator
from portrait_core.generators.precision import Precision, at_precision, compiled
from portrait_core.generators.stylegan2 import StyleGAN2Generator

OneGenerator = TypeVar("OneGenerator", bound=ImageGenerator)


@dataclass(frozen=True)
class Preparation:
    """Properties, beside its weights, that make a loaded generator another object.

    Attributes:
        device: ``cpu`` or ``cuda``.
        precision: of its convolutions and matrix products.
        compile: whether it is compiled.
    """

    device: str
    precision: Precision
    compile: bool

    def load(self, path: Path) -> AnyGenerator:
        """Load a file of :func:`~portrait_core.generators.save_generator`, of any kind, prepared."""
        model = at_precision(load_generator(path, self.device, kind=None), self.precision)
        return compiled(model) if self.compile else model

    def from_bytes(self, data: bytes) -> AnyGenerator:
        """Make a generator of what :func:`generator_bytes` gave, prepared."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "generator.safetensors"
            path.write_bytes(data)
            return self.load(path)


def generator_bytes(model: AnyGenerator) -> bytes:
    """Return a generator as the content of a safetensors file."""
    layout = model.latent_layout if isinstance(model, StyleGAN2Generator) else None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        save_generator(model, path, latent_layout=layout)
        return path.read_bytes()


def volume_of(model: AnyGenerator) -> TriPlaneGenerator:
    """Return the same generator, known to have a volume.

    Raises:
        InputError: it is a 2D generator.
    """
    if isinstance(model, TriPlaneGenerator):
        return model
    raise InputError(
        "this is a 2D generator, whose head cannot turn; a tri-plane generator (EG3D) is needed here"
    )


def at_chunk(model: OneGenerator, rays: int | None) -> OneGenerator:
    """Set how many rays a generator with a volume renders at a time, and return the generator.

    Args:
        model: changed in place; one without a volume stays as it is.
        rays: None renders all rays at once.
    """
    if isinstance(model, VolumeGenerator):
        model.ray_chunk = rays
    return model
