"""JSON beside files of weights or inside them: what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from portrait_core.runtime.regular_files import read_regular
from portrait_core.settings.limits import current_limits, over_limit


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        OSError: it does not exist, or is no regular file.
        ValueError: it is no JSON, holds something else, or is larger than ``limits.settings_bytes``.
    """
    data, size = read_regular(path, current_limits().settings_bytes)
    if problem := over_limit("settings_bytes", size):
        raise ValueError(f"{path} {problem}")
    return parsed_object(data)


def parsed_object(text: str | bytes) -> dict[str, Any]:
    """Parse the text of a JSON object.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or is something else than an object.
    """
    try:
        parsed = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is JSON that is nested too deeply") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"it is JSON of a {type(parsed).__name__}, expected an object")
    return parsed
