"""Whom the benchmark inverts: photographs, tracked as the product tracks a portrait, and synthetic people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import project_to_crop
from portrait_core.errors import InputError
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import scene_from_latent
from portrait_core.media import read_image
from portrait_core.runtime.package_files import data_file, sample_portrait
from portrait_core.settings import Settings
from portrait_core.tracking.crop import crop_image
from portrait_core.tracking.detector import FaceDetector, open_session, search_levels
from portrait_core.tracking.track import track_image
from portrait_core.training.render import View
from tests.benchmarks.portraits.tools import Picture, Tools, package_file

GROUP_PICTURE = ("insightface", "data/images/t1.jpg")
_MARGINS = (3.0, 2.4, 2.0, 1.7)
"""Side of the square around a face of the group picture, in sides of its box: the widest that shows no other
face is taken, for the product refuses a portrait with two."""


@dataclass(frozen=True)
class Subject:
    """One person from one side, as tracking a portrait leaves it.

    Attributes:
        name: for tables and files.
        crop: the picture ``[S,S,3]`` uint8.
        camera: its label ``[25]`` float32.
        shape, expression, jaw: the fit, ``[S]``, ``[E]`` and ``[3]`` float32.
        landmarks_px: ``[478,2]`` in pixels of the crop.
    """

    name: str
    crop: Picture
    camera: NDArray[np.float32]
    shape: NDArray[np.float32]
    expression: NDArray[np.float32]
    jaw: NDArray[np.float32]
    landmarks_px: NDArray[np.floating]

    def vertices_m(self, head: MorphableHead) -> Tensor:
        """Its head's mesh ``[1,V,3]``, metres."""
        codes = (self.shape, self.expression, self.jaw)
        return head.decode(*(torch.from_numpy(code)[None] for code in codes))


def default_names() -> list[str]:
    """The astronaut, and two faces of insightface's group picture where that is installed: those taken most
    from the front."""
    group = ["t1:1", "t1:3"] if package_file(*GROUP_PICTURE) else []
    return ["astronaut", *group]


def photograph(name: str, settings: Settings) -> tuple[str, Picture]:
    """A short name and the picture of ``astronaut``, ``t1:K`` (the group picture's K-th face, the largest
    first) or a file.

    Raises:
        ValueError: where there is no such picture.
    """
    if name == "astronaut":
        return name, read_image(sample_portrait())
    if not name.startswith("t1:"):
        path, longest = Path(name), settings.media.portrait_max_side
        image = read_image(path)
        shrink = min(1.0, longest / max(image.shape[:2]))
        size = (round(image.shape[1] * shrink), round(image.shape[0] * shrink))
        small = image if shrink == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return path.stem, np.asarray(small, np.uint8)
    path_of_group = package_file(*GROUP_PICTURE)
    if path_of_group is None:
        raise ValueError(f"{name}: insightface's sample picture {GROUP_PICTURE[1]} is not installed")
    return name.replace(":", "_"), _face_of_group(read_image(path_of_group), int(name[3:]), settings)


def _face_of_group(image: Picture, index: int, settings: Settings) -> Picture:
    """The square around one face, without its neighbours' faces."""
    models = data_file(settings.tracking.models)
    detector = FaceDetector(open_session(models / "face_detector_256.onnx", 1))
    levels = search_levels(image.shape[1], image.shape[0])
    boxes = max((detector.detect(image[None], np.array([0]), level)[0] for level in levels), key=len)
    sides = (boxes.box_px[:, 1] - boxes.box_px[:, 0]).max(1)
    if not 0 <= index < len(boxes):
        raise ValueError(f"t1:{index}: {len(boxes)} faces were found; give a number below that")
    chosen = int(np.argsort(-sides)[index])
    middle = boxes.box_px.mean(1)
    others = np.delete(middle, chosen, axis=0)
    reach = np.abs(others - middle[chosen]).max(1).min() if len(others) else np.inf
    # a neighbour's centre at the border is half a face: too little for the landmark model to call it one
    margin = next((m for m in _MARGINS if m * sides[chosen] / 2 < reach), _MARGINS[-1])
    low, high = (middle[chosen] + s * margin / 2 * sides[chosen] for s in (-1, 1))
    (x0, y0), (x1, y1) = low.round().clip(0).astype(int), high.round().clip(0).astype(int)
    return np.ascontiguousarray(image[y0:y1, x0:x1])


def tracked(name: str, image: Picture, tools: Tools, settings: Settings) -> Subject:
    """Track a photograph ``[H,W,3]`` and cut its crop, as the stage ``portrait`` does.

    Raises:
        InputError: unless there is exactly one face.
    """
    found, track = track_image(tools.landmarker, tools.head, image, settings.tracking)
    if found.faces[0] != 1:
        raise InputError(f"{found.faces[0]} faces were found in {name}; crop it to one")
    size, side = settings.template.size, float(track.crop_side_px[0])
    corner = track.crop_center_px[0] - side / 2
    return Subject(
        name=name,
        crop=crop_image(image, track.crop_center_px[0], side, size),
        camera=track.cameras[0],
        shape=track.shape,
        expression=track.expression[0],
        jaw=track.jaw[0],
        landmarks_px=np.asarray((found.points[0] - corner) * (size / side), np.float32),
    )


def synthetic(name: str, z: Tensor, view: View, head: MorphableHead) -> Subject:
    """A synthetic person ``z [1,120]`` seen in ``view``, as a perfect tracker would fit it: with the true
    camera its other views can be compared pixel by pixel."""
    scene = scene_from_latent(z[0].numpy(), head.expression_names)
    expression = np.asarray(scene.expression, np.float32)
    jaw = head.jaw_from_expression(torch.from_numpy(expression)[None])[0].numpy()
    subject = Subject(
        name, view.image, view.camera, np.asarray(scene.full_shape()[0], np.float32), expression, jaw,
        np.zeros((478, 2)),
    )  # fmt: skip
    points = head.to_box(head.landmarks(subject.vertices_m(head)))
    pixels = project_to_crop(torch.from_numpy(view.camera)[None], points, view.image.shape[0])
    return Subject(**{**vars(subject), "landmarks_px": pixels[0, :, :2].numpy()})
