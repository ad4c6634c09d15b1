"""Two stages that no other file of the program names, and a pipeline of them: what a new stage takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from portrait_core.pipeline import Array, File, FrameRange, Job, Note, Pipeline, Stage
from portrait_core.pipeline.job import make_stage_keys
from portrait_core.pipeline.ledger import done_frames, unfinished_runs
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.settings import Settings
from portrait_core.store import recipe_key
from tasks.context import FrameArrays
from tasks.frames import Save, process_frames
from tasks.pipelines import CLIP
from tasks.running import does

FRAMES = 6

SQUARES = Stage(
    name="squares",
    title="square numbers",
    version=1,
    unit="reenactment",
    inputs=("video",),
    settings=("seed",),
    writes=(Array("square"), Array("picture")),
    per_frame=True,
    parallel_over_frames=True,
    counts_frames=True,
    drop_with="pictures",
)

ADDED = Stage(
    name="added",
    title="add up",
    version=1,
    unit="reenactment",
    reads=("squares",),
    settings=("output.crf",),
    writes=(Array("sum", per="clip"), File("sum.txt"), Note("told")),
)

BRIGHTNESS = Stage(
    name="brightness",
    title="measure brightness",
    version=1,
    unit="reenactment",
    reads=("render",),
    writes=(Array("brightness"),),
    per_frame=True,
    parallel_over_frames=True,
    needs_frame_of="render",
)

TOY = Pipeline("toy", "toy", (SQUARES, ADDED), ends=("added",))
LONGER = Pipeline("longer", "reenactment", (*CLIP.stages, BRIGHTNESS), ends=(*CLIP.ends, "brightness"))


@does(SQUARES)
def squares(job: Job, start: int, stop: int) -> StageResult:
    """Square the numbers of frames ``[start, stop)``. A frame whose number is the name of a file in the
    folder ``portrait`` fails, and takes the file away."""
    watch, arrays = Stopwatch("squares", start, stop), FrameArrays(job, "squares")

    def work(frame: FrameRange) -> Save:
        mine = Path(job.portrait) / str(frame.start)
        if mine.exists():
            mine.unlink()
            raise FloatingPointError(f"the number {frame.start} has no square today")
        time.sleep(0.001)
        number = np.array([frame.start + job.settings.seed], np.int64)
        picture = np.full((1, 8, 8, 3), frame.start, np.uint8)
        return arrays.defer_write(frame.start, {"square": number**2, "picture": picture})

    return watch.result(process_frames(job, "squares", unfinished_runs(job, "squares", start, stop), work))


@does(ADDED)
def added(job: Job) -> StageResult:
    """Add up all squares."""
    watch = Stopwatch("added", 0, 1)
    if done_frames(job, "added").all():
        return watch.result(0)
    total = job.output("squares").read("square").sum()
    output = job.output("added")
    output.write_whole({"sum": np.array([total])})
    output.put_bytes("sum.txt", f"{total} at {job.settings.output.crf}".encode())
    output.write_note("told", {"sum": int(total)})
    output.commit()
    return watch.result(1)


@does(BRIGHTNESS)
def brightness(job: Job, start: int, stop: int) -> StageResult:
    """Take the mean of every rendered frame of ``[start, stop)``."""
    watch, arrays = Stopwatch("brightness", start, stop), FrameArrays(job, "brightness")
    rendered = job.output("render")

    def work(frame: FrameRange) -> Save:
        mean = rendered.read("frames", *frame).mean((1, 2, 3), dtype=np.float32)
        return arrays.defer_write(frame.start, {"brightness": mean})

    return watch.result(
        process_frames(job, "brightness", unfinished_runs(job, "brightness", start, stop), work)
    )


def toy_job(folder: Path, settings: Settings, pipeline: Pipeline = TOY) -> Job:
    """A job of the toy pipeline, with its store in a folder."""
    inputs = {"portrait": recipe_key({"portrait": "toy"}) * 4, "video": recipe_key({"video": "toy"}) * 4}
    return Job(
        goal=pipeline.name,
        store=str(folder / "store"),
        label="one-two-three",
        portrait=str(folder / "fails"),
        video=str(folder / "video.mp4"),
        frames=FRAMES,
        inputs=inputs,
        stage_keys=make_stage_keys(pipeline, inputs, FRAMES, settings, {}),
        weights={},
        settings=settings,
    )
