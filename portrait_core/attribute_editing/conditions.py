"""The schema of a StyleFlow's conditions: names, units and ranges of attributes, in order.

The schema is stored beside the weights, so that a StyleFlow for another generator's attributes uses the same
code. Values are in the attributes' own units everywhere except behind :meth:`Conditions.encode`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from portrait_core.attribute_editing.settings import Frozen
from portrait_core.errors import InputError


class Condition(Frozen):
    """One attribute."""

    name: Annotated[str, Field(min_length=1)]
    """Name, unique within a schema."""
    low: float = 0.0
    """Minimum of the values that an edit may request. Labels of pictures may lie outside."""
    high: float = 1.0
    """Maximum of the values that an edit may request."""
    unit: str = ""
    """Unit, for example ``years``; empty for shares and switches."""
    kind: Literal["continuous", "share", "switch"] = "continuous"
    """``share``: a strength within 0..1. ``switch``: trained on 0 and 1; edits may go between and beyond."""
    held_at: float | None = None
    """The fixed value in training and in edits (of pose, where the camera sets it); None where it varies."""
    mean: float = 0.0
    """Value that is subtracted before the network sees the attribute."""
    scale: Annotated[float, Field(gt=0.0)] = 1.0
    """Divisor applied after that. Published flows take values in their units: mean 0 and scale 1."""

    @model_validator(mode="after")
    def _check(self) -> Condition:
        if not self.low < self.high:
            raise ValueError(f"attribute {self.name} needs low < high, got {self.low:g} and {self.high:g}")
        if self.kind != "continuous" and (self.low, self.high) != (0.0, 1.0):
            raise ValueError(
                f"attribute {self.name} is a {self.kind}, whose range is 0..1, got "
                f"{self.low:g}..{self.high:g}; make it continuous"
            )
        return self

    @property
    def range_text(self) -> str:
        """The range with its unit."""
        return f"{self.low:g}..{self.high:g}{f' {self.unit}' if self.unit else ''}"


class Conditions(Frozen):
    """The attributes of a StyleFlow, in order."""

    attributes: Annotated[tuple[Condition, ...], Field(min_length=1)]
    """One attribute per number of a condition."""

    @model_validator(mode="after")
    def _check(self) -> Conditions:
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"attributes must have unique names; {', '.join(twice)} comes twice")
        return self

    def __len__(self) -> int:
        return len(self.attributes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all attributes, in order."""
        return tuple(attribute.name for attribute in self.attributes)

    @property
    def editable(self) -> tuple[str, ...]:
        """Names of the attributes that are not held, in order."""
        return tuple(attribute.name for attribute in self.attributes if attribute.held_at is None)

    def index(self, name: str) -> int:
        """Return the position of an attribute.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.names:
            raise InputError(f"there is no attribute {name!r}; this StyleFlow knows {', '.join(self.names)}")
        return self.names.index(name)

    def checked_target(self, name: str, value: float) -> float:
        """Check a value that an edit requests, and return it.

        Raises:
            InputError: the attribute is unknown or held, or the value is outside its range.
        """
        attribute = self.attributes[self.index(name)]
        if attribute.held_at is not None:
            raise InputError(
                f"{name} is held at {attribute.held_at:g} in this StyleFlow; edit {', '.join(self.editable)}"
            )
        if not attribute.low <= value <= attribute.high:
            raise InputError(f"{name} is {value:g}, expected {attribute.range_text}")
        return float(value)

    def vector(self, values: Mapping[str, float]) -> Float[Tensor, " context"]:
        """Return a picture's labels by name as a condition ``[C]``, with held attributes at their value.

        Raises:
            InputError: a name is missing or unknown, or a value is not finite.
        """
        for name in values:
            self.index(name)
        missing = [name for name in self.editable if name not in values]
        if missing:
            raise InputError(
                f"no value is given for {', '.join(missing)}; this StyleFlow needs every attribute"
            )
        held = {a.name: a.held_at for a in self.attributes if a.held_at is not None}
        return self.checked_labels(torch.tensor([{**values, **held}[name] for name in self.names]))

    def checked_labels(self, values: Tensor) -> Float[Tensor, "*b context"]:
        """Check labels ``[...,C]``, and return them with held attributes at their value.

        Raises:
            InputError: the last axis has another length, or a value is not finite.
        """
        if values.ndim == 0 or values.shape[-1] != len(self):
            raise InputError(
                f"conditions have shape {list(values.shape)}, expected {len(self)} values each: "
                f"{', '.join(self.names)}"
            )
        finite = torch.isfinite(values).reshape(-1, len(self)).all(0).tolist()
        bad = [name for name, is_finite in zip(self.names, finite, strict=True) if not is_finite]
        if bad:
            raise InputError(f"values of {', '.join(bad)} are not finite; label those pictures again")
        values = values.clone()
        for i, attribute in enumerate(self.attributes):
            if attribute.held_at is not None:
                values[..., i] = attribute.held_at
        return values

    def encode(self, values: Float[Tensor, "*b context"]) -> Float[Tensor, "*b context"]:
        """Convert values ``[...,C]`` from their units to the network's standardised inputs."""
        mean = values.new_tensor([attribute.mean for attribute in self.attributes])
        scale = values.new_tensor([attribute.scale for attribute in self.attributes])
        return (values - mean) / scale

    def standardised(self, labels: Float[Tensor, "n context"]) -> Conditions:
        """Return the schema whose :meth:`encode` gives these labels mean 0 and deviation 1 (0 where held)."""
        labels = self.checked_labels(labels).double()
        means, deviations = labels.mean(0), labels.std(0, correction=0)
        return self._changed(
            {
                attribute.name: {"mean": float(mean), "scale": float(deviation) if deviation > 1e-6 else 1.0}
                for attribute, mean, deviation in zip(self.attributes, means, deviations, strict=True)
            }
        )

    def with_held(self, values: Mapping[str, float]) -> Conditions:
        """Return the schema with some attributes held, such as yaw and pitch for a 3D GAN."""
        for name in values:
            self.index(name)
        return self._changed({name: {"held_at": float(value)} for name, value in values.items()})

    def reaching(self, values: Mapping[str, Sequence[float]]) -> Conditions:
        """Return the schema whose ranges of edits reach some values too, such as poses beyond a slider's."""
        wider: dict[str, dict[str, float]] = {}
        for name, wanted in values.items():
            own = self.attributes[self.index(name)]
            wider[name] = {"low": min(own.low, *wanted), "high": max(own.high, *wanted)}
        return self._changed(wider)

    def without(self, names: Sequence[str]) -> Conditions:
        """Return the schema of a StyleFlow that does not know some attributes."""
        for name in names:
            self.index(name)
        return Conditions(attributes=tuple(a for a in self.attributes if a.name not in names))

    def _changed(self, changes: Mapping[str, Mapping[str, Any]]) -> Conditions:
        return Conditions(
            attributes=tuple(
                Condition.model_validate(a.model_dump() | dict(changes.get(a.name, {})))
                for a in self.attributes
            )
        )


LIGHT = tuple(f"light_{i}" for i in range(9))
"""Names of the lighting's spherical-harmonic coefficients in the published flows."""

PUBLISHED_CONDITIONS = Conditions(
    attributes=(
        *(Condition(name=name, low=-2.0, high=2.0) for name in LIGHT),
        Condition(name="gender", kind="share"),
        Condition(name="glasses", kind="switch"),
        Condition(name="yaw", low=-20.0, high=20.0, unit="degrees"),
        Condition(name="pitch", low=-20.0, high=20.0, unit="degrees"),
        Condition(name="baldness", kind="share"),
        Condition(name="beard", kind="share"),
        Condition(name="age", low=0.0, high=65.0, unit="years"),
        Condition(name="expression", kind="share"),
    )
)
"""Schema of the published flows, without scales. Ranges are those of the published sliders; gender 1 is male,
and expression is the smile. Lighting comes from DPR, the rest from the Microsoft Face service."""
