"""Edits of latents: w is mapped to z under the picture's attributes and back under the target's.

An edit corresponds to one move of a slider of the published interface: the resulting latent replaces the
previous one and is encoded again, so that edits build on each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from portrait_core.attribute_editing.conditions import LIGHT, Conditions
from portrait_core.attribute_editing.latent_reader import LatentReader
from portrait_core.attribute_editing.settings import SolverSettings
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.errors import InputError

WPLUS_ROWS = 18
"""Rows of a W+ at 1024 pixels, for which the published table of rows was made."""


class StyleFlowModel(NamedTuple):
    """A StyleFlow and the meaning of its conditions."""

    flow: StyleFlow
    conditions: Conditions
    reader: LatentReader | None = None
    """Reads a latent's attributes where no labels are given; None for published flows, which have none."""


@dataclass(frozen=True)
class AttributeEdit:
    """One edit.

    Attributes:
        values: targets by attribute, in their units and ranges. Several attributes move together (lighting
            has nine).
        strength: fraction of the way from the picture's own value: 0 changes only rounding, 1 reaches the
            target, more goes beyond.
        degree: the published interface's gain, which multiplies the way too.
        rows: first and one past the last row of a W+ that may change; None for all. A single w changes as a
            whole.
    """

    values: Mapping[str, float]
    strength: float = 1.0
    degree: float = 1.0
    rows: tuple[int, int] | None = None


class _Slider(NamedTuple):
    degree: float
    rows: tuple[int, int]


_SLIDERS: Mapping[str, _Slider] = {
    "gender": _Slider(1.5, (0, 8)),
    "glasses": _Slider(2.5, (2, 4)),
    "yaw": _Slider(1.0, (0, 4)),
    "pitch": _Slider(1.0, (0, 4)),
    "baldness": _Slider(2.0, (0, 6)),
    "beard": _Slider(1.7, (5, 10)),
    "age": _Slider(0.93, (4, 8)),
    "expression": _Slider(1.0, (4, 6)),
}
_LIGHT_ROWS = (7, 12)


def published_edit(name: str, value: float, *, rows: int, strength: float = 1.0) -> AttributeEdit:
    """Return the published interface's edit of one attribute, with its gain.

    Args:
        name: name of the attribute.
        value: value of the slider.
        rows: number of rows of the latent. Of 18 rows the published ones change; with any other number all of
            them do, since the table's rows then stand for other resolutions.
        strength: fraction of the way.

    Raises:
        InputError: the interface has no slider for the attribute.
    """
    if name not in _SLIDERS:
        raise InputError(f"there is no slider for {name!r}; there are {', '.join(_SLIDERS)}, and light_edit")
    slider = _SLIDERS[name]
    return AttributeEdit({name: value}, strength, slider.degree, _table(slider.rows, rows))


def published_pose_edit(yaw_deg: float, pitch_deg: float, *, rows: int) -> AttributeEdit:
    """Return the published interface's edits of yaw and pitch as one.

    ``rows`` are those of the latent, as for :func:`published_edit`.
    """
    slider = _SLIDERS["yaw"]
    assert slider == _SLIDERS["pitch"]
    return AttributeEdit({"yaw": yaw_deg, "pitch": pitch_deg}, 1.0, slider.degree, _table(slider.rows, rows))


def light_edit(light: Float[Tensor, " 9"], *, rows: int, strength: float = 1.0) -> AttributeEdit:
    """Return the published interface's edit of the lighting; ``rows`` as for :func:`published_edit`.

    Raises:
        InputError: there are not nine numbers.
    """
    if light.shape != (9,):
        raise InputError(f"lighting has shape {list(light.shape)}, expected 9 spherical-harmonic numbers")
    values = dict(zip(LIGHT, light.tolist(), strict=True))
    return AttributeEdit(values, strength, 1.0, _table(_LIGHT_ROWS, rows))


def blend_light(
    light: Float[Tensor, " 9"], presets: Float[Tensor, "k 9"], sliders: Float[Tensor, " k"]
) -> Float[Tensor, " 9"]:
    """Move a picture's lighting toward presets: ``light + sum_k slider_k (preset_k - light)``.

    Args:
        light: the picture's spherical-harmonic coefficients ``[9]``.
        presets: coefficients of K presets ``[K,9]``.
        sliders: weights ``[K]`` in 0..1.
    """
    return light + (sliders[:, None] * (presets - light)).sum(0)


def _table(rows: tuple[int, int], n: int) -> tuple[int, int] | None:
    return rows if n == WPLUS_ROWS else None


class AttributeEditor:
    """Applies edits to a latent, one after the other.

    Attributes:
        w: the current latent ``[B,L,D]``.
        labels: the requested attributes ``[B,C]``, in their units.
    """

    def __init__(
        self,
        model: StyleFlowModel,
        w: Float[Tensor, "b l d"],
        labels: Float[Tensor, "b context"],
        solver: SolverSettings | None = None,
    ) -> None:
        """Take a latent and its picture's attributes.

        Args:
            model: the StyleFlow.
            w: ``[B,L,D]``: a W+, or L = 1 for a 3D GAN's single w.
            labels: ``[B,C]`` as :meth:`Conditions.checked_labels` takes them.
            solver: solver of the equation; default: the flow's own.

        Raises:
            InputError: the labels do not fit the flow.
        """
        self._model, self._solver = model, solver
        self._start = model.conditions.checked_labels(labels).to(w)
        self.w, self.labels = w, self._start.clone()
        self._encode()

    @torch.no_grad()
    def apply(self, edit: AttributeEdit) -> Float[Tensor, "b l d"]:
        """Edit, and return the new latent ``[B,L,D]``.

        Targets count from the original values; earlier edits of other attributes stay.

        Raises:
            InputError: an attribute is unknown, held, or requested beyond its range, or there are no such
                rows. Nothing has changed then.
            FloatingPointError: the flow's equation cannot be solved.
        """
        kept = self._kept(edit)
        labels = self.labels.clone()
        for name, value in edit.values.items():
            i, target = self._model.conditions.index(name), self._model.conditions.checked_target(name, value)
            start = self._start[:, i]
            labels[:, i] = start + edit.strength * edit.degree * (target - start)
        moved = self._solved(self.z, labels, reverse=True)
        if kept:
            moved[:, kept] = self.w[:, kept]
        self.w, self.labels = moved, labels
        self._encode()
        return self.w

    def _kept(self, edit: AttributeEdit) -> list[int]:
        n = self.w.shape[1]
        if edit.rows is None or n == 1:
            return []
        first, end = edit.rows
        if not 0 <= first < end <= n:
            raise InputError(
                f"rows {first}..{end - 1} are not in a latent of {n} rows; leave rows out to change them all"
            )
        return [row for row in range(n) if not first <= row < end]

    @torch.no_grad()
    def _encode(self) -> None:
        self.z = self._solved(self.w, self.labels, reverse=False)

    def _solved(self, x: Tensor, labels: Tensor, *, reverse: bool) -> Tensor:
        encoded = self._model.conditions.encode(labels)
        solved: Tensor = self._model.flow(x, encoded, reverse=reverse, solver=self._solver)
        return solved


def edit_latent(
    model: StyleFlowModel,
    w: Float[Tensor, "b l d"],
    labels: Float[Tensor, "b context"],
    edits: Iterable[AttributeEdit],
    solver: SolverSettings | None = None,
) -> Float[Tensor, "b l d"]:
    """Return the latent after all ``edits`` in order; arguments as for :class:`AttributeEditor`."""
    editor = AttributeEditor(model, w, labels, solver)
    for edit in edits:
        editor.apply(edit)
    return editor.w
