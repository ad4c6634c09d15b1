"""The fitted head as a measure of the volume while a generator is tuned on frames of one camera.

Rasterising a head has results whose sizes depend on the data, for which a GPU makes the host wait. So it is
done before a block of steps: what a frame shows at the portrait's camera once per frame, what a random camera
sees once per step, as rays with the depth and colour that they should find. The losses of a step then read
rows of fixed shape.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from portrait_core.face_model.reproject import HeadSurface, NovelView, SourceFrame
from portrait_core.generators import Patch, Rays, VolumePatch
from portrait_core.inversion.features import masked_mean

MESH_SIZE = 128
"""Side in pixels of a random camera's view of the mesh."""
INSIDE_EMPHASIS, DETAIL_EMPHASIS = 5.0, 3.0
"""The mouth's inside, and lips and lids, are drawn so much more often among a random view's rays: they are
small, and a mouth that closes for one camera alone looks open to the next."""
SOLID_EMPHASIS, SOLID_MARGIN = 0.25, 0.01
"""Chance of a ray at the fitted head outside the face, over the face's, and how far behind the head's surface
it may end (box units): hair and clothes lie before the scalp and the neck, nothing is seen through them."""
_SOURCES = 64
"""Frames whose rasterised heads stay in memory."""
_UNSEEN_CAVITY = (-0.6, -0.8, -0.8)
"""A dark red, where no pixel of a mouth's inside is visible, in [-1,1]."""


class ViewRays(NamedTuple):
    """Rays of a random view and what they should find, ``n`` of them, or ``[..., n]`` per step."""

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    depth: Float[Tensor, " n"]
    """Distance of the head's surface along the ray, box units."""
    face: Float[Tensor, " n"]
    """1 on the face."""
    deep: Float[Tensor, " n"]
    """Weight of the depth: 0 on the mouth's inside, and everywhere where the view shows no face."""
    colour: Float[Tensor, "n 3"]
    """In [-1,1]."""
    known: Float[Tensor, " n"]
    """Weight of the colour: 1 where the portrait's camera saw the surface, or the mouth's inside was hidden
    from it."""

    @property
    def rays(self) -> Rays:
        """The rays of one step, whose arrays lead with one row."""
        return Rays(self.origins, self.directions)


class HeadGeometry:
    """The head of every frame of a clip, seen by the portrait's camera and by others.

    Args:
        surface: of the clip's head.
        vertices: box-frame mesh of a frame ``[V,3]``.
        camera: the portrait's label ``[1,25]``.
        matte: the person's coverage in the portrait crop ``[1,S,S]`` in 0..1.
        resolution: the neural resolution.
        rays: number of rays of a view.
    """

    def __init__(
        self,
        surface: HeadSurface,
        vertices: Callable[[int], Tensor],
        camera: Float[Tensor, "1 25"],
        matte: Float[Tensor, "1 s s"],
        resolution: int,
        rays: int,
    ) -> None:
        self._surface, self._vertices, self._camera, self._count = surface, vertices, camera, rays
        self._resolution = resolution
        self._matte = F.adaptive_avg_pool2d(matte, resolution)
        self._sources: OrderedDict[int, SourceFrame] = OrderedDict()

    def frame_rows(self, frame: int, image: Float[Tensor, "3 s s"]) -> dict[str, Tensor]:
        """Return the portrait camera's view of a frame.

        The rows are ``depth``, ``depth_face`` (the face) and ``depth_known`` (the head without the mouth's
        interior), ``[1,R,R]`` each, and the ``small`` image ``[3,R,R]``.
        """
        small = F.adaptive_avg_pool2d(image, self._resolution)
        seen = self._source(frame, small).seen
        known = (seen.depth > 0) & ~seen.mouth
        masks = {"depth_face": seen.face.float(), "depth_known": known.float()}
        return {"small": small, "depth": seen.depth} | masks

    def view(
        self, frame: int, small: Float[Tensor, "3 r r"], camera: Float[Tensor, "1 25"], seed: int
    ) -> ViewRays:
        """Draw rays of another camera's view of a frame, of which ``small`` is in :meth:`frame_rows`.

        ``seed`` decides the draw.
        """
        source = self._source(frame, small)
        view = source.at(camera, MESH_SIZE)
        cavity = _cavity_colour(small, source.seen.mouth[0])
        rng = torch.Generator(device=camera.device).manual_seed(seed)
        return _drawn(view, camera, cavity, self._count, rng)

    def _source(self, frame: int, small: Tensor) -> SourceFrame:
        """Return a frame's rasterised head, kept for the frames that were asked for last."""
        found = self._sources.pop(frame, None)
        if found is None:
            found = SourceFrame(self._surface, small, self._vertices(frame), self._camera[0], self._matte)
        self._sources[frame] = found
        while len(self._sources) > _SOURCES:
            self._sources.popitem(last=False)
        return found


