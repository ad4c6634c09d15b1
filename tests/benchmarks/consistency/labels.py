"""The attributes that the flows of this benchmark know: the scene's and, for the 2D generator, pose."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.attribute_editing.scene_attributes import scene_conditions, scene_labels

__all__ = ["POSED_CONDITIONS", "SCENE_CONDITIONS", "posed_labels", "scene_labels", "with_attribute"]

SCENE_CONDITIONS = scene_conditions()
POSED_CONDITIONS = Conditions(
    attributes=(
        *SCENE_CONDITIONS.attributes,
        Condition(name="yaw", low=-30.0, high=30.0, unit="degrees"),
        Condition(name="pitch", low=-20.0, high=20.0, unit="degrees"),
    )
)
"""Of the 2D generator, which knows pose by its attributes alone."""
_STEPS, _STEP = 60, 0.25
_EDGE = 0.03
"""Shares stay so far from 0 and 1, which no scene reaches."""


def posed_labels(z: Tensor, pose_rad: NDArray[np.floating]) -> Tensor:
    """Labels of scenes ``[N,119]`` seen from yaw and pitch ``[N,2]``."""
    return torch.cat([scene_labels(z), torch.from_numpy(np.degrees(pose_rad)).float()], dim=1)


def with_attribute(z: Tensor, name: str, value: float) -> Tensor:
    """Scenes ``[N,119]`` with an attribute set where it is known exactly: moved along its gradient, which is
    the shortest way, until their label is as asked."""
    place = SCENE_CONDITIONS.index(name)
    share = SCENE_CONDITIONS.attributes[place].kind == "share"
    wanted = float(np.clip(value, _EDGE, 1 - _EDGE)) if share else value
    z = z.clone()
    for _ in range(_STEPS):
        with torch.enable_grad():
            z.requires_grad_(True)
            label = scene_labels(z)[:, place]
            (slope,) = torch.autograd.grad(label.sum(), z)
        z = z.detach()
        step = slope * ((wanted - label.detach()) / slope.square().sum(1).clamp(min=1e-8))[:, None]
        z += step * (_STEP / step.norm(dim=1, keepdim=True).clamp(min=_STEP))
    return z
