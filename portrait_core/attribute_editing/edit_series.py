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
    """Give attributes of a portrait by name: those of the user's table, else a local model's.

    Args:
        picture: the portrait ``[H,W,3]``.
        name: by which the table calls it.
        source: ``photograph``, or the URL of the table.
        labeller: the local model.
        model: the flow, which says what is needed.

    Raises:
        InputError: if the table cannot be used, or both leave out something that the flow needs.
    """
    local = labeller.label([picture]).by_picture([name])
    table = {} if source == "photograph" else read_labels(source, model.conditions)
    return complete_labels(local, table, model.conditions)[name]


def latent_labels(model: StyleFlowModel, ws: Float[Tensor, "1 rows w"]) -> dict[str, float]:
    """Read attributes of a portrait by name off its latent.

    Raises:
        InputError: if the flow has no reader.
    """
    if model.reader is None:
        raise InputError(
            "this flow was published without what reads a portrait's own attributes from its latent; set "
            "edit.labels=photograph, or edit.labels=FILE.csv with a row for the portrait"
        )
    return dict(zip(model.conditions.names, map(float, model.reader.read(ws)[0].tolist()), strict=True))


@dataclass(frozen=True)
class EditSeries:
    """An edit from none of it to all of it.

    Attributes:
        requests: what was asked.
        own: the portrait's attributes by name.
        strengths: shares of the way, the first 0.
        latents: ``[1,rows,w]`` for every strength.
        pictures: ``[S,S,3]`` for every strength.
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
        """Move a latent by the flow.

        Args:
            model: the flow.
            ws: the portrait's latent.
            own: its attributes by name.
            settings: what is asked, how strongly, and in how many steps it is shown.
            draw: gives the picture of a latent.
        """
        requests, values = parse_requests(settings.attributes), model.conditions.vector(own)[None]
        strengths = [settings.strength * i / (settings.strip - 1) for i in range(settings.strip)]
        latents = [
            edit_latent(model, ws, values, make_edits(requests, own, model.conditions, strength))
            for strength in strengths
        ]
        return cls(requests, own, strengths, latents, [draw(one) for one in latents])

    def ends(self) -> NDArray[np.float32]:
        """Give the latents before and after ``[1,2,rows,w]``."""
        return torch.stack([self.latents[0][0], self.latents[-1][0]]).cpu().numpy()[None]