def _drawn(
    view: NovelView, camera: Tensor, cavity: Float[Tensor, 3], count: int, rng: torch.Generator
) -> ViewRays:
    """Choose rays of a view.

    Where the mouth's inside was hidden from the portrait's camera, ``cavity`` stands in: without it an unseen
    cavity fills with skin.
    """
    mouth, face, detail, valid = (
        part.reshape(-1) for part in (view.mouth, view.face, view.detail, view.valid)
    )
    depth = view.depth.reshape(-1)
    chance = face.float() * (1 + INSIDE_EMPHASIS * mouth + DETAIL_EMPHASIS * detail)
    chance = chance + SOLID_EMPHASIS * ((depth > 0) & ~face)
    shown = face.any()  # a view without a face is drawn evenly and weighs nothing
    index = torch.multinomial(
        torch.where(shown, chance, torch.ones_like(chance)), count, replacement=True, generator=rng
    )
    rays = Rays.of_cameras(camera, MESH_SIZE).select(index)
    hidden = (mouth & ~valid)[index]
    seen = view.image[0].flatten(1).T[index]
    return ViewRays(
        rays.origins[0],
        rays.directions[0],
        depth[index],
        face[index].float(),
        (~mouth[index] & shown).float(),
        torch.where(hidden[:, None], cavity, seen),
        ((valid[index] | hidden) & shown).float(),
    )


def view_loss(
    depth: Float[Tensor, "1 n"], colour: Float[Tensor, "1 n 3"], wanted: ViewRays
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the errors of depth and of colour of a random view's rays, of which ``wanted`` has one row."""
    error = depth_error(depth, wanted.depth, wanted.face)
    away = (colour - wanted.colour).abs().mean(-1)
    return (error * wanted.deep).mean(), (away * wanted.known).mean()


def anchor_loss(render: VolumePatch, rows: Mapping[str, Tensor], patch: Patch) -> Float[Tensor, ""]:
    """Return the error of the first frame's depth at the portrait's camera.

    ``rows`` are :meth:`HeadGeometry.frame_rows` of that frame ``[1,1,R,R]``.
    """
    wanted, face, known = (patch.cut(rows[name]) for name in ("depth", "depth_face", "depth_known"))
    return masked_mean(depth_error(render.depth[:1], wanted, face), known)


def depth_error(made: Tensor, wanted: Tensor, face: Tensor) -> Tensor:
    """Give the distance from the fitted head's surface: either way on the face, only behind it elsewhere."""
    error = made - wanted
    return face * error.abs() + (1 - face) * (error - SOLID_MARGIN).clamp(min=0)


def _cavity_colour(image: Float[Tensor, "3 r r"], mouth: Tensor) -> Float[Tensor, 3]:
    """Return the mean colour of the mouth's visible inside, darkened; a dark red where none is visible."""
    weight = mouth.float()
    mean = (image * weight).sum((1, 2)) / weight.sum().clamp(min=1)
    unseen = torch.tensor(_UNSEEN_CAVITY).to(image)
    return torch.where(mouth.any(), (mean + 1) * 0.6 - 1, unseen)
