"""A part of the driving video: what the job takes of it, and which results it shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import tasks.pipelines  # noqa: F401 - registers them
from flows.cli.main import app
from flows.display.terminal import source_lines
from portrait_core.errors import InputError
from portrait_core.media import read_frames
from portrait_core.pipeline import Job
from portrait_core.settings import load_settings
from tasks.ingest import ingest

READ_THE_VIDEO = {"landmarks", "person", "fit", "retarget", "template", "inversion", "render", "encode"}


def _job(portrait: Path, video: Path, store: Path, *changes: str) -> Job:
    return ingest(str(portrait), str(video), str(store), load_settings("embedded", list(changes)))


def test_a_part_begins_and_ends_where_it_is_asked_and_has_keys_of_its_own(
    tmp_path: Path, portrait: Path, carphone: Path
) -> None:
    whole = _job(portrait, carphone, tmp_path)
    part = _job(portrait, carphone, tmp_path, "media.begin=1.5", "media.end='0:03'", "media.max_frames=40")
    other = _job(portrait, carphone, tmp_path, "media.begin=46f", "media.max_frames=40")
    same = _job(portrait, carphone, tmp_path, "media.begin=45f", "media.end=85f")
    assert (whole.first_frame, whole.frames) == (0, 120)
    assert (part.first_frame, part.frames, other.first_frame, other.frames) == (45, 40, 46, 40)
    assert same.stage_keys == part.stage_keys
    different = {stage for stage in part.stages if part.stage_keys[stage] != other.stage_keys[stage]}
    assert different >= READ_THE_VIDEO
    assert {stage for stage in part.stages if part.stage_keys[stage] == whole.stage_keys[stage]} == (
        {stage for stage in part.stages if part.stage_keys[stage] == other.stage_keys[stage]}
    )
    assert part.unit_of("landmarks") == whole.unit_of("landmarks")


def test_a_part_from_the_beginning_shares_what_the_first_frames_have(
    tmp_path: Path, portrait: Path, carphone: Path
) -> None:
    first = _job(portrait, carphone, tmp_path, "media.max_frames=60")
    assert _job(portrait, carphone, tmp_path, "media.end=60f").stage_keys == first.stage_keys


def test_a_part_that_holds_nothing_is_refused_with_the_videos_length(
    tmp_path: Path, portrait: Path, carphone: Path
) -> None:
    for changes in (("media.begin=10",), ("media.begin=2", "media.end=1"), ("media.begin=119f",)):
        with pytest.raises(InputError, match=r"120 frames, 4\.00 s.*--from and --to"):
            _job(portrait, carphone, tmp_path, *changes)
    for wrong in ("media.begin=-1", "media.begin=soon", "media.end=f"):
        with pytest.raises(ValueError, match=r"media\."):
            load_settings("embedded", [wrong])


def test_pictures_have_the_rate_that_is_asked_for(tmp_path: Path, portrait: Path, carphone: Path) -> None:
    frames = tmp_path / "walk"
    frames.mkdir()
    for number, frame in enumerate(read_frames(carphone, 0, 4)):
        Image.fromarray(frame).save(frames / f"{number + number // 3:03d}.png")
    store = tmp_path / "store"
    usual = _job(portrait, frames, store)
    slow = _job(portrait, frames / "*.png", store, "media.rate=30000/1001", "media.begin=1f")
    assert (usual.frame_rate, usual.frames, usual.source["files"], usual.source["missing"]) == ("25", 4, 4, 1)
    assert (slow.frame_rate, slow.frames, slow.label) == ("30000/1001", 3, "astronaut--walk")
    other = _job(portrait, frames, store, "media.rate=12")
    assert other.stage_keys["landmarks"] == usual.stage_keys["landmarks"]
    assert other.stage_keys["encode"] != usual.stage_keys["encode"]
    assert [line for job in (usual, slow) for line in source_lines(job)] == [
        "4 pictures at 25 per second (--rate), 1 of their numbers is missing",
        "from frame 1 of the video on, 0.03 s after its beginning",
        "4 pictures at 30000/1001 per second (--rate), 1 of their numbers is missing",
    ]


def test_the_command_line_takes_a_part_and_a_rate(tmp_path: Path, portrait: Path, carphone: Path) -> None:
    def plan(*options: str) -> tuple[int, str]:
        inputs = ["--portrait", str(portrait), "--video", str(carphone), "--store", str(tmp_path / "store")]
        done = CliRunner().invoke(app, ["plan", *inputs, *options])
        return done.exit_code, " ".join(done.output.split())

    code, text = plan("--from", "0:01.5", "--to", "90f")
    assert (code, " 45 " in text) == (0, True)
    code, text = plan("--from", "1:00", "--rate", "30000/1001")
    assert code == 2
    assert "from 1:00 to the end there are fewer than two frames" in text
    assert plan("--to", "soon")[0] == 2
