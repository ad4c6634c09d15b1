"""What an evaluation is asked for, and which methods can be run with the weights that are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from portrait_core.errors import ModelFileError
from portrait_core.evaluation.methods import Method, changes_nothing, choose_methods, is_ablation
from portrait_core.model_files.check import check_model
from portrait_core.model_files.needs import check_evaluation, evaluation_sources
from portrait_core.settings import Settings, load_settings
from portrait_core.settings.evaluation_sections import Estimator, View
from portrait_core.weights.locate import require
from portrait_core.weights.registry import MODELS

Protocol = Literal["cross", "self"]
"""``cross``: portraits and videos of different people (tables 1, 2 and the supplement's). ``self``: the first
frame of each video is its portrait, so that every frame has a true one."""


@dataclass(frozen=True)
class Request:
    """A request for an evaluation, in plain values, as a flow run's parameters are."""

    portraits: tuple[str, ...]
    """Paths or URLs."""
    videos: tuple[str, ...]
    """Paths or URLs."""
    store: str
    """URL or folder that keeps every stage's output."""
    methods: tuple[str, ...]
    """Names of methods and of their groups."""
    clips: int
    """Number of pairs."""
    protocol: Protocol = "cross"
    """Pairs that are compared."""
    profile: str = "embedded"
    """A profile's name or file."""
    overrides: tuple[str, ...] = ()
    """``section.field=value`` strings for every method."""

    def settings(self, *changes: str) -> Settings:
        """Return the settings with changes."""
        truth = ("evaluation.truth=true",) if self.protocol == "self" else ()
        return load_settings(self.profile, [*self.overrides, *truth, *changes])


class MethodChoice:
    """The methods of a request, with the settings of each.

    Args:
        request: what is asked.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._sound: set[str] = set()
        """Models whose files were read."""

    @cached_property
    def settings(self) -> Settings:
        """Settings of our own method."""
        return self._request.settings()

    @cached_property
    def able(self) -> list[Method]:
        """Methods that can be run."""
        return [method for method, why in self._judged if not why]

    @cached_property
    def unable(self) -> list[dict[str, Any]]:
        """Methods that cannot be run: ``method`` and ``why``."""
        return [{"method": method.name, "why": why} for method, why in self._judged if why]

    @cached_property
    def _judged(self) -> list[tuple[Method, str]]:
        return [(method, self._obstacle(method)) for method in choose_methods(self._request.methods)]

    @cached_property
    def estimators(self) -> tuple[Estimator, ...]:
        """Readers of poses and expressions of every method.

        Deep3DFaceRecon, which PIRenderer is driven by, reads all where PIRenderer is among the methods.
        """
        able = any("deep3d" in method.files for method in self.able)
        named: tuple[Estimator, ...] = self.settings.evaluation.estimators
        return (*named, "deep3d") if able and "deep3d" not in named else named

    def _obstacle(self, method: Method) -> str:
        """Return why a method is not run; nothing where it can be.

        Raises:
            ValueError: the changes of a method of the user's own are no settings.
        """
        estimators = [*self.settings.evaluation.estimators]
        estimators += ["deep3d"] if "deep3d" in method.files and "deep3d" not in estimators else []
        try:
            settings = self._request.settings(_list("estimators", estimators), *self.own_changes(method))
            check_evaluation(settings)
            for name in sorted(set(filter(_is_brought, evaluation_sources(settings).values()))):
                self._read(str(name))
        except ModelFileError as error:
            return _one_line(error)
        except ValueError as error:
            if method.own:
                raise ValueError(f"method {method.name!r}: {error}") from error
            return _one_line(error)
        if is_ablation(method) and changes_nothing(self.settings, settings):
            return f"the profile {self._request.profile} has it so"
        return ""

    def _read(self, name: str) -> None:
        """Read a file that the user brought, once, so that a wrong one is found before any work.

        Raises:
            ModelFileError: it is not what its name says.
        """
        if name not in self._sound:
            check_model(require([name])[name], MODELS[name])
            self._sound.add(name)

    def changes_of(self, method: Method, views: Sequence[View] = ()) -> list[str]:
        """Return the changes of settings with which a method makes a clip that is assessed."""
        changes = [_list("estimators", self.estimators), *self.own_changes(method)]
        return [*changes, _list("views", map(list, views))] if views and method.turns else changes

    def own_changes(self, method: Method) -> list[str]:
        """Return the changes of settings that make a method."""
        changes = list(method.changes)
        if method.goal == "evaluate_2d":
            changes.append(f"generator.weights={self.settings.consistency.generator_2d}")
        return changes


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_brought(source: Path | str) -> bool:
    """Tell whether a source of weights is a model that the user brings."""
    return isinstance(source, str) and MODELS[source].place == "user"


def _list(name: str, values: Iterable[Any]) -> str:
    """Return a change of a setting of the evaluation to a list."""
    return f"evaluation.{name}={json.dumps(list(values))}"
