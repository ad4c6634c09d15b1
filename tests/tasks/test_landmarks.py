"""The driving video as the stage ``landmarks`` reads it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

import tasks.stages.landmarks
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.ledger import done_frames
from portrait_core.settings import load_settings
from portrait_core.store import file_digest
from tasks.context import batches, input_frames
from tasks.faces import FrameFaces, no_faces
from tasks.stages.landmarks import _Film, landmarks
from tests.conftest import FfmpegRunner
from tests.simulation.stub import stub_job


class Brightness:
    """Stands in for the reader of faces: a picture's landmarks are its mean brightness."""

    def __init__(self, job: Job, threads: int) -> None:
        pass

    def read(self, pictures: np.ndarray, first: int) -> FrameFaces:
        found = no_faces(len(pictures))
        found.faces[:, 0] = pictures.mean((1, 2, 3), dtype=np.float32)[:, None, None]
        return found


@pytest.fixture
def job(tmp_path: Path, ffmpeg_to: FfmpegRunner, counting_clip: Path) -> Job:
    """60 frames, each of a brightness of its own; pictures 20 and 40 do not decode."""
    stills = ffmpeg_to("tracked.mov", "-i", counting_clip, "-an", "-c:v", "png")
    data = bytearray(stills.read_bytes())
    with av.open(str(stills)) as container:
        packets = [p for p in container.demux(video=0) if p.size and p.pos is not None]
        for place, size in ((cast(int, packets[i].pos), packets[i].size) for i in (20, 40)):
            data[place : place + size] = bytes(size)
    (tmp_path / "broken.mov").write_bytes(data)
    made = stub_job(str(tmp_path / "store"), "clip", 60, load_settings("embedded", ["tracking.batch=7"]))
    video = tmp_path / "broken.mov"
    return made.model_copy(
        update={"video": str(video), "inputs": made.inputs | {"video": file_digest(video)}}
    )


def _shown(pictures: np.ndarray) -> list[int]:
    """The pictures' numbers."""
    return [int(value // 4) for value in pictures.mean((1, 2, 3))]


def test_runs_are_read_in_batches_and_damage_is_recorded_at_their_end(job: Job) -> None:
    runs = [FrameRange(3, 12), FrameRange(15, 25), FrameRange(30, 35)]
    with closing(_Film(job, runs)) as film:
        seen = [i for batch in batches(runs, 4) for i in _shown(film.read(batch))]
    held = {20: 19}
    assert seen == [held.get(i, i) for run in runs for i in range(*run)]
    rows = job.unit("landmarks").failures()
    assert rows[["stage", "frame", "cls"]].values.tolist() == [["landmarks", 20, "input"]]


def test_a_part_of_the_video_is_read_from_where_it_begins(job: Job) -> None:
    part = job.model_copy(update={"inputs": job.inputs | {"first_frame": "18"}, "frames": 30})
    assert _shown(np.stack(list(input_frames(part, 4, 8)))) == [22, 23, 24, 25]
    with closing(_Film(part, [FrameRange(0, 30)])) as film:
        seen = _shown(film.read(FrameRange(0, 30)))
    assert seen == [{20: 19, 40: 39}.get(i, i) for i in range(18, 48)]
    assert part.unit("landmarks").failures()["frame"].tolist() == [2, 22]
    assert part.start_s == pytest.approx(18 / part.rate)


def test_every_frame_gets_its_own_landmarks(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.stages.landmarks, "FaceReader", Brightness)
    assert landmarks(job=job, start=10, stop=20).frames_done == 10  # so that the rest is two runs
    assert landmarks(job=job, start=0, stop=60).frames_done == 50
    assert done_frames(job, "landmarks").all()
    found = job.output("landmarks").read("faces", 0, 60)[:, 0, 0, 0]
    assert [int(value // 4) for value in found] == [{20: 19, 40: 39}.get(i, i) for i in range(60)]
    assert sorted(job.unit("landmarks").failures()["frame"]) == [20, 40]


def test_a_video_that_is_gone_ends_the_task_and_sets_no_frame_aside(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.stages.landmarks, "FaceReader", Brightness)
    Path(job.video).unlink()
    with pytest.raises((ValueError, FileNotFoundError)):
        landmarks(job=job, start=0, stop=60)
    assert not job.unit("landmarks").failure_tables()
    assert not done_frames(job, "landmarks").any()
