"""Detection of stages that stall."""

from __future__ import annotations

import time

from portrait_core.pipeline import Job
from portrait_core.pipeline.classification import StalledTaskError
from portrait_core.pipeline.history import PROGRESS, frames_per_part

_CHECKS_PER_STALL = 10
"""Checks of the store within the permitted time without progress."""
_FRAMES_PER_STALL = 1000
"""Frames for which a stage that commits only once may take ``runner.stall_s``."""
_AWAY_S = 30.0
"""Seconds between two calls of :meth:`Watchdog.check` beyond which the interval is not counted."""


class Watchdog:
    """Watches what a stage has in the store: frames, and steps of its optimisation."""

    def __init__(self, job: Job, stage: str) -> None:
        self._output, self._stage = job.output(stage), stage
        parts = frames_per_part(job, stage) if job.steps(stage) is None else 1
        # A stage of one part without steps stores nothing until it ends: longer clips are given more time.
        self._patience_s = job.settings.runner.stall_s * max(1.0, parts / _FRAMES_PER_STALL)
        self._seen: object = None
        self._since = self._checked = self._called = time.monotonic()

    def check(self) -> None:
        """Check at intervals whether the stage has stored anything new.

        Raises:
            StalledTaskError: there was nothing new for ``runner.stall_s``.
        """
        now = time.monotonic()
        away, self._called = now - self._called, now
        if away > _AWAY_S:  # no check was made because there were no workers, so nothing could progress
            self._since += away
        if not self._patience_s or now - self._checked < self._patience_s / _CHECKS_PER_STALL:
            return
        self._checked = now
        seen = self._output.marked(), self._output.read_note(PROGRESS)
        if seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since > self._patience_s:
            raise StalledTaskError(
                f"{self._stage} got no further for {now - self._since:.0f} s (runner.stall_s): it is stopped"
            )
