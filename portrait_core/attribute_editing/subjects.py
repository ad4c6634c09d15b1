"""Random people of a generator, edited, and seen from two sides (paper section 4.2, table 3).

A 3D generator's camera moves. A 2D generator's pose is an attribute that its StyleFlow moves, after the edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.attribute_editing.conditions import Conditions
from portrait_core.attribute_editing.consistency_edits import TYPICAL, is_published, pose_edit, turning
from portrait_core.attribute_editing.label_tables import complete_labels, picture_key, read_labels
from portrait_core.attribute_editing.latent_edits import AttributeEdit, AttributeEditor, StyleFlowModel
from portrait_core.attribute_editing.photograph_labels import PhotographLabeller
from portrait_core.attribute_editing.scene_attributes import sample_poses, sample_scenes
from portrait_core.attribute_editing.training_samples import draw_samples
from portrait_core.cameras import orbit_labels
from portrait_core.errors import InputError
from portrait_core.generators import RaySampling, StyleGAN2Generator, TriPlaneGenerator
from portrait_core.generators.scene_latents_2d import latents_2d
from portrait_core.inversion.pictures import picture_of
from portrait_core.inversion.targets import image_array
from portrait_core.metrics.view_reprojection import DepthView, view_agreement

Generator = TriPlaneGenerator | StyleGAN2Generator
Picture = NDArray[np.uint8]

FIRST_SAMPLE = 1_000_000
"""Number of the sample of the generator that is the first person: none that a StyleFlow was trained on."""
_FRONTAL = orbit_labels(0.0, 0.0)


@dataclass(frozen=True)
class Person:
    """A latent with its attributes.

    Attributes:
        w: ``[1,rows,D]``: one row, or as many as the generator has where the StyleFlow is a published one.
        labels: ``[1,C]`` attributes in the StyleFlow's units; None where no StyleFlow moves the latent.
    """

    w: Float[Tensor, "1 rows w"]
    labels: Float[Tensor, "1 context"] | None = None


@torch.no_grad()
def draw_person(
    generator: Generator, number: int, seed: int, truncation: float, *, posed: bool = False
) -> Float[Tensor, "1 rows w"]:
    """Draw the ws of a person by their number; each is equal whoever else is drawn.

    Args:
        generator: a generator of either kind.
        number: number of the person, from 0.
        seed: seed of the run.
        truncation: factor toward the average in 0..1. It moves w, except for a 3D generator whose z holds a
            scene, which is drawn nearer to the average.
        posed: whether z of a 2D generator holds a scene and a camera, which are then drawn as those of its
            training; any other z is standard normal.
    """
    number += FIRST_SAMPLE
    if isinstance(generator, TriPlaneGenerator):
        return draw_samples(generator, range(number, number + 1), seed, truncation)[1]
    if posed:
        yaw, pitch = sample_poses(1, number, seed)[0]
        z = latents_2d(sample_scenes(1, number, seed, 1.0).numpy(), yaw, pitch)
    else:
        rng = np.random.default_rng((seed, number))
        z = rng.standard_normal((1, generator.settings.z_dim), np.float32)
    like = next(generator.parameters())
    ws: Tensor = generator.mapping(torch.from_numpy(z).to(like), None, truncation)
    return ws


def rows_to_edit(ws: Float[Tensor, "1 rows w"], model: StyleFlowModel) -> Float[Tensor, "1 rows w"]:
    """Return the rows that a StyleFlow edits: all of a 2D generator's for a published one, else the first.

    Raises:
        InputError: the StyleFlow's latents have another width than the generator's.
    """
    width = model.flow.settings.width
    if ws.shape[-1] != width:
        raise InputError(
            f"the StyleFlow moves latents of {width} numbers and the generator's have {ws.shape[-1]}: it "
            "belongs to another generator; train one with `portrait train-styleflow`"
        )
    return ws if is_published(model.conditions) else ws[:, :1]


def frontal_picture(
    generator: Generator,
    ws: Float[Tensor, "1 rows w"],
    resolution: int | None,
    sampling: RaySampling | None,
) -> Picture:
    """Return the picture ``[S,S,3]`` by which a person is labelled: a 3D generator's from the front."""
    camera = torch.from_numpy(_FRONTAL).to(ws)
    return picture_of(generator, ws, camera, resolution or generator.settings.neural_resolution, sampling)


