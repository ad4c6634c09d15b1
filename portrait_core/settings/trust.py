"""Rules for settings of which a part comes from a stranger.

A manifest, a profile that one of its rows names, and a job in a store say *what* to make. Where it is made,
on which device, within which limits and under which licences is for the operator to decide: those settings
are always taken from the command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from portrait_core.errors import InputError
from portrait_core.settings import Settings, load_settings
from portrait_core.settings.profiles import explain, override_name, shown_change

STEERING = ("runner", "device", "limits", "commercial")
"""Names of the settings that only the command gives."""


def with_runner_of(given: Settings | Mapping[str, Any], command: Settings) -> Settings:
    """Combine settings of what to make with the command's settings of where to make it.

    ``commercial`` holds if either asks for it. Batch sizes stay those of ``given``, because they suit its
    generator.

    Args:
        given: settings of a stored job (also as the plain values of its JSON, whose ``runner`` is then not
            read) or of a manifest's row.
        command: settings of the command that is at work.

    Raises:
        ValueError: plain values are not settings; the message names each field.
    """
    if isinstance(given, Settings):
        settings = given
    else:
        try:
            settings = Settings.model_validate(
                {name: value for name, value in given.items() if name not in ("runner", "device", "limits")}
            )
        except ValidationError as error:
            raise ValueError(explain(error)) from None
    updates = {
        "runner": command.runner,
        "device": command.device,
        "limits": command.limits,
        "commercial": settings.commercial or command.commercial,
    }
    return settings.model_copy(update=updates)


def refuse_steering(overrides: Iterable[str]) -> None:
    """Check the ``section.field=value`` strings of a manifest's row.

    Raises:
        InputError: a string sets where or how the work is done.
    """
    for text in overrides:
        if override_name(text).partition(".")[0].strip() in STEERING:
            raise InputError(
                f"{shown_change(text)!r} may not stand in a row: {', '.join(STEERING)} are those of the "
                "command. Delete it here and give it to the command with --set"
            )


def settings_of_row(
    profile: str | Path, overrides: Iterable[str], own: Iterable[str], command: Settings
) -> Settings:
    """Return the settings of a manifest's row.

    Settings of the runner in its profile are ignored rather than refused, because profiles that come with the
    program have some and other profiles extend them.

    Args:
        profile: profile that the row, or else the command, names.
        overrides: ``section.field=value`` strings of the command.
        own: such strings of the row, which are applied after the command's.
        command: settings of the command.

    Raises:
        InputError: the row's own strings set what only the command may.
        ValueError: an unknown profile or setting, or a value that does not fit.
    """
    own = tuple(own)
    refuse_steering(own)
    return with_runner_of(load_settings(profile, (*overrides, *own)), command)
