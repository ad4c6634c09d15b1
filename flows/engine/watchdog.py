"""Noticing work that gets no further."""

from __future__ import annotations

import time

from portrait_core.pipeline import Job
from portrait_core.pipeline.classification import StalledTaskError
from portrait_core.pipeline.history import PROGRESS, frames_per_part

_LOOKS = 10
"""Looks within the patience."""
_FRAMES = 1000
"""Frames that a stage of one part may take ``runner.stall_s`` for."""
_AWAY_S = 30.0
"""Seconds between two calls of :meth:`Watchdog.look` after which the time in between does not count."""


class Watchdog:
    """Watches what a stage has in the store: frames, and steps of its optimisation."""

    def __init__(self, job: Job, stage: str) -> None:
        self._output, self._stage = job.output(stage), stage
        parts = frames_per_part(job, stage) if job.steps(stage) is None else 1
        # A stage of one part without steps says nothing until it ends: long clips have long patience.
        self._patience_s = job.settings.runner.stall_s * max(1.0, parts / _FRAMES)
        self._seen: object = None
        self._since = self._looked = self._asked = time.monotonic()

    def look(self) -> None:
        """Look now and then whether there is more than before.

        Raises:
            StalledTaskError: there was nothing new for ``runner.stall_s``.
        """
        now = time.monotonic()
        away, self._asked = now - self._asked, now
        if away > _AWAY_S:  # nobody asked, as there were no workers: nothing could get further
            self._since += away
        if not self._patience_s or now - self._looked < self._patience_s / _LOOKS:
            return
        self._looked = now
        seen = self._output.marked(), self._output.read_note(PROGRESS)
        if seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since > self._patience_s:
            raise StalledTaskError(
                f"{self._stage} got no further for {now - self._since:.0f} s (runner.stall_s): it is given up"
            )
