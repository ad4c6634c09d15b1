"""Models that a process has loaded, kept by the digest of their weights.

A worker runs many short tasks, and loading a model for each would cost more than the work. Models that all
clips share (landmarks, head, Φ, the frozen generator) stay. Of the models that belong to one clip (``alone``:
its tuned generator, renderers, masks), a process keeps those of one clip, because they are large and no later
clip needs them.

Tasks of several clips may run at the same time in the threads of one process. A task holds its models by
references of its own, so dropping one here neither breaks the task nor frees the model. A model that a task
holds stays known, and the next task of that clip finds it. So there are as many as tasks at work, and clips
that take turns in the threads do not load their models at every turn.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Model = TypeVar("Model")
_Key = tuple[Hashable, ...]

_MAX_SHARED = 11
"""Number of shared models that are kept: landmarks for two numbers of threads and by another reading,
encoders, heads, two Φ, the frozen generator."""

_shared: OrderedDict[_Key, Any] = OrderedDict()
_alone: dict[_Key, Any] = {}
_building: dict[_Key, threading.Lock] = {}
_lock = threading.Lock()


def cached(
    kind: str, digest: str, load: Callable[[], Model], *variant: Hashable, alone: bool = False
) -> Model:
    """Return the model with these weights, loaded at most once per process and ``variant``.

    Of the shared models, those that were not used for the longest time are dropped when there are more than
    :data:`_MAX_SHARED`. Several threads may ask at the same time: one loads the model, the others wait.

    Args:
        kind: kind of the model, for example ``"generator"``.
        digest: digest or key of its weights.
        load: function that builds the model.
        variant: everything else that makes it another object: device, precision, compilation, threads.
        alone: whether it belongs to one clip. Before another model of its kind is loaded, it is dropped
            unless a task is using it; the model must support weak references.
    """
    key = (kind, digest, *variant)
    with _lock:
        if (model := _find(key)) is not None:
            return model
        turn = _building.setdefault(key, threading.Lock())
    with turn:
        with _lock:
            if (model := _find(key)) is not None:
                return model
        if alone:
            drop_unused(kind)  # first: memory need not hold the old model and the new one together
        model = load()
        with _lock:
            (_alone if alone else _shared)[key] = model
            _building.pop(key, None)
            while len(_shared) > _MAX_SHARED:
                _shared.popitem(last=False)
        return model


def _find(key: _Key) -> Any:
    if key in _shared:
        _shared.move_to_end(key)
        return _shared[key]
    return _alone.get(key)


def drop_unused(*kinds: str) -> None:
    """Drop the clips' models of these kinds that no task holds.

    A kind whose models hold models of another kind has to be named before it.
    """
    with _lock:
        for kind in kinds:
            for key in [key for key in _alone if key[0] == kind]:
                held = weakref.ref(_alone.pop(key))
                if (model := held()) is not None:
                    _alone[key] = model
                del model


def forget_models() -> None:
    """Drop every kept model."""
    with _lock:
        _shared.clear()
        _alone.clear()
