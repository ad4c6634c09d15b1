"""The registry of face models, and what a job gets from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest

from portrait_core.pipeline import Job
from portrait_core.settings import Settings, TrackingSettings, load_settings
from portrait_core.template import registry
from portrait_core.template.face_models import FaceModel, ModelSource, TrackedFaces
from portrait_core.template.moves import Moves
from portrait_core.template.registry import EYES, FACE_MODELS, face_model_row
from portrait_core.tracking.embedded_tracker import EmbeddedTracker
from tasks.trackers import face_model, tracker


def _job(settings: Settings) -> Job:
    return Job.model_construct(settings=settings, weights={"head": "trackers-test"})


def test_the_registry_has_a_row_for_every_value_of_the_setting() -> None:
    values = get_args(TrackingSettings.model_fields["tracker"].annotation)
    assert tuple(FACE_MODELS) == values
    assert all(name == row.name for name, row in FACE_MODELS.items())


def test_the_settings_choose_the_face_model() -> None:
    embedded, paper = load_settings("embedded"), load_settings("paper")
    assert isinstance(tracker(_job(embedded)), EmbeddedTracker)
    assert [face_model_row(settings).name for settings in (embedded, paper)] == ["embedded", "deca"]
    assert [type(face_model(_job(settings))).__name__ for settings in (embedded, paper)] == [
        "EmbeddedFace",
        "DecaFace",
    ]


def test_only_flames_portrait_is_given_other_eyes() -> None:
    assert EYES not in _move_arrays("embedded", "driven")
    assert EYES not in _move_arrays("paper", "paper")
    assert _move_arrays("paper", "driven") == ("expression", "jaw", EYES)


def _move_arrays(profile: str, eyes: str) -> tuple[str, ...]:
    settings = load_settings(profile, [f"template.eyes={eyes}"])
    return face_model_row(settings).move_arrays(settings)


def test_a_face_model_is_added_with_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class StillFace:
        """A retargeter that answers with zeros; a face model that has nothing else."""

        models: ModelSource

        def tracker(self) -> EmbeddedTracker:
            raise NotImplementedError

        def retargeter(self) -> StillFace:
            return self

        def moves(self, portrait: TrackedFaces, driver: TrackedFaces) -> Moves:
            return {name: np.zeros((1, 3)) for name in ("expression", "jaw")}

        def moving_portrait(self, portrait: object) -> object:
            raise NotImplementedError

    def build(models: ModelSource) -> FaceModel:
        return StillFace(models)  # type: ignore[return-value]

    row = replace(FACE_MODELS["embedded"], name="still", build=build)
    monkeypatch.setattr(registry, "FACE_MODELS", {**FACE_MODELS, "still": row})
    tracking = TrackingSettings().model_copy(update={"tracker": "still"})
    settings = Settings().model_copy(update={"tracking": tracking})
    assert isinstance(face_model(_job(settings)), StillFace)
