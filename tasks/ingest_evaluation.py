"""Jobs of an evaluation: clips of any method that are assessed, and tables."""

from __future__ import annotations

from portrait_core.evaluation.plan import Plan, write_plan
from portrait_core.inputs.known import local_digest
from portrait_core.model_files.needs import evaluation_sources, weight_file
from portrait_core.pipeline import Job, find_pipeline
from portrait_core.pipeline.job import make_stage_keys
from portrait_core.settings import Settings
from portrait_core.store import Store
from tasks.ingest import ingest, ingest_2d


def ingest_assessed(
    goal: str, portrait: str, video: str, store: str, settings: Settings, label: str = ""
) -> Job:
    """Check both inputs and make the job of a clip that is assessed.

    Args:
        goal: pipeline of its method (:mod:`tasks.pipelines`).
        portrait: path or URL.
        video: path or URL.
        store: path or URL.
        settings: settings of the method.
        label: name of the clip for people.

    Raises:
        InputError: an input is not usable.
        ValueError: weights are missing or do not go with the settings.
    """
    make = ingest_2d if goal == "evaluate_2d" else ingest
    return _with_goal(make(portrait, video, store, settings, label), goal)


def ingest_tables(plan: Plan, store: str, settings: Settings) -> Job:
    """Keep an evaluation's plan in the store, and make the job of its tables."""
    opened = Store(store, settings.runner.storage_options)
    inputs = {"plan": write_plan(opened, plan)}
    keys = make_stage_keys(find_pipeline("evaluation"), inputs, 1, settings, {})
    return Job(
        goal="evaluation",
        store=store,
        label=f"tables-{plan.digest()[:8]}",
        frames=1,
        inputs=inputs,
        stage_keys=keys,
        weights={},
        settings=settings,
    )


def _with_goal(job: Job, goal: str) -> Job:
    """Return the same inputs as a job of another pipeline, with the weights that assessing reads."""
    purposes = evaluation_sources(job.settings)
    weights = job.weights | {name: local_digest(weight_file(job.settings, name)) for name in purposes}
    pipeline = find_pipeline(goal)
    keys = make_stage_keys(pipeline, job.inputs, job.frames, job.settings, weights)
    return job.model_copy(update={"goal": goal, "weights": weights, "stage_keys": keys})
