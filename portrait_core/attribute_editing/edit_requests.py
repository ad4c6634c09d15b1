"""Edit requests as users write them: ``age=+20``, ``glasses=on``, ``beard=0.6``."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from portrait_core.errors import InputError, clipped

if TYPE_CHECKING:
    from portrait_core.attribute_editing.conditions import Conditions
    from portrait_core.attribute_editing.latent_edits import AttributeEdit

_REQUEST = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(\S+)\s*")
_WORDS: Mapping[str, float] = {"on": 1.0, "yes": 1.0, "true": 1.0, "off": 0.0, "no": 0.0, "false": 0.0}

MOUTH_ATTRIBUTES = ("smile", "expression")
"""Attributes that open and close the mouth, of the embedded and of the published StyleFlow."""


@dataclass(frozen=True)
class EditRequest:
    """One attribute to change.

    Attributes:
        name: name of the attribute.
        value: the target, or with ``relative`` the number that is added to the picture's own value.
        relative: whether the value was written with a sign.
    """

    name: str
    value: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.name}={self.value:+g}" if self.relative else f"{self.name}={self.value:g}"

    @property
    def slug(self) -> str:
        """Text for names of units, such as ``age-plus-20``."""
        sign = "" if not self.relative else "plus-" if self.value >= 0 else "minus-"
        return f"{self.name}-{sign}{abs(self.value) if self.relative else self.value:g}"

    def target(self, own: float, conditions: Conditions) -> float:
        """Return the value to reach from a picture's ``own``.

        A relative request stops at the end of the attribute's range, or changes nothing if the picture's own
        value lies beyond it.

        Raises:
            InputError: the attribute is unknown or held, or an absolute value is outside its range.
        """
        if not self.relative:
            return conditions.checked_target(self.name, self.value)
        attribute = conditions.attributes[conditions.index(self.name)]
        conditions.checked_target(self.name, attribute.low)  # raises where the attribute is held
        return min(max(own + self.value, min(attribute.low, own)), max(attribute.high, own))


def parse_request(text: str) -> EditRequest:
    """Parse one request.

    Raises:
        InputError: the text is not a request.
    """
    match = _REQUEST.fullmatch(text)
    value = math.nan
    if match is not None:
        word = match.group(2).lower()
        try:
            value = _WORDS[word] if word in _WORDS else float(word)
        except ValueError:
            value = math.nan
    if match is None or not math.isfinite(value):
        raise InputError(
            f"cannot read the edit {clipped(text)!r}; write it as attribute=value: age=+20 (20 more than the "
            "picture has), age=60 (60, whatever it has), beard=0.5, glasses=on"
        )
    return EditRequest(match.group(1), value, match.group(2)[0] in "+-")


def parse_requests(texts: Iterable[str]) -> tuple[EditRequest, ...]:
    """Parse requests, each in one text or several separated by commas or semicolons.

    Raises:
        InputError: a text is not a request, or an attribute is named twice.
    """
    parts = [part for text in texts for part in re.split(r"[,;]", text) if part.strip()]
    requests = tuple(parse_request(part) for part in parts)
    counts = Counter(request.name for request in requests)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise InputError(f"the edit names {clipped(', '.join(twice))} twice; name each attribute once")
    return requests


def moves_mouth(requests: Iterable[EditRequest]) -> bool:
    """Tell whether one of the requests moves the mouth, whose interior otherwise stays unchanged."""
    return any(request.name in MOUTH_ATTRIBUTES for request in requests)


def as_override(requests: Iterable[EditRequest]) -> str:
    """Format requests as a change of the settings, ``edit.attributes=[...]``."""
    return f"edit.attributes={json.dumps([str(request) for request in requests])}"


def check_requests(requests: Iterable[EditRequest], conditions: Conditions) -> None:
    """Check requests before any work.

    Raises:
        InputError: an attribute is unknown or held, or a value is outside its range.
    """
    for request in requests:
        request.target(0.0, conditions)


def make_edits(
    requests: Iterable[EditRequest], own: Mapping[str, float], conditions: Conditions, strength: float
) -> list[AttributeEdit]:
    """Convert requests to edits of a picture.

    Args:
        requests: the requests.
        own: the picture's labels by name.
        conditions: schema of the StyleFlow.
        strength: fraction of the way that every edit goes.
    """
    # the command line parses requests before torch is imported
    from portrait_core.attribute_editing.latent_edits import AttributeEdit

    return [
        AttributeEdit({request.name: request.target(own[request.name], conditions)}, strength)
        for request in requests
    ]
