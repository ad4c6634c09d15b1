"""One photograph to one tuned generator, with the product's settings and in the product's order: template of
the portrait's own expression, inversion of that one frame, pivotal tuning. Without the store and Prefect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.generators import (
    at_precision,
    load_generator,
    resolved_precision,
)
from portrait_core.inversion.latent import FirstLatent, Inverter
from portrait_core.inversion.loop import OnStep
from portrait_core.inversion.sampling import fitting_samples
from portrait_core.inversion.targets import (
    FrameTarget,
    image_array,
    image_tensor,
    mask_tensor,
    tuning_image,
)
from portrait_core.inversion.tuning import Clip, Tuner
from portrait_core.photograph.layers import separate_crop
from portrait_core.rendering.pose_renderer import PoseRenderer
from portrait_core.settings import Settings
from portrait_core.template.detail_mask import detail_mask
from portrait_core.template.template import PortraitFit, Template, TemplateRenderer
from tests.benchmarks.portraits.subjects import Subject
from tests.benchmarks.portraits.tools import Picture, Tools


def _bytes(mask: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.round(np.clip(mask, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class OneFrame:
    """A subject's single frame, ready to be fitted.

    Attributes:
        vertices: box-frame mesh ``[V,3]``.
        template: the expression template, one frame.
    """

    subject: Subject
    camera: Tensor
    vertices: Tensor
    template: Template
    landmarks_px: NDArray[np.floating]

    @classmethod
    def of(cls, subject: Subject, tools: Tools, settings: Settings) -> OneFrame:
        """Draw the template of the subject's own expression."""
        choice, size = settings.template, subject.crop.shape[0]
        fit = PortraitFit(subject.shape, subject.expression, subject.jaw, subject.camera)
        renderer = TemplateRenderer(
            tools.head, subject.crop, fit, subject.landmarks_px, choice.supersample, choice.feather_px
        )
        camera, metres = torch.from_numpy(subject.camera)[None], subject.vertices_m(tools.head)
        landmarks = tools.head.to_box(tools.head.landmarks(metres))
        return cls(
            subject,
            camera,
            tools.head.to_box(metres)[0],
            renderer.render(subject.expression[None], subject.jaw[None]),
            project_to_crop(camera, landmarks, size)[0, :, :2].numpy(),
        )

    def target(self, tuning: bool, inversion_render: Picture | None = None) -> FrameTarget:
        """Return the target of inversion, or with ``tuning`` that of tuning, with the mouth of a picture."""
        image, size = self.template.image[0], self.subject.crop.shape[0]
        face, mouth, gone = (_bytes(getattr(self.template, name)[0]) for name in Template._fields[1:])
        if tuning:
            skin = np.minimum(face, 255 - mouth)
            image = tuning_image(image, skin, mouth, self.subject.crop, inversion_render)
        masks = (face, mouth, detail_mask(self.landmarks_px, size), gone)
        return FrameTarget(image_tensor(image), *(mask_tensor(mask) for mask in masks))

    def clip(self, ws: Tensor, inversion_render: Picture | None, tools: Tools) -> Clip:
        """The frame as a clip of one, for tuning."""
        crop, target = self.subject.crop, self.target(True, inversion_render)
        fragments, _, _ = tools.surface.see(self.vertices[None], self.camera, crop.shape[0])
        matte = separate_crop(crop, np.asarray((fragments.face_id[0] >= 0).numpy()), tools.segmenter)
        return Clip(
            ws=ws,
            camera=self.camera,
            frame=lambda _: target,
            vertices=lambda _: self.vertices,
            matte=torch.from_numpy(matte.coverage)[None],
            plate=image_tensor(matte.plate),
        )


class Fit:
    """A subject's inversion, and after :meth:`tune` its tuned generator.

    Attributes:
        frame: the subject and its template.
        generator: frozen; tuned once :meth:`tune` has run.
        first: the latent.
    """

    def __init__(self, subject: Subject, weights: Path, tools: Tools, settings: Settings) -> None:
        """Invert: 20 steps, about ten seconds on one core."""
        self.tools, self.settings = tools, settings
        self.frame = OneFrame.of(subject, tools, settings)
        precision = resolved_precision(settings.generator.precision, "cpu")
        self.generator = at_precision(load_generator(weights), precision)
        self._sampling = fitting_samples(self.generator, settings.generator)
        choice = settings.inversion.model_copy(update={"seed": settings.inversion.seed + settings.seed})
        self._inverter = Inverter(
            self.generator, tools.phi, self.frame.camera, choice, self._sampling, self._resolution
        )
        z = None
        if choice.init == "tracker":
            names = tools.head.expression_names
            z = self._inverter.tracker_start(subject.shape, subject.expression[None], names)
        self.first: FirstLatent = self._inverter.first(self.frame.target(False), z)

    @property
    def _resolution(self) -> int:
        return self.settings.generator.neural_resolution or self.generator.settings.neural_resolution

    def tune(self, on_step: OnStep | None = None) -> None:
        """Pivotal tuning: about a second a step on one core."""
        settings, inversion_render = self.settings, None
        if settings.inversion.mouth == "render":
            inversion_render = image_array(self._picture_of_inversion())
        choice = settings.tuning.model_copy(update={"seed": settings.tuning.seed + settings.seed})
        tuner = Tuner(
            self.generator,
            self.tools.phi,
            self.frame.clip(self.first.ws, inversion_render, self.tools),
            self.tools.surface,
            choice,
            self._sampling,
            self._resolution,
        )
        tuner.run(on_step=on_step)

    @torch.no_grad()
    def _picture_of_inversion(self) -> Tensor:
        out = self.generator.synthesis(
            self.first.ws, self.frame.camera, self._resolution, sampling=self._sampling
        )
        return out["image"][0]

    def renderer(self) -> Renders:
        """Pictures and depth of the generator as it is now."""
        return Renders(self)


class Renders:
    """The product's rendering of a fit. With one frame the composite lays a face on itself, so it is left
    out; depth keeps its full precision."""

    def __init__(self, fit: Fit) -> None:
        face = mask_tensor(_bytes(fit.frame.template.face_mask[0]))[None]
        self._posed = PoseRenderer(
            fit.generator, fit.first.ws, face, fit.frame.camera, fit.settings.render, fit.settings.composite
        )

    @torch.no_grad()
    def at(self, label: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
        """Image ``[1,3,S,S]`` in [-1,1] and depth along the ray ``[R,R]`` at a camera label ``[25]``."""
        posed, camera = self._posed, torch.from_numpy(np.asarray(label, np.float32))[None]
        out = posed.generator.synthesis(
            posed.first, camera, posed.resolution, sampling=posed.sampling, planes=posed.planes
        )
        return out["image"].clamp(-1, 1), out["image_depth"][0, 0]
