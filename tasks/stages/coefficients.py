"""Stages ``read_deep3d`` and ``read_deca``: coefficients of the driver, by networks that users bring."""

from __future__ import annotations

from portrait_core.pipeline import Array, Job, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.stage import When
from portrait_core.pipeline.weights import deca_weights, deep3d_weights
from tasks.context import driving_frames, use_threads
from tasks.running import does


def is_asked(estimator: str) -> When:
    """Return the condition that an estimator is asked for."""
    return lambda settings: estimator in settings.evaluation.estimators


READ_DEEP3D = Stage(
    name="read_deep3d",
    title="read Deep3DFaceRecon",
    version=1,
    unit="video",
    reads=("person",),
    inputs=("video",),
    weights=(deep3d_weights,),
    writes=(Array("coefficients", per="clip", when=is_asked("deep3d")),),
)
"""Rows ``[T,260]`` of :mod:`portrait_core.baselines.pirenderer_windows`; NaN where no face was seen."""
READ_DECA = Stage(
    name="read_deca",
    title="read DECA",
    version=1,
    unit="video",
    reads=("person",),
    inputs=("video",),
    weights=(deca_weights,),
    writes=(Array("coefficients", per="clip", when=is_asked("deca")),),
)
"""Codes ``[T,236]``; NaN where no face was seen."""


@does(READ_DEEP3D, precision="fp32")
def read_deep3d(job: Job) -> StageResult:
    """Read every frame of the driver with Deep3DFaceRecon, where the settings ask for it."""
    return _read(job, "deep3d")


@does(READ_DECA, precision="fp32")
def read_deca(job: Job) -> StageResult:
    """Read every frame of the driver with DECA, where the settings ask for it."""
    return _read(job, "deca")


def _read(job: Job, estimator: str) -> StageResult:
    stage = f"read_{estimator}"
    watch = Stopwatch(stage, 0, 1)
    if done_frames(job, stage).all():
        return watch.result(0)
    output = job.output(stage)
    if is_asked(estimator)(job.settings):
        from tasks.estimates import read_coefficients

        use_threads(job, alone=True)
        points = job.output("person").read("landmarks")
        rows = read_coefficients(job, estimator, driving_frames(job), points)
        output.write_whole({"coefficients": rows})
    output.commit()
    return watch.result(1)
