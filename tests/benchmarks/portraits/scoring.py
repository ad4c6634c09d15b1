"""All that is measured of one tuned portrait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.cameras import angles_from_labels, degrees
from portrait_core.inversion.targets import image_array, image_tensor
from tests.benchmarks.inversion import picture_scores
from tests.benchmarks.portraits import poses
from tests.benchmarks.portraits.fitting import Fit, Renders
from tests.benchmarks.portraits.subjects import Subject
from tests.benchmarks.portraits.tools import Picture, Tools

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Numbers of one portrait in one variant; arrays run over :data:`poses.VIEWS`, NaN without a face.

    Attributes:
        taken_deg: yaw, pitch and roll of the photograph ``[3]``, as tracked.
        generator, aimed, mesh: the tracker's reading minus what was asked, yaw, pitch, roll in degrees
            ``[n,3]``: of the generator, of the generator asked for corrected poses, of the fitted head drawn
            as a mesh.
        depth: mean distance between the generator's and the fitted head's depth inside the face ``[n]``.
        identity: recognition distance to the photograph ``[n]``.
        apart: the same, between every two views ``[n,n]``.
        feature, l1, source_depth: of the picture at the photograph's camera.
        seconds: of inversion and tuning.
    """

    portrait: str
    variant: str
    taken_deg: Numbers
    generator: Numbers
    aimed: Numbers
    mesh: Numbers
    depth: Numbers
    identity: Numbers
    apart: Numbers
    feature: float
    l1: float
    source_depth: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain lists, rounded."""
        return {
            name: np.round(value, 4).tolist() if isinstance(value, np.ndarray | float) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Sheet:
    """The pictures of a score: the photograph, its template, the source view, and every view."""

    photograph: Picture
    template: Picture
    source: Picture
    views: list[Picture]


def score(fit: Fit, variant: str, mesh: Numbers, seconds: float) -> tuple[Score, Sheet]:
    """Render a tuned fit at every view and measure."""
    tools, subject, renders = fit.tools, fit.frame.subject, fit.renderer()
    made = [renders.at(label) for label in poses.labels()]
    views = [image_array(image[0]) for image, _ in made]
    points = poses.find_points(views, tools)
    generator = _pose_error(views, points, fit)
    image, depth = renders.at(subject.camera)
    feature, l1 = picture_scores(tools.phi, image, image_tensor(subject.crop)[None])
    identity, apart = _identities(subject, views, points, tools)
    result = Score(
        portrait=subject.name,
        variant=variant,
        taken_deg=degrees(angles_from_labels(subject.camera[None])[0]),
        generator=generator,
        aimed=_aimed_error(renders, generator, fit),
        mesh=mesh,
        depth=np.array([
            _depth_error(fit, label, depth)
            for label, (_, depth) in zip(poses.labels(), made, strict=True)
        ]),
        identity=identity,
        apart=apart,
        feature=feature,
        l1=l1,
        source_depth=_depth_error(fit, subject.camera, depth),
        seconds=seconds,
    )  # fmt: skip
    return result, Sheet(subject.crop, fit.frame.template.image[0], image_array(image[0]), views)


def _pose_error(pictures: Sequence[Picture], points: Numbers, fit: Fit) -> Numbers:
    read = poses.read_deg(points, fit.frame.subject.shape, fit.tools, fit.settings)
    return read - poses.asked_deg()


def _aimed_error(renders: Renders, error: Numbers, fit: Fit) -> Numbers:
    aimed = poses.aimed_labels(error + poses.asked_deg(), fit.settings)
    pictures = [image_array(renders.at(label)[0][0]) for label in aimed]
    return _pose_error(pictures, poses.find_points(pictures, fit.tools), fit)


def _depth_error(fit: Fit, label: NDArray[np.float32], depth: Tensor) -> float:
    """Inside the face without the mouth's inside: where tuning's depth anchor pulls."""
    camera = torch.from_numpy(label)[None]
    _, seen, _ = fit.tools.surface.see(fit.frame.vertices[None], camera, depth.shape[-1])
    inside = (seen.face & ~seen.mouth)[0]
    return float((depth - seen.depth[0]).abs()[inside].mean())


def _identities(
    subject: Subject, views: Sequence[Picture], points: Numbers, tools: Tools
) -> tuple[Numbers, Numbers]:
    """Recognition distances to the photograph ``[n]`` and between views ``[n,n]``; NaN where no face is."""
    photo = tools.recogniser.describe(subject.crop, subject.landmarks_px)
    faces = tools.recogniser.embed(np.stack(views), points)
    return np.linalg.norm(faces - photo, axis=1), np.linalg.norm(faces[:, None] - faces[None], axis=2)
