"""The registry of face models: one row per value of ``tracking.tracker``.

A row holds what the declarations of stages and the search for models must know before anything is loaded, and
builds the face model (:class:`~portrait_core.template.face_models.FaceModel`). To add a tracker, write one
module with its face model, add one row here and one value to ``settings.tracking.tracker``. This module
imports neither PyTorch nor NumPy: the modules of face models are imported when they are built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from portrait_core.settings import Settings
from portrait_core.tracking.array_names import DECA_CODE, MOUTH

if TYPE_CHECKING:
    from portrait_core.template.face_models import FaceModel, ModelSource

EYES = "eyes"
"""Array of the moves of eyes that FLAME cannot move: expressions of the embedded head ``[T,F]``."""

_MOVES = ("expression", "jaw")
"""Arrays that the moves of every face model have."""


@dataclass(frozen=True)
class FaceModelRow:
    """A face model before it is loaded."""

    name: str
    """Value of ``tracking.tracker`` that chooses it."""
    build: Callable[[ModelSource], FaceModel]
    """Builds the face model; its parts load their files when they are used."""
    fits_embedded_head: bool
    """True if its tracks are fits of the embedded head, on whose 478 landmarks expressions are measured."""
    tracking_files: tuple[str, ...] = ()
    """Files that the user brings for tracking, by their names in the registry of models."""
    template_files: tuple[str, ...] = ()
    """Files that the user brings for drawing the template."""
    kept_arrays: tuple[str, ...] = ()
    """Arrays that its tracker keeps of a portrait beside the track."""
    read_arrays: tuple[str, ...] = ()
    """Arrays that are read of a driver's pictures beside the track."""
    more_moves: Mapping[str, Callable[[Settings], bool]] = field(default_factory=dict)
    """Arrays of its moves beside ``expression`` and ``jaw``, which the embedded head makes; each with a test
    of the settings under which it exists."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files that the user brings, each once."""
        return tuple(dict.fromkeys((*self.tracking_files, *self.template_files)))

    def is_chosen(self, settings: Settings) -> bool:
        """Tell whether the settings choose this face model."""
        return settings.tracking.tracker == self.name

    def move_arrays(self, settings: Settings) -> tuple[str, ...]:
        """List the arrays of its moves under some settings."""
        return (*_MOVES, *(name for name, exists in self.more_moves.items() if exists(settings)))

    def moves_embedded_head(self, settings: Settings) -> bool:
        """Tell whether templates are drawn with the embedded head, wholly or in part."""
        return self.fits_embedded_head or len(self.move_arrays(settings)) > len(_MOVES)


def has_driven_eyes(settings: Settings) -> bool:
    """Tell whether the template takes the driver's eyes."""
    return settings.template.eyes == "driven"


def has_driven_mouth(settings: Settings) -> bool:
    """Tell whether the template shows teeth and tongue where the driver's mouth does."""
    return settings.template.mouth_inside == "driven"


def _embedded(models: ModelSource) -> FaceModel:
    from portrait_core.template.embedded_face import EmbeddedFace

    return EmbeddedFace(models)


def _deca(models: ModelSource) -> FaceModel:
    from portrait_core.template.deca_face import DecaFace

    return DecaFace(models)


_ROWS = (
    FaceModelRow(
        name="embedded",
        build=_embedded,
        fits_embedded_head=True,
        read_arrays=MOUTH,
        more_moves=dict.fromkeys(MOUTH, has_driven_mouth),
    ),
    FaceModelRow(
        name="deca",
        build=_deca,
        fits_embedded_head=False,
        # FLAME measures how well the tracks fit
        tracking_files=("deca", "deep3d", "deep3d_landmarks", "flame", "flame_landmarks"),
        template_files=("flame", "flame_landmarks", "head_template", "uv_face_eye_mask"),
        kept_arrays=DECA_CODE,
        more_moves={EYES: has_driven_eyes},
    ),
)
FACE_MODELS: Mapping[str, FaceModelRow] = MappingProxyType({row.name: row for row in _ROWS})
"""The rows by the value of ``tracking.tracker``."""


def face_model_row(settings: Settings) -> FaceModelRow:
    """Return the row of the face model that the settings choose."""
    return FACE_MODELS[settings.tracking.tracker]


def has_moves(name: str) -> Callable[[Settings], bool]:
    """Return a test of settings: whether their face model's moves have the array ``name``."""
    return lambda settings: name in face_model_row(settings).move_arrays(settings)


def more_move_arrays() -> tuple[str, ...]:
    """List the arrays that moves have with some face models only."""
    return tuple(dict.fromkeys(name for row in FACE_MODELS.values() for name in row.more_moves))
