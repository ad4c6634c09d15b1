"""Whose settings hold, where some come from a stranger.

A manifest, a profile that one of its rows names, and a job that lies in a store say *what* to make. Where
that is done, on which device and under which licences is the operator's to say: those settings are always
taken from the command.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from portrait_core.errors import InputError
from portrait_core.settings import Settings, load_settings
from portrait_core.settings.profiles import explain, override_name

STEERING = ("runner", "device", "commercial")
"""Settings that only the command gives."""


def with_runner_of(given: Settings | Mapping[str, Any], command: Settings) -> Settings:
    """Settings that say what to make, with those that say where taken from the command.

    ``commercial`` holds if either asks for it. Sizes of batches stay those of ``given``: they go with its
    generator.

    Args:
        given: settings of a stored job (also as the plain values of its JSON, whose ``runner`` is then not
            even looked at) or of a manifest's row.
        command: settings of the command that is at work.

    Raises:
        ValueError: plain values that are no settings; the message names each field.
    """
    if isinstance(given, Settings):
        settings = given
    else:
        try:
            settings = Settings.model_validate(
                {name: value for name, value in given.items() if name not in ("runner", "device")}
            )
        except ValidationError as error:
            raise ValueError(explain(error)) from None
    where = {
        "runner": command.runner,
        "device": command.device,
        "commercial": settings.commercial or command.commercial,
    }
    return settings.model_copy(update=where)


def refuse_steering(overrides: Iterable[str]) -> None:
    """Check the ``section.field=value`` strings of a manifest's row.

    Raises:
        InputError: one of them sets where or how the work is done.
    """
    for text in overrides:
        if override_name(text).partition(".")[0].strip() in STEERING:
            raise InputError(
                f"{text!r} may not stand in a row: {', '.join(STEERING)} are those of the command. Delete it "
                "here and give it to the command with --set"
            )


def settings_of_row(
    profile: str | Path, overrides: Iterable[str], own: Iterable[str], command: Settings
) -> Settings:
    """Settings of a manifest's row.

    What its profile says of the runner is not refused but left aside: profiles that come with the program say
    something of it, and others extend them.

    Args:
        profile: what the row, or else the command, names.
        overrides: ``section.field=value`` of the command.
        own: those of the row, which come after them.
        command: settings of the command.

    Raises:
        InputError: the row's own overrides set what only the command may.
        ValueError: an unknown profile or setting, or a value that does not fit.
    """
    own = tuple(own)
    refuse_steering(own)
    return with_runner_of(load_settings(profile, (*overrides, *own)), command)
