"""A clip driven by the person whose portrait is its first frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from portrait_core.cameras import offsets_from_labels, rotations_from_labels
from portrait_core.media import frame_png, read_frames
from portrait_core.pipeline.state import read_jobs
from portrait_core.settings import Settings
from portrait_core.store import Store
from tasks.context import read_track
from tasks.stages.pose import match_of, output_cameras
from tests.flows.conftest import Arguments, Run


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, arguments: Arguments, driver: Path) -> Run:
    """A small run whose portrait is the driver's first frame."""
    folder = tmp_path_factory.mktemp("own")
    portrait = folder / "first.png"
    portrait.write_bytes(frame_png(next(iter(read_frames(driver)))))
    line = arguments(folder / "store", folder / "out")
    line[line.index("--portrait") + 1] = str(portrait)
    return Run(CliRunner().invoke(app, line), folder / "store", folder / "out")


def test_poses_and_places_count_from_the_frame_that_is_the_portrait(own: Run) -> None:
    assert own.result.exit_code == 1, own.result.output  # one frame shows no face
    (job,) = read_jobs(Store(str(own.store)), "", Settings())
    match = match_of(job)
    assert match is not None
    assert match.frame == 0
    assert abs(match.roll_rad) < 0.01
    cameras, portrait = output_cameras(job), read_track(job.output("portrait")).cameras
    turned = rotations_from_labels(cameras[:1])[0].T @ rotations_from_labels(portrait)[0]
    cosine = min((np.trace(turned) - 1) / 2, 1.0)
    assert np.degrees(np.arccos(cosine)) < 0.6, "the photograph's own pose, but for a roll"
    travel = offsets_from_labels(cameras)
    assert np.abs(travel[0]).max() < 1e-4
    assert np.abs(travel[1:]).max() > 1e-4, "the driver's head moves through his picture"


def test_the_portrait_does_in_that_frame_what_it_does_itself(own: Run) -> None:
    done = own.output("retarget").read("expression")[0]
    itself = own.output("portrait").read("expression")[0]
    assert np.abs(itself).max() > 0.3, "a face that does something"
    np.testing.assert_allclose(done, itself, atol=0.06)


def test_the_summary_and_the_terminal_say_so(own: Run) -> None:
    assert own.summary["motion"]["frame_of_portrait"] == 0
    assert "frame 0 of the driver shows the portrait itself" in " ".join(own.result.output.split())
