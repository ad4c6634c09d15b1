"""Labels of photographs by models that ship with the project: age, gender, smile, head pose.

The published labels came from a closed service. These are weaker, and no model under an open licence labels
glasses, beards, baldness or light: :func:`not_labelled` names the attributes that need a table
(:mod:`portrait_core.attribute_editing.label_tables`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Conditions
from portrait_core.cameras import angles_from_labels
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.topology import N_MESH
from portrait_core.tracking.crop import sample_square
from portrait_core.tracking.detector import open_session
from portrait_core.tracking.fit import FaceTrack, fit_clip
from portrait_core.tracking.landmarker import FaceLandmarker

Strength = Literal["exact", "good", "weak"]
Array = NDArray[np.float64]

MODEL = "age_gender.onnx"
_SIDE = 112
_SCALES = (0.95, 1.0, 1.05, 1.1)
"""Sides of the crops over the face's longer side; each crop is also mirrored."""
_BROAD_SMILE = 0.5
"""Value of the head's smile blendshapes in a broad smile with teeth shown, as the fit gives them: it assigns
the rest to neighbouring blendshapes (dimples, stretched lips)."""
_SMILE = ("mouthSmileLeft", "mouthSmileRight")
_NO_FACE = "no face was found; give a picture with one face that fills much of it"


@dataclass(frozen=True)
class Source:
    """Reliability and origin of an attribute's labels."""

    strength: Strength
    about: str
    """Origin of the labels, in a sentence or two."""


_AGE_GENDER = (
    "face-api's network of 0.4 million weights (MIT), trained on research collections of photographs "
    "(UTKFace, FG-NET, ChaLearn, IMDB-WIKI, CACD, MegaAge, MegaAge-Asian), whose labels are noisy and whose "
    "people are not everybody"
)
_POSE = (
    "the fit of the embedded head to 478 landmarks: 1 to 3 degrees off up to 30 degrees of yaw, up to 5 "
    "where a face looks down, more in profile"
)

LOCAL_SOURCES: Mapping[str, Source] = {
    "age": Source("weak", f"{_AGE_GENDER}; by its authors 4.5 years off on average, 6 on some of them"),
    "gender": Source("weak", f"{_AGE_GENDER}; by its authors 95 of 100 right, fewer among children"),
    "expression": Source(
        "weak",
        "how far the corners of the mouth are drawn up in the fit of the embedded head to landmarks; the "
        "order is good, the scale is not the published service's",
    ),
    "yaw": Source("good", _POSE),
    "pitch": Source("good", _POSE),
}
"""Attributes that :class:`PhotographLabeller` gives, by the names of the published conditions."""


def not_labelled(conditions: Conditions = PUBLISHED_CONDITIONS) -> tuple[str, ...]:
    """Return the attributes that no model here can label, in order; held ones need no label."""
    return tuple(name for name in conditions.editable if name not in LOCAL_SOURCES)


