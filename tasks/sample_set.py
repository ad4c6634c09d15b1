"""A small set of portraits and videos of what is installed, on which every protocol can be tried.

The portraits are NASA's astronaut and synthetic people, the drivers parts of the sample video. It is far too
small, and too kind to generators that were trained on synthetic people, to say how good a method is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from portrait_core.cameras import orbit_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators.scene_latents import UNITS, sample_scene
from portrait_core.inputs.copies import local_copy
from portrait_core.media import VideoWriter, frame_png, probe, read_frames
from portrait_core.pipeline.job import stem
from portrait_core.runtime.package_files import data_file, sample_portrait, sample_video
from portrait_core.runtime.whole_files import write_whole
from portrait_core.training.render import SceneRenderer

SYNTHETIC, STARTS, FRAMES = 3, (0, 30, 60, 90), 12
"""Synthetic portraits; first frames of the drivers in the sample video; and frames of each driver."""
_SEED, _SPREAD = 2022, 0.7
_CRF = 4


def write_sample_set(folder: Path) -> tuple[list[str], list[str]]:
    """Write the set to a folder, where it is not there yet, and return its portraits and videos."""
    folder.mkdir(parents=True, exist_ok=True)
    people = [folder / f"synthetic-{number}.png" for number in range(1, SYNTHETIC + 1)]
    if not all(path.is_file() for path in people):
        renderer = SceneRenderer(MorphableHead.load(data_file("models/embedded_head.safetensors")))
        for number, path in enumerate(people):
            scene = sample_scene(np.random.default_rng([_SEED, number]), UNITS, _SPREAD)
            picture = renderer.view(renderer.person(scene), orbit_labels(0.0, 0.0)[0]).image
            write_whole(path, frame_png(picture))
    videos = [folder / f"carphone-{start}.mp4" for start in STARTS]
    for start, path in zip(STARTS, videos, strict=True):
        if not path.is_file():
            _cut(sample_video(), start, path)
    return [str(sample_portrait()), *map(str, people)], [str(path) for path in videos]


def _cut(video: Path, start: int, path: Path) -> None:
    info = probe(video)
    with VideoWriter(path, (info.width, info.height), info.frame_rate, crf=_CRF) as writer:
        for frame in read_frames(video, start, start + FRAMES):
            writer.write(frame)


def first_frames(videos: list[str], folder: Path) -> list[str]:
    """Write the first frame of every video to a folder, and return their paths: portraits of themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for number, video in enumerate(videos, start=1):
        path = folder / f"{number:04d}-{stem(video)}.png"
        frame = next(iter(read_frames(local_copy(video), 0, 1)))
        content = frame_png(frame)
        if not path.is_file() or path.read_bytes() != content:
            write_whole(path, content)
        found.append(str(path))
    return found
