"""Attributes of the embedded generator's synthetic people, computed from the scene that z holds.

Labels are exact functions of z, without pictures and without measurement error. There are attributes for what
these pictures show. Freckles, red hair and a moustache without a beard are in the scene, but the generator
hardly draws them; yaw and pitch are the camera's. Baldness has no attribute of its own: scenes of
``hair_length`` 0 are bald, which the generator draws as thin, cropped hair.

Most attributes map a scene's appearance to 0..1: 0.5 is the average person, 0 and 1 are :data:`SPAN` standard
deviations from it. They vary even where the drawing does not, such as among the clean-shaven below 0.5 of
``beard``, so that one value corresponds to one place in the latent space and not to half of it. The mapping
is linear, because the value 1 of a quantile would belong to no scene. ``glasses`` is 0 for the average
person, who wears none, 0.5 where they appear, and 1 at :data:`GLASSES_WORN` deviations; of people without any
it can be below 0.

Age and gender of a head are measured on the body model's adults, whose age and gender are known: least
squares on the 30 shape components (:mod:`portrait_core.training.phenotypes`; R² on other adults 0.935 and
0.929). The skin has no wrinkles: these people look old as much by their hair. So ``age`` is the mean of two
apparent ages, that of the head, and that of the hair by :data:`GREY_YEARS` and :data:`LINE_YEARS`. Grey hair
has no attribute of its own, since an edit of age would then have to keep it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.errors import InputError
from portrait_core.generators.scene_latents import (
    APPEARANCE,
    EXPRESSION_GAIN,
    EXPRESSION_MEAN,
    N_EXPRESSION,
    N_LATENT,
    N_SHAPE,
    UNITS,
    fitted_names,
    latent_from_scene,
    sample_scene,
)
from portrait_core.generators.scene_latents_2d import PITCH_SCALE, YAW_SCALE

AGE_OFFSET = 44.95
AGE_DIRECTION = (
    -3.88, -0.49, 3.03, 2.38, 4.98, -0.19, 9.53, -0.53, -3.86, -10.44, 6.15, 2.18, -5.74, 4.89, -3.49,
    -1.27, -2.37, 7.84, -2.24, 0.74, -0.18, 0.02, -2.34, 2.82, -1.26, 0.41, -3.08, -0.44, 2.30, 0.48,
)  # fmt: skip
"""Years per standard deviation of shape."""
GENDER_OFFSET = 0.5072
GENDER_DIRECTION = (
    -0.2925, 0.0604, 0.0372, 0.0070, 0.0268, 0.0423, -0.0364, -0.0234, -0.0345, -0.0040, 0.0435, -0.0733,
    -0.0131, -0.0215, 0.0576, -0.0076, 0.0350, -0.0560, 0.0380, 0.0008, 0.0050, -0.0034, -0.0089, -0.0385,
    -0.0164, 0.0272, 0.0109, -0.0170, -0.0219, -0.0132,
)  # fmt: skip
"""Change of gender (0 female, 1 male) per standard deviation of shape."""
GREY_YEARS, LINE_YEARS = 24.0, 10.0
"""Years per standard deviation of ``hair_grey`` and ``hair_line`` (receding), from the same mean. Chosen so
that together they vary a little more than the heads' ages do (22)."""
YOUNGEST, SOFT_YEARS = 10.0, 6.0
"""Minimum age, and the width over which ages bend toward it, in years: a sum of normal values is not bounded,
and ages must not fall below 0. 45 and more stay unchanged, 25 becomes 25.5, 18 becomes 19.4."""
SPAN = 2.2
"""Standard deviations of appearance from the middle of an attribute's range to its ends; scenes are drawn
within 2.5."""
SHARES = {
    "beard": ("beard",),
    "hair_length": ("hair_length",),
    "hair_volume": ("hair_volume",),
    "fringe": ("hair_fringe",),
    "hair_light": ("hair_tone",),
    "skin_dark": ("skin_tone",),
    "brows": ("brow_dark", "brow_width"),
    "eyes_light": ("iris_light",),
    "lips_dark": ("lip_dark",),
}
"""Attributes in 0..1, and the appearance values of which each is the mean."""

GLASSES_WORN = 1.5
"""Value of a scene's ``glasses`` that the attribute's 1 stands for: 7 % of people lie beyond it, and 23 %
beyond half of it, from where glasses are seen."""

SHOWN_ON_PHOTOGRAPHS = ("age", "beard", "hair_light")
"""Attributes whose edits are visible on photographs: hair turns grey, a beard is close-cropped, hair turns
lighter or darker. Most others are hardly visible, as the generator that was tuned on a photograph departs
little from it; hair of another length or volume needs what the photograph lacks; skin is tinted evenly."""


def shows_on_photographs(name: str, conditions: Conditions) -> bool | None:
    """Tell whether an edit of an attribute is visible on photographs.

    None for a StyleFlow of another generator, for which it has not been examined.
    """
    return name in SHOWN_ON_PHOTOGRAPHS if conditions.names == scene_conditions().names else None


def scene_conditions() -> Conditions:
    """Return the attributes in the order of :func:`scene_labels`; ``standardised(labels)`` gives them scales.

    gender: 0 female, 1 male, as in the published flows. smile: strength of the smile's blendshapes. Labels of
    scenes rarely lie outside 18..80 years, and lie outside 0..1 where a head is more male or female than the
    body model's.
    """
    return Conditions(
        attributes=(
            Condition(name="age", low=18.0, high=80.0, unit="years"),
            Condition(name="gender", kind="share"),
            Condition(name="smile", kind="share"),
            *(Condition(name=name, kind="share") for name in SHARES),
            Condition(name="glasses", kind="switch"),
        )
    )


