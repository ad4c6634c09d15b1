"""Which tracker a job gets, and what its outputs give."""

from __future__ import annotations

from portrait_core.pipeline import Job
from portrait_core.settings import load_settings
from portrait_core.tracking.choice import by_deca, driven_eyes
from portrait_core.tracking.embedded_tracker import EmbeddedTracker
from tasks.trackers import tracker


def test_the_settings_choose_the_tracker() -> None:
    embedded, paper = load_settings("embedded"), load_settings("paper")
    job = Job.model_construct(settings=embedded, weights={"head": "trackers-test"})
    assert isinstance(tracker(job), EmbeddedTracker)
    assert (by_deca(embedded), by_deca(paper)) == (False, True)


def test_only_flames_portrait_is_given_other_eyes() -> None:
    assert not driven_eyes(load_settings("embedded", ["template.eyes=driven"]))
    assert [
        driven_eyes(load_settings("paper", [f"template.eyes={eyes}"])) for eyes in ("paper", "driven")
    ] == [
        False,
        True,
    ]
