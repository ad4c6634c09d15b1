"""Settings with less memory for the same result, for a task that ran out of it."""

from __future__ import annotations

from portrait_core.settings import Settings

MIN_RAYS = 256
"""Smallest number of rays at a time; fewer save no memory that matters."""
_FIRST_RAYS = 8192
"""Number of rays at a time in the first fallback: half of what a published generator renders at once."""


def with_less_memory(settings: Settings) -> tuple[Settings, str] | None:
    """Return the same settings with smaller batches and fewer rays at a time.

    None of these fields is part of a key. With fewer rays at a time random samples are drawn in another
    order, so results agree as two seeds do, not bit by bit.

    Returns:
        The settings and a description of the changes, or None when nothing is left to halve.
    """
    rays = settings.generator.ray_chunk
    halved = {
        "tracking.batch": (settings.tracking.batch, max(1, settings.tracking.batch // 2)),
        "template.batch": (settings.template.batch, max(1, settings.template.batch // 2)),
        "generator.ray_chunk": (rays, _FIRST_RAYS if rays is None else max(MIN_RAYS, rays // 2)),
        **{name: (size, max(1, size // 2)) for name, size in _batches(settings).items()},
    }
    changed = {name: pair for name, pair in halved.items() if pair[0] != pair[1]}
    if not changed:
        return None
    updates: dict[str, object] = {}
    for name, (_, value) in changed.items():
        section, field = name.split(".")
        updates[section] = getattr(settings, section).model_copy(update={field: value})
    changes = ", ".join(
        f"{name} {'all' if old is None else old} -> {new}" for name, (old, new) in changed.items()
    )
    return settings.model_copy(update=updates), changes


def _batches(settings: Settings) -> dict[str, int]:
    """Return the sizes of batches of pictures that are read one by one, whose results do not depend on them.

    Those of baselines are not among them: a network that is given other batches rounds otherwise.
    """
    return {"evaluation.batch": settings.evaluation.batch, "consistency.batch": settings.consistency.batch}
