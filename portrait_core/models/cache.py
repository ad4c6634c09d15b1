"""Models that a process has loaded, kept by the digest of their weights.

A worker runs many short tasks; loading a model for each would cost more than the work.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Model = TypeVar("Model")

_KEPT = 10
"""Models kept: landmarks, encoders, heads, Φ, a clip's templates and targets, two generators."""

_models: OrderedDict[Hashable, Any] = OrderedDict()
_building: dict[Hashable, threading.Lock] = {}
_lock = threading.Lock()


def cached(kind: str, digest: str, load: Callable[[], Model], *variant: Hashable) -> Model:
    """The model with these weights, loaded at most once a process (per ``variant``: device, threads).

    The models that were not used for longest are dropped when there are more than a few. Several threads may
    ask at once: one loads, the others wait.

    Args:
        kind: what it is, for example ``"generator"``.
        digest: digest or key of its weights.
        load: builds the model.
        variant: anything else that makes it another object.
    """
    key = (kind, digest, *variant)
    with _lock:
        if key in _models:
            _models.move_to_end(key)
            return _models[key]  # type: ignore[no-any-return]
        turn = _building.setdefault(key, threading.Lock())
    with turn:
        with _lock:
            if key in _models:
                return _models[key]  # type: ignore[no-any-return]
        model = load()
        with _lock:
            _models[key] = model
            _building.pop(key, None)
            while len(_models) > _KEPT:
                _models.popitem(last=False)
        return model


def forget_models() -> None:
    """Drop every kept model."""
    with _lock:
        _models.clear()