def picture_labels(
    picture: Picture, number: int, source: str, labeller: PhotographLabeller, conditions: Conditions
) -> dict[str, float]:
    """Return a person's attributes by name from the user's table, else a local model, else a typical person.

    Args:
        picture: of :func:`frontal_picture`.
        number: number of the person, by which the table names them.
        source: ``photograph``, or the URL of a table.
        labeller: the local model.
        conditions: schema of the StyleFlow.

    Raises:
        InputError: the table is not usable, or nothing gives an attribute.
    """
    name = str(number)
    read = labeller.label([picture]).by_picture([name])[name]
    known = {key: value for key, value in {**TYPICAL, **read}.items() if key in conditions.names}
    table = {} if source == "photograph" else read_labels(source, conditions)
    own = {key: row for key, row in table.items() if picture_key(key) == name}
    return complete_labels({name: known}, own, conditions)[name]


def edited_person(
    model: StyleFlowModel, w: Float[Tensor, "1 rows w"], own: Mapping[str, float], edit: AttributeEdit | None
) -> Person:
    """Return a person after an edit, or with None as they are.

    Raises:
        InputError: the attributes or the edit do not fit the StyleFlow.
        FloatingPointError: the StyleFlow's equation cannot be solved.
    """
    labels = model.conditions.vector(own)[None].to(w)
    if edit is None:
        return Person(w, labels)
    editor = AttributeEditor(model, w, labels)
    editor.apply(edit)
    return Person(editor.w, editor.labels)


@torch.no_grad()
def moved_camera(
    generator: TriPlaneGenerator,
    person: Person,
    sides_rad: NDArray[np.floating],
    resolution: int | None = None,
    sampling: RaySampling | None = None,
) -> list[DepthView]:
    """Render a person of a 3D generator from several sides.

    Args:
        generator: in eval mode.
        person: on its device.
        sides_rad: yaw and pitch of the camera ``[n,2]`` in radians.
        resolution: side of the volume rendering in rays; None takes the generator's own.
        sampling: samples per ray; None takes those of the generator's training.

    Returns:
        ``n`` views of one picture each, with its depth.
    """
    ws = person.w.expand(-1, generator.settings.num_ws, -1)
    planes, views = generator.planes(ws), []
    for yaw, pitch in np.asarray(sides_rad, np.float64):
        camera = torch.from_numpy(orbit_labels(float(yaw), float(pitch))).to(ws)
        made = generator.synthesis(ws, camera, resolution, sampling=sampling, planes=planes)
        views.append(DepthView.of(made, camera))
    return views


def pictures_of(views: Sequence[DepthView]) -> list[Picture]:
    """Return the pictures ``[S,S,3]`` uint8 of views."""
    return [image_array(view.picture[0]) for view in views]


def agreement_of(first: DepthView, second: DepthView) -> NDArray[np.float64]:
    """Compare two views by reprojection with their own depth, in both directions.

    Returns:
        ``[2]``: mean absolute difference, pictures in 0..1, and the share of pixels that both views see.
    """
    both = [view_agreement(*pair) for pair in ((first, second), (second, first))]
    rows = [torch.cat([one.l1, one.visible]) for one in both]
    return np.asarray(torch.stack(rows).mean(0).double().cpu().numpy())


@torch.no_grad()
def moved_latent(
    generator: StyleGAN2Generator, model: StyleFlowModel, person: Person, sides_rad: NDArray[np.floating]
) -> list[Picture]:
    """Show a person of a 2D generator from several sides, as the StyleFlow turns them.

    Angles are the StyleFlow's own yaw and pitch.

    Args:
        generator: in eval mode.
        model: StyleFlow that knows yaw and pitch.
        person: on the generator's device, with attributes.
        sides_rad: yaw and pitch ``[n,2]`` in radians.

    Returns:
        ``n`` pictures ``[S,S,3]`` uint8.

    Raises:
        InputError: the StyleFlow does not know yaw and pitch.
        FloatingPointError: its equation cannot be solved.
    """
    if person.labels is None:
        raise InputError("a 2D generator's people need attributes to be turned; give them some")
    sides = np.degrees(np.asarray(sides_rad, np.float64))
    model = turning(model, *(float(most) for most in np.abs(sides).max(0)))
    pictures = []
    for yaw, pitch in sides:
        editor = AttributeEditor(model, person.w, person.labels)
        turned = editor.apply(pose_edit(model, float(yaw), float(pitch), person.w.shape[1]))
        pictures.append(image_array(generator.synthesis(turned)[0]))
    return pictures


def scaled_view(picture: Picture, size: int, detail: int | None = None) -> Picture:
    """Scale a picture ``[H,W,3]`` to ``[size,size,3]``, after shrinking a larger one to ``detail``."""
    if detail is not None and detail < len(picture):
        picture = _scaled(picture, detail)
    return picture if len(picture) == size else _scaled(picture, size)


def _scaled(picture: Picture, side: int) -> Picture:
    how = cv2.INTER_AREA if side < len(picture) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=how), np.uint8)
