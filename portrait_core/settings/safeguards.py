"""What the settings of a command say about its process: limits on files, and who may read what it writes.

With them come the process's own output, which shows no secrets, and the secrets of its store.
"""

from __future__ import annotations

import os

from portrait_core.settings.limits import use_limits
from portrait_core.settings.whole import Settings
from portrait_core.text.process_output import guard_output
from portrait_core.text.redaction import remember_options

_UMASKS = {"owner": 0o077, "group": 0o007}


def guard_process(settings: Settings) -> None:
    """Give this process the limits of the settings, and the access mode of the files that it makes.

    Credentials of the settings are hidden from now on, in logs and messages too.

    Faces are personal data: by default only their owner may read what a run writes, its folders and the files
    of programs that it starts included. Every command, flow and task of a worker begins with this call.

    Args:
        settings: settings of the command at work.
    """
    guard_output()
    remember_options(settings.runner.storage_options)
    use_limits(settings.limits)
    if settings.runner.access in _UMASKS:
        os.umask(_UMASKS[settings.runner.access])
