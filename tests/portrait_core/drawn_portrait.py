"""Portraits drawn from the embedded head itself, so that the right answer is known."""

import numpy as np
import torch

from portrait_core.cameras import orbit_labels, project_to_crop
from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.raster import interpolate, rasterize, vertex_normals
from portrait_core.template.template import PortraitFit, Template, TemplateRenderer
from portrait_core.tracking.mouth_inside import MouthInside

SIZE = 160
SKIN, LIPS, WHITE, IRIS, TOOTH = (
    (205, 160, 135),
    (170, 80, 80),
    (225, 222, 215),
    (40, 60, 130),
    (235, 230, 220),
)

DrawnPortrait = tuple[TemplateRenderer, np.ndarray, np.ndarray]
"""A renderer of a portrait, the photograph ``[S,S,3]`` and its landmarks ``[478,2]``."""


def draw(head: MorphableHead, fit: PortraitFit) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of the mesh ``[S,S,3]`` and its landmarks ``[478,2]``."""
    codes = [
        torch.as_tensor(np.asarray(c)[None], dtype=torch.float32)
        for c in (fit.shape, fit.expression, fit.jaw)
    ]
    vertices = head.decode(*codes)
    camera = torch.as_tensor(fit.camera[None])
    pixels = project_to_crop(camera, head.to_box(vertices), 2 * SIZE)
    fragments = rasterize(pixels, head.faces, 2 * SIZE, 2 * SIZE, cull_backfaces=True)
    group = head.face_group[fragments.face_id.clamp(min=0)]
    color = torch.tensor(SKIN) + head.mask("lips")[:, None] * (torch.tensor(LIPS) - torch.tensor(SKIN))
    color[(head.group_vertices("helper-upper-teeth"))] = torch.tensor(TOOTH, dtype=torch.float32)
    shade = 0.5 + 0.5 * vertex_normals(vertices, head.faces)[0, :, 2:].clamp(min=0)
    image = interpolate((color * shade)[None], head.faces, fragments)
    image[(fragments.face_id < 0)] = torch.tensor([90.0, 100.0, 120.0])
    marks = project_to_crop(camera, head.to_box(head.landmarks(vertices)), 2 * SIZE)[0, :, :2].numpy()
    y, x = torch.meshgrid(torch.arange(2 * SIZE) + 0.5, torch.arange(2 * SIZE) + 0.5, indexing="ij")
    for iris, number in ((regions.RIGHT_IRIS, 2), (regions.LEFT_IRIS, 1)):
        center, radius = marks[iris[0]], np.linalg.norm(marks[list(iris[1:])] - marks[iris[0]], axis=1).mean()
        disc = ((x - float(center[0])) ** 2 + (y - float(center[1])) ** 2 < float(radius) ** 2)[None]
        eye = (group == number) & (fragments.face_id >= 0)
        image[eye] = torch.tensor(WHITE, dtype=torch.float32)
        image[eye & disc] = torch.tensor(IRIS, dtype=torch.float32)
    small = torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), 2)[0].permute(1, 2, 0)
    return small.round().clamp(0, 255).byte().numpy(), marks / 2


def renderer_of(head: MorphableHead, seed: int = 0, yaw: float = 0.1, **units: float) -> DrawnPortrait:
    """A renderer of a portrait drawn from the mesh with some units, the portrait and its landmarks."""
    expression = np.zeros(head.n_expression, np.float32)
    for name, value in units.items():
        expression[head.index(name)] = value
    jaw = head.jaw_from_expression(torch.from_numpy(expression)[None]).numpy()[0]
    shape = np.random.default_rng(seed).normal(size=head.n_shape).astype(np.float32) * 0.4
    fit = PortraitFit(shape, expression, jaw, orbit_labels(yaw, 0.05)[0])
    portrait, marks = draw(head, fit)
    return TemplateRenderer(head, portrait, fit, marks), portrait, marks


def render(head: MorphableHead, portrait: DrawnPortrait, **units: float) -> Template:
    """The template of a portrait ``(renderer, photograph, landmarks)`` with other values of some units."""
    return render_told(head, portrait, None, units)


def render_told(
    head: MorphableHead, portrait: DrawnPortrait, inside: MouthInside | None, units: dict[str, float]
) -> Template:
    """The same, where a driver's mouth shows ``inside`` in the one frame."""
    renderer = portrait[0]
    expression = renderer.skin.fit.expression.copy()
    for name, value in units.items():
        expression[head.index(name)] = value
    jaw = head.jaw_from_expression(torch.from_numpy(expression)[None]).numpy()
    return renderer.render(expression[None], jaw, inside)