def scene_labels(z: Float[Tensor, "n 120"]) -> Float[Tensor, "n context"]:
    """Return attributes ``[N,C]`` of scenes ``[N,120]``, in their units; smooth in z.

    Raises:
        InputError: z is not of that shape.
    """
    if z.ndim != 2 or z.shape[1] != N_LATENT:
        raise InputError(
            f"scenes have shape {list(z.shape)}, expected [N, {N_LATENT}]; only the embedded generator's z "
            "holds a scene"
        )
    z = z.double()
    shape = z[:, :N_SHAPE]
    head = shape @ z.new_tensor(AGE_DIRECTION)
    hair = GREY_YEARS * _appearance(z, "hair_grey") + LINE_YEARS * _appearance(z, "hair_line")
    mean = AGE_OFFSET + (head + hair) / 2
    age = YOUNGEST + SOFT_YEARS * softplus((mean - YOUNGEST) / SOFT_YEARS)
    gender = GENDER_OFFSET + shape @ z.new_tensor(GENDER_DIRECTION)
    smile = (_unit(z, "mouthSmileLeft") + _unit(z, "mouthSmileRight")) / 2
    shares = [
        0.5 + torch.stack([_appearance(z, name) for name in names]).mean(0) / (2 * SPAN)
        for names in SHARES.values()
    ]
    glasses = _appearance(z, "glasses") / GLASSES_WORN
    return torch.stack([age, gender, smile, *shares, glasses], 1).float()


POSE = ("yaw", "pitch")
"""Names of the camera's angles in :func:`posed_scene_conditions`, as in the published flows."""
POSE_SPREAD_RAD, POSE_LIMIT_RAD = (YAW_SCALE, PITCH_SCALE), (0.8, 0.45)
"""Deviation and limit of yaw and pitch of :func:`sample_poses`: those of the 2D generator's training."""


def posed_scene_conditions() -> Conditions:
    """Return the attributes of the embedded 2D generator: a scene's, then the camera's yaw and pitch."""
    return Conditions(
        attributes=(
            *scene_conditions().attributes,
            Condition(name="yaw", low=-30.0, high=30.0, unit="degrees"),
            Condition(name="pitch", low=-20.0, high=20.0, unit="degrees"),
        )
    )


def posed_scene_labels(
    z: Float[Tensor, "n 120"], pose_rad: NDArray[np.floating]
) -> Float[Tensor, "n context"]:
    """Return attributes ``[N,C]`` of scenes ``[N,120]`` seen from yaw and pitch ``[N,2]`` in radians.

    Raises:
        InputError: z is not of that shape.
    """
    return torch.cat([scene_labels(z), torch.from_numpy(np.degrees(pose_rad)).float()], dim=1)


def sample_poses(count: int, start: int, seed: int) -> NDArray[np.float64]:
    """Draw yaw and pitch ``[count,2]`` in radians of the samples numbered ``start`` and following.

    They are independent of the scenes that :func:`sample_scenes` draws with the same seed and numbers.
    """
    drawn = [
        np.random.default_rng([seed, number, len(POSE)]).normal(size=2)
        for number in range(start, start + count)
    ]
    poses = np.stack(drawn) * POSE_SPREAD_RAD if drawn else np.zeros((0, 2))
    return np.clip(poses, -np.array(POSE_LIMIT_RAD), POSE_LIMIT_RAD)


def sample_scenes(count: int, start: int, seed: int, truncation: float = 0.7) -> Float[Tensor, "count 120"]:
    """Draw z of the people numbered ``start`` and following.

    A person depends on seed and number alone, so that ranges can be drawn separately.

    Args:
        count: number of people.
        start: number of the first.
        seed: seed of the run.
        truncation: below 1 people are nearer to the average. Other generators move w toward its mean; here z
            holds the scene, and truncated w would give pictures whose scene, and so whose labels, are
            unknown. So the scene is drawn nearer (the ``spread`` of
            :func:`~portrait_core.generators.scene_latents.sample_scene`), and labels stay exact. At 0.7
            attributes lie within 0.1..0.9, and edits beyond that extrapolate; at 1 a StyleFlow learns the
            whole range.

    Raises:
        InputError: count, start or seed is negative, or truncation not within 0..1.
    """
    if min(count, start, seed) < 0 or not 0 <= truncation <= 1:
        raise InputError(
            f"cannot draw {count} scenes from number {start} with seed {seed} and truncation {truncation:g}; "
            "give whole numbers from 0 on, and a truncation within 0..1"
        )
    drawn = [
        latent_from_scene(
            sample_scene(np.random.default_rng([seed, number]), UNITS, truncation, glasses=True)
        )
        for number in range(start, start + count)
    ]
    return torch.from_numpy(np.stack(drawn)) if drawn else torch.zeros(0, N_LATENT)


def _appearance(z: Tensor, name: str) -> Tensor:
    return z[:, N_SHAPE + N_EXPRESSION + APPEARANCE.index(name)]


def _unit(z: Tensor, name: str) -> Tensor:
    """Return the strength of a blendshape, 0..1."""
    return z[:, N_SHAPE + fitted_names(UNITS).index(name)] / EXPRESSION_GAIN + EXPRESSION_MEAN