@dataclass(frozen=True)
class PhotographLabels:
    """Labels of n pictures as a model reads them: how a picture looks, not who a person is."""

    values: Mapping[str, Array]
    """``[n]`` float64 for each name of :data:`LOCAL_SOURCES`, NaN where there is no label: ``age`` in years,
    >= 0; ``gender`` in 0..1, 1 is male; ``expression`` in 0..1, 1 is a broad smile; ``yaw`` and ``pitch``
    in degrees, those of the camera relative to the head, as everywhere in this project: yaw > 0 shows more
    of the subject's left cheek, pitch > 0 looks down on the head."""
    problems: tuple[str, ...]
    """Why a picture has no labels and what to do; empty for pictures with labels."""
    faces: NDArray[np.int64]
    """``[n]`` number of faces in each picture. Of several, the largest and most central one is labelled."""

    def by_picture(self, names: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the labels by name of picture and attribute; pictures without a face have none.

        Args:
            names: unique names of the pictures, in order.

        Raises:
            ValueError: the number of names differs, or a name comes twice.
        """
        if len(names) != len(self.problems) or len(set(names)) != len(names):
            raise ValueError(
                f"expected {len(self.problems)} different names, got {len(names)}, {len(set(names))} of them "
                "different"
            )
        return {
            name: {key: float(value[i]) for key, value in self.values.items() if math.isfinite(value[i])}
            for i, name in enumerate(names)
        }


class PhotographLabeller:
    """Labels photographs, and generated pictures that look like them, on the CPU."""

    def __init__(
        self, landmarker: FaceLandmarker, head: MorphableHead, network: onnxruntime.InferenceSession
    ) -> None:
        self._landmarker = landmarker
        self._head = head
        self._network = network

    @classmethod
    def from_models(cls, models_dir: str | Path, threads: int = 1) -> PhotographLabeller:
        """Open the models in ``models_dir`` (the repository's ``data/models``) with ``threads`` CPU threads.

        Raises:
            ValueError: a file is missing or ``threads`` is less than 1.
        """
        folder = Path(models_dir)
        return cls(
            FaceLandmarker.from_models(folder, threads),
            MorphableHead.load(folder / "embedded_head.safetensors"),
            open_session(folder / MODEL, threads),
        )

    def label(self, pictures: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> PhotographLabels:
        """Label pictures ``[n,H,W,3]`` uint8 RGB, or a list of ``[H,W,3]`` of any sizes.

        Raises:
            ValueError: a picture is not ``[H,W,3]`` uint8.
        """
        values = {name: np.full(len(pictures), np.nan) for name in LOCAL_SOURCES}
        problems = [_NO_FACE] * len(pictures)
        faces = np.zeros(len(pictures), np.int64)
        for i, picture in enumerate(pictures):
            landmarks = self._landmarker.detect(picture[None])
            faces[i] = landmarks.faces[0]
            if landmarks.ok[0]:
                problems[i] = ""
                for name, value in self._read(picture, landmarks.points).items():
                    values[name][i] = value
        return PhotographLabels(values, tuple(problems), faces)

    def _read(self, picture: NDArray[np.uint8], points: NDArray[np.float32]) -> dict[str, float]:
        """Label a face with landmarks ``points [1,478,2]`` in pixels."""
        crops = face_crops(picture, points[0]).astype(np.float32)
        age, male = self._network.run(["age", "male"], {"image": crops})
        track = fit_clip(self._head, points, np.array([True]))
        yaw, pitch, _ = np.degrees(angles_from_labels(track.cameras)[0])
        return {
            "age": max(float(age.mean()), 0.0),
            "gender": float(male.mean()),
            "expression": float(smile_strengths(self._head, track)[0]),
            "yaw": float(yaw),
            "pitch": float(pitch),
        }


def face_crops(picture: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Cut eight crops of a face, eyes level, from brow to chin: four sizes, each plain and mirrored.

    A single crop's age is about two years off their mean; on larger crops the network's error is larger.

    Args:
        picture: ``[H,W,3]`` uint8.
        points: ``[478,2]`` landmarks in pixels.

    Returns:
        ``[8,112,112,3]`` uint8.
    """
    mesh = np.asarray(points[:N_MESH], dtype=np.float64)
    across = mesh[263] - mesh[33]
    angle = float(np.arctan2(across[1], across[0]))
    cos, sin = np.cos(angle), np.sin(angle)
    axes = np.array([[cos, -sin], [sin, cos]])
    level = mesh @ axes
    low, high = level.min(axis=0), level.max(axis=0)
    centre, side = axes @ ((low + high) / 2), float((high - low).max())
    crops = [sample_square(picture, centre, scale * side, angle, _SIDE) for scale in _SCALES]
    return np.stack([*crops, *(crop[:, ::-1] for crop in crops)])


def smile_strengths(head: MorphableHead, track: FaceTrack) -> Array:
    """Return how strongly the faces of a track smile, ``[T]`` in 0..1.

    It is the mean of both corners' blendshapes over their value in a broad smile.
    """
    blendshapes = [head.expression_names.index(name) for name in _SMILE]
    return np.asarray(
        np.clip(track.expression[:, blendshapes].mean(axis=1) / _BROAD_SMILE, 0.0, 1.0), np.float64
    )
