"""An edit at several strengths: its latents and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.attribute_editing.edit_requests import EditRequest, make_edits, parse_requests
from portrait_core.attribute_editing.label_tables import complete_labels, read_labels
from portrait_core.attribute_editing.latent_edits import StyleFlowModel, edit_latent
from portrait_core.attribute_editing.photograph_labels import PhotographLabeller
from portrait_core.errors import InputError
from portrait_core.settings import EditSettings

Picture = NDArray[np.uint8]


def photograph_labels(
    picture: Picture, name: str, source: str, labeller: PhotographLabeller, model: StyleFlowModel
) -> dict[str, float]:
    """Return the attributes of a portrait by name: those of the user's table, else a local model's.

    Args:
        picture: the portrait ``[H,W,3]`` uint8.
        name: name of the portrait in the table.
        source: ``photograph``, or the URL of the table.
        labeller: the local model.
        model: the StyleFlow, which says which attributes are needed.

    Raises:
        InputError: the table is not usable, or an attribute that the StyleFlow needs is in neither source.
    """
    local = labeller.label([picture]).by_picture([name])
    table = {} if source == "photograph" else read_labels(source, model.conditions)
    return complete_labels(local, table, model.conditions)[name]


def latent_labels(model: StyleFlowModel, ws: Float[Tensor, "1 rows w"]) -> dict[str, float]:
    """Read a portrait's attributes by name from its latent.

    Raises:
        InputError: the StyleFlow has no reader.
    """
    if model.reader is None:
        raise InputError(
            "this StyleFlow was published without a reader of a portrait's attributes from its latent; set "
            "edit.labels=photograph, or edit.labels=FILE.csv with a row for the portrait"
        )
    return dict(zip(model.conditions.names, map(float, model.reader.read(ws)[0].tolist()), strict=True))


@dataclass(frozen=True)
class EditSeries:
    """An edit at strengths from 0 to its full strength.

    Attributes:
        requests: the requested changes.
        own: the portrait's attributes by name.
        strengths: fractions of the way, the first 0.
        latents: ``[1,rows,w]`` per strength.
        pictures: ``[S,S,3]`` uint8 per strength.
    """

    requests: Sequence[EditRequest]
    own: Mapping[str, float]
    strengths: Sequence[float]
    latents: Sequence[Tensor]
    pictures: Sequence[Picture]

    @classmethod
    def make(
        cls,
        model: StyleFlowModel,
        ws: Float[Tensor, "1 rows w"],
        own: Mapping[str, float],
        settings: EditSettings,
        draw: Callable[[Tensor], Picture],
    ) -> EditSeries:
        """Move a latent by the StyleFlow.

        Args:
            model: the StyleFlow.
            ws: the portrait's latent.
            own: its attributes by name.
            settings: the requested changes, their strength and the number of steps to show.
            draw: returns the picture of a latent.
        """
        requests, values = parse_requests(settings.attributes), model.conditions.vector(own)[None]
        strengths = [settings.strength * i / (settings.strip - 1) for i in range(settings.strip)]
        latents = [
            edit_latent(model, ws, values, make_edits(requests, own, model.conditions, strength))
            for strength in strengths
        ]
        return cls(requests, own, strengths, latents, [draw(one) for one in latents])

    def ends(self) -> NDArray[np.float32]:
        """Return the latents before and after ``[1,2,rows,w]``."""
        return torch.stack([self.latents[0][0], self.latents[-1][0]]).cpu().numpy()[None]
