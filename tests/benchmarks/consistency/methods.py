"""Ways to show a person from a side, with or without an edit: the rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.attribute_editing.latent_edits import AttributeEdit, StyleFlowModel, edit_latent
from portrait_core.cameras import orbit_labels
from portrait_core.generators import Planes, StyleGAN2Generator, TriPlaneGenerator
from portrait_core.generators.scene_latents import scene_from_latent
from portrait_core.generators.scene_latents_2d import latents_2d
from portrait_core.training.evaluate import to_pictures
from portrait_core.training.render import Person, SceneRenderer
from portrait_core.training.train_2d import CROP, SIZE
from tests.benchmarks.consistency import labels

Picture = NDArray[np.uint8]
_SHOWN = 256
"""Pixels of a whole picture as tracker and recogniser see it; a crop has its share of them."""


@dataclass(frozen=True)
class Edit:
    """One attribute set to a value, or nothing.

    Attributes:
        name: of the attribute; empty for none.
    """

    name: str = ""
    value: float = 1.0

    def of_scenes(self, z: Tensor) -> Tensor:
        """Scenes ``[N,119]`` with the edit, exactly."""
        return labels.with_attribute(z, self.name, self.value) if self.name else z

    def of_latents(self) -> list[AttributeEdit]:
        """The edit as a flow does it."""
        return [AttributeEdit({self.name: self.value})] if self.name else []


class Method(Protocol):
    """Shows subject ``i`` from yaw and pitch in radians."""

    def __call__(self, subject: int, yaw_rad: float, pitch_rad: float) -> Picture: ...


def common(picture: Picture) -> Picture:
    """A whole picture with no more detail than the 2D generator's have, ``[256,256,3]``."""
    side = round(SIZE / CROP)
    if len(picture) > side:
        picture = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.resize(picture, (_SHOWN, _SHOWN), interpolation=cv2.INTER_CUBIC), np.uint8)


def enlarged(image: Tensor) -> Picture:
    """The 2D generator's picture ``[1,3,128,128]``, its face as large as the others', ``[176,176,3]``."""
    side = round(_SHOWN * CROP)
    return np.asarray(cv2.resize(_picture(image), (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)


def _picture(image: Tensor) -> Picture:
    return to_pictures(image.clamp(-1, 1))[0]


def scenes(renderer: SceneRenderer, z: Tensor, edit: Edit) -> Method:
    """The synthetic people themselves, drawn as meshes: what the metric gives to true views."""
    latents = edit.of_scenes(z)

    @lru_cache(maxsize=1)
    def person(subject: int) -> Person:
        return renderer.person(scene_from_latent(latents[subject].numpy(), renderer.head.expression_names))

    def show(subject: int, yaw_rad: float, pitch_rad: float) -> Picture:
        return common(renderer.view(person(subject), orbit_labels(yaw_rad, pitch_rad)[0]).image)

    return show


def moved_camera(generator: TriPlaneGenerator, flow: StyleFlowModel, z: Tensor, edit: Edit) -> Method:
    """The 3D generator: its flow edits w, the camera moves."""
    w = generator.mapping(z, None)[:, :1]
    own = labels.scene_labels(z)

    @lru_cache(maxsize=1)
    def head(subject: int) -> tuple[Tensor, Planes]:
        one = slice(subject, subject + 1)
        ws = edit_latent(flow, w[one], own[one], edit.of_latents())
        ws = ws.expand(-1, generator.settings.num_ws, -1)
        return ws, generator.planes(ws)

    @torch.no_grad()
    def show(subject: int, yaw_rad: float, pitch_rad: float) -> Picture:
        ws, planes = head(subject)
        camera = torch.from_numpy(orbit_labels(yaw_rad, pitch_rad))
        return common(_picture(generator.synthesis(ws, camera, planes=planes)["image"]))

    return show


def moved_latent(
    generator: StyleGAN2Generator,
    flow: StyleFlowModel,
    z: Tensor,
    pose_rad: NDArray[np.floating],
    edit: Edit,
) -> Method:
    """The 2D generator as the paper uses it: its flow edits w and moves its pose.

    Args:
        pose_rad: where each subject looks before, ``[N,2]``.
    """
    w = generator.mapping(torch.from_numpy(latents_2d(z.numpy(), pose_rad[:, 0], pose_rad[:, 1])))[:, :1]
    own = labels.posed_labels(z, pose_rad)

    @torch.no_grad()
    def show(subject: int, yaw_rad: float, pitch_rad: float) -> Picture:
        one = slice(subject, subject + 1)
        pose = {"yaw": float(np.degrees(yaw_rad)), "pitch": float(np.degrees(pitch_rad))}
        moved = edit_latent(flow, w[one], own[one], [*edit.of_latents(), AttributeEdit(pose)])
        return enlarged(generator.synthesis(moved))

    return show


def set_latent(generator: StyleGAN2Generator, z: Tensor, edit: Edit) -> Method:
    """The 2D generator with pose and attribute set in z, where they are known: the most a flow could do."""
    latents = edit.of_scenes(z)

    @torch.no_grad()
    def show(subject: int, yaw_rad: float, pitch_rad: float) -> Picture:
        posed = latents_2d(latents[subject : subject + 1].numpy(), yaw_rad, pitch_rad)
        return enlarged(generator(torch.from_numpy(posed)))

    return show
