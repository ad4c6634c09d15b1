"""Identity by face-recognition vectors of pictures.

The paper takes ArcFace's (Deng et al. 2019, section 4), whose weights are for research only: where the user's
file is found, it is taken. What comes with the program is dlib's network (King 2017). That one was trained by
Euclidean distance, with 0.6 between "same" and "other" people, not by angle: every face lies within a narrow
cone, so its cosines are far higher than ArcFace's and the two do not compare. What compares are rows of one
table, and the cosine of other people in it. So :attr:`Recogniser.name` goes with every number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from portrait_core.face_model.topology import N_MESH
from portrait_core.metrics.face_alignment import FaceSquares, Layout, cut_faces, face_squares
from portrait_core.metrics.face_recognition import SIDE, WIDTH, FaceRecognition, load_face_recognition
from portrait_core.runtime.package_files import data_folder
from portrait_core.tracking.detector import start_session
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.landmarks68 import five_points
from portrait_core.tracking.measure import seen
from portrait_core.weights.file_checks import checking
from portrait_core.weights.locate import find, require
from portrait_core.weights.readers.onnx_files import read_arcface

SIZE = WIDTH
"""Numbers of a vector of the network that comes with the program."""
DLIB_LAYOUT = Layout(
    size=SIDE,
    places=(
        (110.95674596, 46.34981538),
        (89.60604765, 47.89674388),
        (37.05750621, 46.37274527),
        (58.40850614, 47.90642403),
        (74.01123136, 87.77975316),
    ),
    from_face=False,
    whole_pixels=True,
)
"""dlib's chip with a margin of a quarter (``get_face_chip_details`` gives the same squares): outer and inner
corner of the eye at the image's right, the same of the other eye, the nose's base."""
DLIB_POINTS = (263, 362, 33, 133, 2)
"""Face-mesh numbers of these five points."""
ARCFACE_LAYOUT = Layout(
    size=112,
    places=(
        (38.7946, 52.1963),
        (74.0318, 52.0014),
        (56.5252, 72.2366),
        (42.0493, 92.8655),
        (71.2299, 92.7041),
    ),
    from_face=True,
)
"""insightface's template, half a pixel on because pixel centres lie at +0.5 here: the eye at the image's
left, the one at its right, the nose's tip, the mouth's left and right corner."""
_ARCFACE_WIDTH = 512
_BATCH, _PIXELS = 32, 2**24
"""Pictures, and pixels of them, at most at a time."""


class Recogniser(ABC):
    """A face-recognition network with its alignment, by this project's landmarks.

    Attributes:
        name: what stands beside its numbers.
        width: numbers of a vector.
        device: where pictures are cut.
    """

    name: str
    width: int
    device: torch.device

    @abstractmethod
    def _numbers(self, pictures: Tensor, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the vectors ``[n,D]`` of faces in pictures ``[n,3,H,W]`` in [-1,1] on the device."""

    def embed(self, pictures: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the vectors ``[n,D]`` of one face in each picture; NaN where its landmarks are NaN.

        Args:
            pictures: ``[n,H,W,3]`` uint8 RGB.
            landmarks: ``[n,478,2]`` in continuous pixels, of ``FaceLandmarker``.

        Raises:
            ValueError: for other shapes or types.
        """
        landmarks = np.asarray(landmarks)
        _check_pictures(pictures)
        if landmarks.ndim != 3 or len(landmarks) != len(pictures) or landmarks.shape[1] < N_MESH:
            raise ValueError(f"landmarks are {list(landmarks.shape)}, expected [{len(pictures)},478,2]")
        vectors, known = np.full((len(pictures), self.width), np.nan), np.flatnonzero(seen(landmarks))
        count = max(1, min(_BATCH, _PIXELS // (pictures.shape[1] * pictures.shape[2])))
        for first in range(0, len(known), count):
            which = known[first : first + count]
            levels = torch.from_numpy(np.ascontiguousarray(pictures[which])).to(self.device)
            with torch.no_grad():
                vectors[which] = self._numbers(levels.permute(0, 3, 1, 2) / 127.5 - 1, landmarks[which])
        return vectors

    def describe(self, picture: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the vector ``[D]`` of a face by its landmarks ``[478,2]`` in a picture; NaN for NaN."""
        return self.embed(picture[None], points[None])[0]


class ShippedRecogniser(Recogniser):
    """dlib's network, which comes with the program.

    Its vectors are not of length 1: their distances are what it was trained by.
    """

    name = "dlib ResNet (not ArcFace)"
    width = WIDTH

    def __init__(self, network: FaceRecognition) -> None:
        self.network = network
        self.device = next(network.parameters()).device

    @classmethod
    def load(cls, device: str | torch.device = "cpu", path: str | Path | None = None) -> ShippedRecogniser:
        """Load the network to a device.

        Args:
            device: where it computes.
            path: ``face_recognition.safetensors``; None: the one in the data folder.

        Raises:
            ModelFileError: the file is missing, damaged or another network's.
        """
        path = require(["face_recognition"])["face_recognition"] if path is None else path
        return cls(load_face_recognition(path, device))

    def squares(self, landmarks: NDArray[np.floating]) -> FaceSquares:
        """Return the squares that the network sees of faces with landmarks ``[n,478,2]``.

        Raises:
            InputError: if landmarks are not finite.
        """
        return face_squares(np.asarray(landmarks)[:, DLIB_POINTS, :2], DLIB_LAYOUT)

    def vectors(
        self, pictures: Float[Tensor, "n 3 h w"], landmarks: NDArray[np.floating]
    ) -> Float[Tensor, "n d"]:
        """Return the vectors of faces, with gradients to the pictures.

        Args:
            pictures: RGB in [-1,1] on the network's device, one face in each.
            landmarks: ``[n,478,2]``, finite, in continuous pixels; they get no gradients.

        Raises:
            InputError: if landmarks are not finite.
        """
        found: Tensor = self.network(cut_faces(pictures, self.squares(landmarks)))
        return found

    def _numbers(self, pictures: Tensor, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(self.vectors(pictures, landmarks).cpu().numpy(), np.float64)


class ArcFaceRecogniser(Recogniser):
    """ArcFace's ResNet-50 trained on WebFace600K, from the user's file; its vectors are of length 1.

    It computes on the CPU and gives no gradients. Pictures are aligned by least squares onto insightface's
    template, with the means of the eyes' corners for eyes.
    """

    name = "ArcFace w600k_r50"
    width = _ARCFACE_WIDTH
    device = torch.device("cpu")

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    @classmethod
    def load(cls, path: str | Path | None = None, threads: int = 1) -> ArcFaceRecogniser:
        """Open the network.

        Args:
            path: ``w600k_r50.onnx``, a folder with it, or ``buffalo_l.zip``; None: in the models folder.
            threads: CPU threads.

        Raises:
            ModelFileError: the file is missing, damaged or another network.
        """
        place = require(["arcface"])["arcface"] if path is None else Path(path)
        network = read_arcface(place)
        with checking(place, "arcface"):
            made = cls(start_session(network.data, threads, bounded=True))
            made._try()
        return made

    def squares(self, landmarks: NDArray[np.floating]) -> FaceSquares:
        """Return the squares that the network sees of faces with landmarks ``[n,478,2]``.

        Raises:
            InputError: if landmarks are not finite.
        """
        return face_squares(five_points(landmarks) + 0.5, ARCFACE_LAYOUT)

    def _numbers(self, pictures: Tensor, landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
        faces = cut_faces(pictures, self.squares(landmarks)).numpy()
        # one by one: as fast on a CPU, and it suits files of a fixed batch
        found = np.concatenate([self._run(face[None]) for face in faces])
        return np.asarray(found / np.linalg.norm(found, axis=-1, keepdims=True), np.float64)

    def _run(self, face: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(self._session.run(None, {self._input: face})[0], np.float64)

    def _try(self) -> None:
        """Run the network once.

        Raises:
            ValueError: it fails, or its answer is no direction.
        """
        size = ARCFACE_LAYOUT.size
        ramp = np.linspace(-1, 1, 3 * size * size, dtype=np.float32).reshape(1, 3, size, size)
        try:
            answer = self._run(ramp)
        except Exception as error:  # the runtime's errors share no class but this one
            raise ValueError(f"the network fails on a picture ({error!s:.200})") from error
        if answer.shape != (1, self.width) or not np.isfinite(answer).all() or not answer.any():
            raise ValueError(f"the network's answer to a picture {list(answer.shape)} is no vector of a face")


def choose_recogniser(
    device: str | torch.device = "cpu", threads: int = 1, commercial: bool = False
) -> Recogniser:
    """Return ArcFace where the user's file is found, else the network that comes with the program.

    Args:
        device: where the latter computes.
        threads: CPU threads of the former.
        commercial: True takes no ArcFace, whose weights are for research only.

    Raises:
        ModelFileError: the file that is taken is damaged or another network.
    """
    if not commercial and find("arcface").where is not None:
        return ArcFaceRecogniser.load(threads=threads)
    return ShippedRecogniser.load(device)


def identity_embeddings(
    pictures: NDArray[np.uint8],
    recogniser: Recogniser | None = None,
    landmarker: FaceLandmarker | None = None,
) -> NDArray[np.float64]:
    """Return vectors ``[N,D]`` of the main faces of pictures; NaN where there is no face.

    Args:
        pictures: whole pictures, or crops of heads ``[N,H,W,3]`` uint8 RGB.
        recogniser: face recogniser; None: the one that comes with the program, loaded anew.
        landmarker: face landmark network; None: loaded anew.

    Raises:
        ValueError: for another shape.
    """
    pictures = np.asarray(pictures)
    _check_pictures(pictures)
    recogniser = recogniser or ShippedRecogniser.load()
    landmarker = landmarker or FaceLandmarker.from_models(data_folder() / "models")
    vectors = np.full((len(pictures), recogniser.width), np.nan)
    for first in range(0, len(pictures), _BATCH):
        batch = pictures[first : first + _BATCH]
        vectors[first : first + _BATCH] = recogniser.embed(batch, landmarker.detect(batch).points)
    return vectors


def cosine_similarity(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return cosines ``[...]`` of vectors ``[...,D]``, in -1..1 (the paper's table 3); NaN for NaN.

    Raises:
        ValueError: if a vector is zero.
    """
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    if (lengths == 0).any():
        raise ValueError("a zero vector has no direction; give identity vectors")
    return np.asarray((np.asarray(a) * b).sum(-1) / lengths)


def identity_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Euclidean distances ``[...]`` of vectors ``[...,D]``, what dlib's network was trained by."""
    return np.asarray(np.linalg.norm(np.asarray(a) - b, axis=-1))


def _check_pictures(pictures: NDArray[np.uint8]) -> None:
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or pictures.dtype != np.uint8:
        raise ValueError(f"pictures are {pictures.dtype} {list(pictures.shape)}, expected uint8 [N,H,W,3]")
