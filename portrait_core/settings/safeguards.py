"""What settings say about the process at work: limits on files, whom it asks, who reads what it writes.

With them come the process's own output, which shows no secrets, and the secrets of its store.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from portrait_core.runtime.addresses import host_of, use_private_hosts
from portrait_core.settings.limits import use_limits
from portrait_core.settings.whole import Settings, load_settings
from portrait_core.text.process_output import guard_output
from portrait_core.text.redaction import remember_options

_UMASKS = {"owner": 0o077, "group": 0o007}


def guard_process(settings: Settings) -> None:
    """Give this process the settings' limits and hosts, and the access mode of the files that it makes.

    Credentials of the settings are hidden from now on, in logs and messages too.

    Faces are personal data: by default only their owner may read what a run writes, its folders and the files
    of programs that it starts included. Every command, flow and task of a worker begins with this call.

    Args:
        settings: settings of the command at work.
    """
    guard_output()
    remember_options(settings.runner.storage_options)
    use_limits(settings.limits)
    use_private_hosts(settings.runner.private_hosts)
    if closed := closed_modes(settings):
        os.umask(closed)


def closed_modes(settings: Settings) -> int:
    """Return the bits of access modes that settings take away; 0 where the machine's own umask decides."""
    return _UMASKS.get(settings.runner.access, 0)


def allowing_hosts_of(places: Sequence[str], profile: str, overrides: Sequence[str]) -> list[str]:
    """Return a command's overrides, which allow the hosts of the URLs that it was given.

    Who gives a command a URL of the own network means it; a URL in a manifest may be a stranger's.

    Args:
        places: paths and URLs of the command line.
        profile: profile of the command.
        overrides: its ``section.field=value`` strings.

    Raises:
        ValueError: profile or overrides are unknown or do not fit.
    """
    named = dict.fromkeys(filter(None, map(host_of, places)))
    if not named:
        return list(overrides)
    hosts = dict.fromkeys((*load_settings(profile, overrides).runner.private_hosts, *named))
    return [*overrides, f"runner.private_hosts={json.dumps(list(hosts))}"]
