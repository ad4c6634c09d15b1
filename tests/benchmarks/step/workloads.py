"""Inversions and tunings as the stages build them, of a clip whose frames are ready."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from portrait_core.generators import Precision, TriPlaneGenerator, at_precision, resolved_precision
from portrait_core.inversion.chain import tracker_start
from portrait_core.inversion.clip_data import ClipData
from portrait_core.inversion.features import build_features
from portrait_core.inversion.latent import Inverter
from portrait_core.inversion.sampling import fitting_samples
from portrait_core.inversion.targets import FrameTarget, image_tensor
from portrait_core.inversion.tuning import Clip, Tuner, needs_matte
from portrait_core.media import read_image
from portrait_core.photograph.layers import separate_crop
from portrait_core.photograph.matte import PersonSegmenter
from portrait_core.runtime.package_files import data_folder, sample_portrait
from portrait_core.settings import Settings, load_settings
from tasks.fitting import read_clip
from tests import official_files
from tests.benchmarks.workloads import build
from tests.portrait_core import tiny
from tests.simulation.ready import ready_clip

TINY = "tiny"
"""The embedded profile with a generator that suits a test."""
PROFILES = {
    "embedded": "profile embedded, the generator and the head in data/",
    "paper": "profile paper, the FFHQ-512 architecture and VGG16 with seeded weights",
    "fast": "profile fast, the same",
    TINY: "profile embedded with a tiny generator",
}
_TINY = (
    "template.size=64",
    "tuning.patch=16",
    "tuning.novel_view_rays=32",
    "generator.samples=6",
    "generator.importance_samples=4",
)


class Enough(Exception):  # noqa: N818 - ends a loop that was measured, and is no error
    """A loop has taken as many steps as are measured."""


@dataclass(frozen=True)
class Workload:
    """Everything that a clip's inversion and tuning are made of.

    Attributes:
        profile: one of :data:`PROFILES`.
        device: where it computes: ``cpu``, ``cuda``, or ``second`` in tests.
        folder: where the clip's store and the files of seeded weights lie.
        frames: number of frames of the clip, all alike.
        precision: of the generator; ``auto``: the device's own.
        graphs: whether a card's steps are captured.
    """

    profile: str
    device: str
    folder: Path
    frames: int = 4
    precision: str = "auto"
    graphs: bool = False

    @cached_property
    def settings(self) -> Settings:
        """The profile's settings as they are."""
        name, changes = ("embedded", _TINY) if self.profile == TINY else (self.profile, ())
        return load_settings(name, [*changes, f"device={self.device}"])

    @property
    def arithmetic(self) -> Precision:
        """What the precision means on the device."""
        return resolved_precision(self.precision, self.device)  # type: ignore[arg-type]  # one of its words

    @cached_property
    def generator(self) -> TriPlaneGenerator:
        """The generator at its precision."""
        if self.profile == TINY:
            model = tiny.generator()
        else:
            model = build("embedded" if self.profile == "embedded" else "ffhq512")
        return at_precision(model.to(self.device), self.arithmetic)

    @cached_property
    def data(self) -> ClipData:
        """The clip as the stages read it. Its head is the embedded one whatever the profile: ``paper`` reads
        none while it fits."""
        changes = [f"template.size={self.settings.template.size}", f"device={self.device}"]
        store = str(self.folder / f"store-{self.profile}")
        job = ready_clip(store, "clip", self.frames, load_settings("embedded", changes), crop=self.picture)
        return read_clip(job)

    @cached_property
    def picture(self) -> NDArray[np.uint8]:
        """The sample portrait in place of the crop, of every template and of every render ``[S,S,3]``."""
        size = self.settings.template.size
        image = read_image(sample_portrait())[:440, :440]
        return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)

    def features(self, name: str) -> nn.Module:
        """The feature network ``name``; VGG16's weights are seeded."""
        weights = None
        if name != "efficientnet":
            weights = self.folder / "vgg16-397923af.pth"
            if not weights.exists():
                official_files.write_vgg16(weights)
        return build_features(name, weights).to(self.device)

    def inversion_target(self, frame: int) -> FrameTarget:
        """What the stage ``inversion`` fits a frame to."""
        return self.data.target(frame, detail=self.settings.inversion.detail_weight > 0)

    def tuning_target(self, frame: int) -> FrameTarget:
        """What the stage ``tuning`` fits a frame to."""
        inversion_render = self.picture if self.settings.inversion.mouth == "render" else None
        detail = self.settings.tuning.detail_weight > 0
        return self.data.target(frame, inversion_render, tuning=True, detail=detail)

    @property
    def resolution(self) -> int:
        """Side of the volume rendering."""
        return self.settings.generator.neural_resolution or self.generator.settings.neural_resolution

    def inverter(self, **changes: Any) -> Inverter:
        """What inverts the clip's frames; ``changes`` are of the settings of inversion."""
        settings = self.settings
        return Inverter(
            self.generator,
            self.features(settings.inversion.phi),
            self.data.camera,
            settings.inversion.model_copy(update=changes),
            fitting_samples(self.generator, settings.generator),
            self.resolution,
            graphs=self.graphs,
        )

    def start(self, inverter: Inverter) -> Tensor | None:
        """The z from which the first frame's inversion starts, or None for the mean latent."""
        return tracker_start(inverter, self.data, 0)

    def tuner(self) -> Tuner:
        """What tunes the generator on the clip, whose latents are random ones of the generator."""
        settings, data, model = self.settings, self.data, self.generator
        needed = needs_matte(settings.tuning)
        matte = None
        if needed:
            segmenter = PersonSegmenter.from_models(data_folder() / self.settings.tracking.models)
            matte = separate_crop(self.picture, data.head.silhouette(), segmenter)
        clip = Clip(
            ws=self._latents(),
            camera=data.camera,
            frame=self.tuning_target,
            vertices=data.head.vertices,
            matte=None if matte is None else torch.from_numpy(matte.coverage)[None].to(self.device),
            plate=None if matte is None else image_tensor(matte.plate).to(self.device),
        )
        name = "lpips" if settings.tuning.perceptual == "lpips" else settings.inversion.phi
        return Tuner(
            model,
            self.features(name),
            clip,
            data.head.surface,
            settings.tuning,
            fitting_samples(model, settings.generator),
            self.resolution,
            memory_mib=settings.runner.target_memory_mib,
            graphs=self.graphs,
        )

    @torch.no_grad()
    def _latents(self) -> Tensor:
        """Latents of all frames ``[T,1,w]``, as inversion in W gives them."""
        own = self.generator.settings
        z = torch.randn(self.frames, own.z_dim, generator=torch.Generator().manual_seed(1)).to(self.device)
        camera = self.data.camera.expand(self.frames, -1) if own.c_dim else None
        return self.generator.mapping(z, camera)[:, :1].contiguous()


def work_folder() -> TemporaryDirectory[str]:
    """A folder for a workload, which goes when the block ends."""
    return TemporaryDirectory(prefix="step-")


def until(steps: int) -> Any:
    """Give an ``on_step`` that ends a loop after so many steps.

    Raises:
        Enough: from the callback.
    """

    def on_step(done: int, loss: float | None) -> None:
        if done >= steps:
            raise Enough

    return on_step
