"""The base of all sections of settings, and the kinds of numbers in them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

HOW: dict[str, JsonValue] = {"how": True}
"""``json_schema_extra`` of fields that do not change a result."""
DIGESTED: dict[str, JsonValue] = {"digested": True}
"""``json_schema_extra`` of paths of files whose digests are part of the keys: the path itself changes
nothing."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""Number from 0 to 1."""
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


def off(value: object) -> object:
    """Return ``"off"`` for a bare ``off``, which YAML reads as false; return other values unchanged."""
    return "off" if value is False else value


class Section(BaseModel):
    """Base of all sections: frozen, refuses unknown fields, and takes descriptions from the docstrings."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=False
    )
