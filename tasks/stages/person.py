"""Stage ``person``: one person of the driving video, followed through it, where they can be believed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from portrait_core.media import probe
from portrait_core.pipeline import Array, Job, Note, Stage
from portrait_core.pipeline.ledger import record_failures, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import landmark_weights, recognition_weights
from portrait_core.store import Failure
from portrait_core.tracking.trust import UNTRUSTED, scene_cuts
from tasks.context import input_frames, video_file
from tasks.faces import FrameFaces
from tasks.following import follow
from tasks.running import does

PEOPLE = "people"
"""Note of who is in the video, who drives, and which frames are not believed."""

PERSON = Stage(
    name="person",
    title="follow one person",
    version=2,
    unit="video",
    reads=("landmarks",),
    inputs=("video", "driver_face"),
    weights=(landmark_weights, recognition_weights),
    writes=(
        Array("landmarks", per="clip"),
        Array("cut", per="clip"),
        Array("turn", per="clip"),
        Note(PEOPLE),
    ),
)


@does(PERSON, precision="fp32")
def person(job: Job) -> StageResult:
    """Choose the person who drives, and keep their landmarks where these can be believed.

    A frame in which they cannot is NaN, is recorded, and shows its neighbour. Where the driver lies on the
    side or stands upside down for most of the clip, the clip counts as turned.

    Raises:
        InputError: the video does not show the person that is asked for, no frame can be believed, or the
            face is an animal's.
    """
    watch = Stopwatch("person", 0, 1)
    if not unfinished_runs(job, "person", 0, 1):
        return watch.result(0)
    rows = job.output("landmarks").read_together(("faces", "vectors", "animal", "thumbnail"))
    found = FrameFaces(rows["faces"], rows["vectors"], rows["animal"])
    info, cuts = probe(video_file(job)), scene_cuts(rows["thumbnail"])
    followed = follow(job, found, cuts, (info.width, info.height), lambda: input_frames(job))
    _record(job, followed.wrong)
    output = job.output("person")
    turn = np.array([followed.turn], np.int64)
    output.write_whole({"landmarks": followed.points, "cut": cuts, "turn": turn})
    output.write_note(PEOPLE, followed.about())
    output.commit()
    return watch.result(1)


def _record(job: Job, wrong: dict[str, NDArray[np.bool_]]) -> None:
    """Record frames that are not believed; those without a face were recorded when they were read."""
    key = job.stage_keys["person"]
    rows = [
        Failure("person", int(frame), "input", f"{UNTRUSTED[name]}; the frame shows its neighbour", key=key)
        for name, frames in wrong.items()
        if name != "no_face"
        for frame in np.flatnonzero(frames)
    ]
    record_failures(job, "person", rows)
