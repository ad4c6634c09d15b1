"""What the settings of a command say about its process: limits on files, and who may read what it writes."""

from __future__ import annotations

import os

from portrait_core.settings.limits import use_limits
from portrait_core.settings.whole import Settings

_UMASKS = {"owner": 0o077, "group": 0o007}


def guard_process(settings: Settings) -> None:
    """Give this process the limits of the settings, and the access mode of the files that it makes.

    Faces are personal data: by default only their owner may read what a run writes, its folders and the files
    of programs that it starts included. Every command, flow and task of a worker begins with this call.

    Args:
        settings: settings of the command at work.
    """
    use_limits(settings.limits)
    if closed := closed_modes(settings):
        os.umask(closed)


def closed_modes(settings: Settings) -> int:
    """Return the bits of access modes that settings take away; 0 where the machine's own umask decides."""
    return _UMASKS.get(settings.runner.access, 0)
