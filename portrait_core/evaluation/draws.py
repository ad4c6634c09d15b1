"""Random draws of a protocol: pairs of portraits and videos, and views of each clip. All are seeded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import angles_from_labels
from portrait_core.settings.evaluation_sections import View

VIEWS_PER_CLIP = 2
"""Views of each clip, whose identity is compared (paper section 4.1)."""
_DIGITS = 6
"""Decimals of a view's angles: they are part of a key."""


@dataclass(frozen=True)
class Pair:
    """A portrait and the video that drives it."""

    number: int
    """Number of the pair, from 1."""
    portrait: str
    """Path or URL."""
    video: str
    """Path or URL."""


def draw_pairs(portraits: Sequence[str], videos: Sequence[str], count: int, seed: int) -> list[Pair]:
    """Draw pairs of portraits and videos (the paper: 500 of each).

    Each list is shuffled, and begun again when it is used up, so that nothing comes twice before all of its
    list has come.

    Args:
        portraits: paths or URLs.
        videos: paths or URLs.
        count: number of pairs.
        seed: of both shuffles.

    Raises:
        ValueError: a list is empty.
    """
    if not portraits or not videos:
        raise ValueError("an evaluation needs a portrait and a video at least; give folders that hold some")
    rng = np.random.default_rng([seed, 1])
    orders = [_endless(rng, len(found), count) for found in (portraits, videos)]
    return [
        Pair(number, portraits[p], videos[v])
        for number, (p, v) in enumerate(zip(*orders, strict=True), start=1)
    ]


def _endless(rng: np.random.Generator, size: int, count: int) -> list[int]:
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate(rounds)[:count].tolist()


def draw_views(cameras: NDArray[np.floating], frames: Sequence[int], seed: int) -> list[tuple[View, ...]]:
    """Draw two views of every clip: different frames, seen from poses of the portraits (paper: ID).

    Args:
        cameras: labels of the portraits ``[P,25]``, whose poses are drawn from.
        frames: number of frames of each clip.
        seed: of the draws.

    Returns:
        The views of each clip. A clip of one frame has it twice.
    """
    angles = np.round(angles_from_labels(cameras), _DIGITS)
    drawn = []
    for clip, count in enumerate(frames):
        rng = np.random.default_rng([seed, 2, clip])
        poses = rng.choice(len(angles), VIEWS_PER_CLIP, replace=len(angles) < VIEWS_PER_CLIP)
        shown = rng.choice(count, VIEWS_PER_CLIP, replace=count < VIEWS_PER_CLIP)
        drawn.append(
            tuple(
                (int(frame), float(angles[pose][0]), float(angles[pose][1]), float(angles[pose][2]))
                for frame, pose in zip(shown, poses, strict=True)
            )
        )
    return drawn
