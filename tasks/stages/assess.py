"""Stage ``assess``: what an evaluation reads of a method's clip, before anything is averaged."""

from __future__ import annotations

from portrait_core.pipeline import Array, Job, Note, Stage
from portrait_core.pipeline.ledger import Ledger
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import assessing_weights
from tasks.context import use_threads
from tasks.running import does
from tasks.stages.animate import has_views
from tasks.stages.coefficients import is_asked

FOLLOW, NAMES = "follow", "names"
"""Notes: how the regions of the face follow, and the names of what the other numbers are."""


def _readings(estimator: str) -> tuple[Array, ...]:
    names = (f"{estimator}_{what}" for what in ("pose", "expression", "driver_pose", "driver_expression"))
    return tuple(Array(name, per="clip", when=is_asked(estimator)) for name in names)


STRIPS = ("strip", "strip_driver")
"""Arrays of a few small pictures of the clip, and of its driver."""

ASSESS = Stage(
    name="assess",
    title="assess",
    version=3,
    unit="reenactment",
    reads=(
        "portrait",
        "person",
        "fit",
        "read_deep3d",
        "read_deca",
        "render",
        "animate",
        "views",
        "animate_views",
    ),
    inputs=("video",),
    settings=(
        "tracking",
        "template.size",
        "evaluation.identity",
        "evaluation.features",
        "evaluation.estimators",
        "evaluation.truth",
        "evaluation.views",
    ),
    weights=(assessing_weights,),
    writes=(
        Array("landmarks", per="clip"),
        *(Array(name, per="clip") for name in ("features", "features_source")),
        *(Array(name, per="clip") for name in ("identity", "identity_source")),
        Array("identity_views", per="clip", when=has_views),
        *(one for name in ("embedded", "deep3d", "deca") for one in _readings(name)),
        *(
            Array(name, per="clip", when=lambda settings: settings.evaluation.truth)
            for name in ("pictures", "identity_driver")
        ),
        *(Array(name, per="clip") for name in STRIPS),
        Note(FOLLOW),
        Note(NAMES),
    ),
    shows_gaps_of="render",
)


@does(ASSESS, precision="fp32")
def assess(job: Job) -> StageResult:
    """Read identity, features, poses, expressions and regions of a clip, and of its portrait and driver.

    With ``evaluation.truth`` its pixels are compared with the driver's frames.
    """
    watch = Stopwatch("assess", 0, 1)
    ledger = Ledger(job)
    if ledger.done_frames("assess").all():
        return watch.result(0)
    from tasks.assessment import Assessment

    made = Assessment(job, use_threads(job, alone=True))
    output = ledger.output("assess")
    output.write_whole(made.arrays())
    output.write_note(FOLLOW, made.follow())
    output.write_note(NAMES, made.names())
    output.commit()
    return watch.result(1)
