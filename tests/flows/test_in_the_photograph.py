"""A clip in the whole photograph: its size, what stays to the bit, the person with alpha, the frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from portrait_core.media import probe, read_image
from tests.flows.conftest import FRAMES, Arguments, Run

Frames = list[NDArray[np.uint8]]
WHOLE = ("output.frame=photograph", "output.size=auto", "output.frames=true")


def _run(arguments: Arguments, store: Path, out: Path, *changes: str) -> Run:
    return Run(CliRunner().invoke(app, arguments(store, out, *WHOLE, *changes)), store, out)


def _frames(run: Run) -> Frames:
    return [np.asarray(Image.open(path)) for path in sorted((run.out / "frames").iterdir())]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole") / "store"


@pytest.fixture(scope="module")
def whole(store: Path, arguments: Arguments) -> Run:
    """A clip in the photograph."""
    return _run(arguments, store, store.parent / "whole")


@pytest.fixture(scope="module")
def cut(whole: Run, arguments: Arguments) -> Run:
    """The same clip, and the person with alpha."""
    return _run(arguments, whole.store, whole.store.parent / "cut", "output.alpha=true")


def test_the_clip_is_as_large_as_the_photograph(whole: Run, portrait: Path) -> None:
    height, width = read_image(portrait).shape[:2]
    about = probe(whole.out / "reenactment.mp4")
    assert (about.width, about.height, about.frame_count) == (width, height, FRAMES)
    assert about.has_audio
    assert whole.summary["person_found"] is True


def test_everything_but_the_head_is_the_photograph_to_the_bit(whole: Run, portrait: Path) -> None:
    photograph, frames = read_image(portrait), _frames(whole)
    assert len(frames) == FRAMES
    changed = np.any([(frame != photograph).any(-1) for frame in frames], axis=0)
    assert changed.any(), "a head moves"
    rows, columns = np.nonzero(changed)
    # the astronaut's head is the upper middle of the picture; her suit begins below
    assert rows.max() < 0.45 * len(photograph)
    assert columns.min() > 0.1 * photograph.shape[1]
    assert columns.max() < 0.8 * photograph.shape[1]


def test_the_person_with_alpha_has_the_clips_frames_rate_and_sound(cut: Run) -> None:
    clip, person = probe(cut.out / "reenactment.mp4"), probe(cut.out / "reenactment.mov")
    assert (person.width, person.height) == (clip.width, clip.height)
    assert (person.frame_count, person.frame_rate, person.has_audio) == (FRAMES, clip.frame_rate, True)
    assert set(cut.summary["files"]) >= {"reenactment", "cutout", "frames"}


def test_the_person_laid_on_another_ground_shows_it_around_the_head_and_not_through_it(cut: Run) -> None:
    frames = _frames(cut)
    assert len(frames) == FRAMES
    assert frames[0].shape[-1] == 4
    alpha = frames[0][..., 3]
    assert alpha[:, -50:].max() == 0, "far beside the head"
    track = cut.output("portrait").read("crop_center_px")[0].astype(int)
    assert alpha[track[1], track[0]] > 128, "the face"


def test_asking_for_alpha_renders_and_encodes_again_and_nothing_else(cut: Run) -> None:
    assert set(cut.computed()) <= {"pose", "render", "encode", "measure"}
