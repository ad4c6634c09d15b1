"""Generators as a run works with them: at its precision, compiled where it asks for that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from portrait_core.generators.eg3d import TriPlaneGenerator
from portrait_core.generators.interface import ImageGenerator, VolumeGenerator
from portrait_core.generators.io import AnyGenerator as EitherGenerator
from portrait_core.generators.io import load_generator, save_generator
from portrait_core.generators.precision import Precision, at_precision, compiled

AnyGenerator = TypeVar("AnyGenerator", bound=ImageGenerator)


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

    def load(self, path: Path) -> TriPlaneGenerator:
        """Load a file of :func:`~portrait_core.generators.save_generator`, prepared."""
        model = at_precision(load_generator(path, self.device), self.precision)
        return compiled(model) if self.compile else model

    def load_any(self, path: Path) -> EitherGenerator:
        """Load a file of either kind of generator, prepared."""
        model = at_precision(load_generator(path, self.device, kind=None), self.precision)
        return compiled(model) if self.compile else model

    def from_bytes(self, data: bytes) -> TriPlaneGenerator:
        """Make a generator of what :func:`generator_bytes` gave, prepared."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "generator.safetensors"
            path.write_bytes(data)
            return self.load(path)


def generator_bytes(model: TriPlaneGenerator) -> bytes:
    """Return a generator as the content of a safetensors file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "generator.safetensors"
        save_generator(model, path)
        return path.read_bytes()


def at_chunk(model: AnyGenerator, rays: int | None) -> AnyGenerator:
    """Set how many rays a generator with a volume renders at a time, and return the generator.

    Args:
        model: changed in place; one without a volume stays as it is.
        rays: None renders all rays at once.
    """
    if isinstance(model, VolumeGenerator):
        model.ray_chunk = rays
    return model
