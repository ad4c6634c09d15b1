"""What every section of settings has in common: its base, and the kinds of numbers in it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

HOW: dict[str, JsonValue] = {"how": True}
"""``json_schema_extra`` of fields that do not change a result."""
DIGESTED: dict[str, JsonValue] = {"digested": True}
"""The same of paths whose files' digests are in the keys already: where a file lies changes nothing."""

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


def off(value: object) -> object:
    """Read a bare ``off`` of YAML, which is false there, as the word."""
    return "off" if value is False else value


class Section(BaseModel):
    """Base of every settings section: frozen, unknown fields refused, docstrings are the descriptions."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, strict=False
    )
