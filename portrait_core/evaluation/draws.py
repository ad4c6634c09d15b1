"""Random draws of a protocol: pairs of portraits and videos, and views of each clip. All are seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import angles_from_labels
from portrait_core.settings.evaluation_sections import View

VIEWS_PER_CLIP = 2
"""Views of each clip, whose identity is compared (paper section 4.1)."""
_PORTRAITS, _VIDEOS, _FRAMES = 1, 17, 3
"""Numbers that give every kind of draw a random stream of its own beside the seed."""
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
    lists = (_PORTRAITS, portraits), (_VIDEOS, videos)
    orders = [_endless(np.random.default_rng([seed, which]), len(found), count) for which, found in lists]
    return [
        Pair(number, portraits[p], videos[v])
        for number, (p, v) in enumerate(zip(*orders, strict=True), start=1)
    ]


def _endless(rng: np.random.Generator, size: int, count: int) -> list[int]:
    rounds = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate(rounds)[:count].tolist()


def draw_views(
    cameras: Mapping[str, NDArray[np.floating]], pair: int, frames: int, seed: int
) -> tuple[View, ...]:
    """Draw two views of a clip: different frames, seen from poses of two portraits (paper: ID).

    The draws depend on the pair's number and on each portrait's digest: a portrait more or less changes only
    the views that it has a part in.

    Args:
        cameras: labels ``[25]`` of the portraits, whose poses are drawn from, by the digests of their files.
        pair: number of the clip's pair.
        frames: number of the clip's frames.
        seed: of the draws.

    Returns:
        The views. A clip of one frame has it twice; of one portrait both have its pose.

    Raises:
        ValueError: there is no portrait.
    """
    if not cameras:
        raise ValueError("views need the pose of a portrait at least")

    def rank(digest: str) -> str:
        return hashlib.sha256(f"{seed} {pair} {digest}".encode()).hexdigest()

    chosen = sorted(cameras, key=rank)[:VIEWS_PER_CLIP]
    labels = np.stack([cameras[digest] for digest in (*chosen, *chosen)[:VIEWS_PER_CLIP]])
    angles = np.round(angles_from_labels(labels), _DIGITS)
    rng = np.random.default_rng([seed, _FRAMES, pair])
    shown = rng.choice(frames, VIEWS_PER_CLIP, replace=frames < VIEWS_PER_CLIP)
    return tuple(
        (int(frame), float(yaw), float(pitch), float(roll))
        for frame, (yaw, pitch, roll) in zip(shown, angles, strict=True)
    )
