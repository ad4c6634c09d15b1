"""The clip that a generator is tuned on, made of what tracking and inversion left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.inversion.clip_data import ClipData
from portrait_core.inversion.targets import FrameTarget, image_tensor
from portrait_core.inversion.tuning import Clip, needs_matte
from portrait_core.photograph.layers import separate_crop
from portrait_core.photograph.matte import PersonSegmenter
from portrait_core.settings import TuningSettings


def tuning_clip(
    data: ClipData,
    frames: Sequence[int],
    latents: NDArray[np.float32],
    inversion_render: Callable[[int], NDArray[np.uint8] | None],
    settings: TuningSettings,
    segmenter: Callable[[], PersonSegmenter],
) -> Clip:
    """Make the clip that a generator is tuned on.

    Args:
        data: of the whole clip.
        frames: the N frames that were inverted.
        latents: theirs ``[N,rows,w]``.
        inversion_render: function from a frame to its picture ``[S,S,3]`` by the frozen generator, whose
            mouth is taken; where it returns None, the template's is taken.
        settings: say what the loss reads.
        segmenter: gives the network that takes the portrait apart, where a term of the loss reads that.
    """
    detail = settings.detail_weight > 0

    def frame(place: int) -> FrameTarget:
        return data.target(frames[place], inversion_render(frames[place]), tuning=True, detail=detail)

    return Clip(
        ws=torch.from_numpy(latents).to(data.device),
        camera=data.camera,
        frame=frame,
        vertices=lambda place: data.head.vertices(frames[place]),
        **_matte(data, settings, segmenter),
    )


def _matte(
    data: ClipData, settings: TuningSettings, segmenter: Callable[[], PersonSegmenter]
) -> dict[str, Tensor]:
    """Take the portrait apart, where a term of the loss reads it: ``matte`` and ``plate`` of a clip."""
    if not needs_matte(settings):
        return {}
    found = separate_crop(data.crop, data.head.silhouette(), segmenter())
    return {
        "matte": torch.from_numpy(found.coverage)[None].to(data.device),
        "plate": image_tensor(found.plate).to(data.device),
    }
