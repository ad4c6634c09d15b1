"""Models that a process has loaded, kept by the digest of their weights.

A worker runs many short tasks; loading a model for each would cost more than the work. What all clips share
(landmarks, head, Φ, the frozen generator) stays; of what belongs to one clip (``alone``: its tuned generator,
renderers, masks) a process holds one clip's, because these are large and no later clip needs them.

Tasks of several clips may run at once in the threads of one process. A task holds what it works with by its
own references, so dropping something here never breaks it, and would not free it either: what a task holds
stays known, and the next task of that clip finds it. So there are as many as tasks at once, and clips that
take turns in the threads do not load theirs at every turn.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Model = TypeVar("Model")
_Key = tuple[Hashable, ...]

_KEPT = 11
"""Shared models kept: landmarks for two numbers of threads and by another reading, encoders, heads, two Φ,
the frozen generator."""

_shared: OrderedDict[_Key, Any] = OrderedDict()
_alone: dict[_Key, Any] = {}
_building: dict[_Key, threading.Lock] = {}
_lock = threading.Lock()


def cached(
    kind: str, digest: str, load: Callable[[], Model], *variant: Hashable, alone: bool = False
) -> Model:
    """The model with these weights, loaded at most once per process and ``variant`` (device, precision,
    compilation, threads).

    Shared models that were not used for longest are dropped when there are more than a few. Several threads
    may ask at once: one loads, the others wait.

    Args:
        kind: what it is, for example ``"generator"``.
        digest: digest or key of its weights.
        load: builds the model.
        variant: anything else that makes it another object.
        alone: it belongs to one clip. Before another of its kind is loaded, it is dropped unless a task is
            using it; the model must take weak references.
    """
    key = (kind, digest, *variant)
    with _lock:
        if (found := _found(key)) is not None:
            return found
        turn = _building.setdefault(key, threading.Lock())
    with turn:
        with _lock:
            if (found := _found(key)) is not None:
                return found
        if alone:
            drop_unused(kind)  # first: the old one and the new one need not fit together
        model = load()
        with _lock:
            (_alone if alone else _shared)[key] = model
            _building.pop(key, None)
            while len(_shared) > _KEPT:
                _shared.popitem(last=False)
        return model


def _found(key: _Key) -> Any:
    if key in _shared:
        _shared.move_to_end(key)
        return _shared[key]
    return _alone.get(key)


def drop_unused(*kinds: str) -> None:
    """Drop the clips' models of these kinds that no task holds. A kind that holds another goes before it."""
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
