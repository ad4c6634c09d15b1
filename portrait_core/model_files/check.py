"""Checks that a file of weights is what its name says: its bytes, as far as known, and its content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portrait_core.attribute_editing.styleflow_files import (
    is_styleflow_file,
    load_styleflow,
    styleflow_metadata,
)
from portrait_core.baselines.facevid2vid_checkpoint import read_facevid2vid
from portrait_core.baselines.pirenderer_files import read_pirenderer
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.uv_maps import read_obj_layout
from portrait_core.media import read_image
from portrait_core.metrics.face_recognition import read_face_recognition
from portrait_core.metrics.inception import read_inception
from portrait_core.tracking.checkpoints import read_deca, read_deep3d
from portrait_core.weights.file_checks import checking
from portrait_core.weights.locate import digest
from portrait_core.weights.readers.flame_files import read_flame, read_flame_masks, read_landmark_embedding
from portrait_core.weights.readers.mat_files import read_bfm, read_similarity_landmarks
from portrait_core.weights.readers.onnx_files import OnnxNetwork, read_arcface, read_face_detector, read_onnx
from portrait_core.weights.readers.torch_files import (
    read_alexnet,
    read_lpips,
    read_lpips_alex,
    read_torch,
    read_vgg16,
)
from portrait_core.weights.registry import MODELS, Digest, Model, by_file
from portrait_core.weights.sidecars import read_sidecar


@dataclass(frozen=True)
class Report:
    """Result of the check of a file."""

    content: str
    """Content of the file, in a phrase."""
    digest: str
    """Comparison of its bytes with the published file's, in a phrase."""
    sound: bool
    """True if its bytes may be the published file's; False where they are known to be another's."""
    licence: str | None = None
    """Licence that the file states, where the registry's licence is not its own."""


def identify_model(path: str | Path) -> Model | None:
    """Return the model of a file by its name; for a pack, the first model in it.

    A StyleFlow network that was trained here is recognised by its content.
    """
    name = Path(path).name
    known = by_file(name) or next((model for model in MODELS.values() if name in model.inside), None)
    return MODELS["styleflow"] if known is None and _is_own_flow(Path(path)) else known


def _is_own_flow(path: Path) -> bool:
    return path.suffix == ".safetensors" and is_styleflow_file(path)


def check_model(path: str | Path, model: Model) -> Report:
    """Read a model's file and compare its digest.

    Generators have a check of their own.

    Raises:
        ModelFileError: the file is missing or is not such a file.
    """
    path = Path(path)
    content = _READERS[model.name](path)
    if model.name == "styleflow" and _is_own_flow(path):
        licence = styleflow_metadata(path).get("licence", "not stated")
        return Report(content, f"a StyleFlow network of your own, licence {licence}", True, licence)
    if path.is_dir() or path.name not in (model.file, *model.also):
        return Report(content, "a pack", True)
    known = Digest(sha256=_noted_digest(path)) if model.place == "shipped" else model.digest
    if not (known.sha256 or known.md5 or known.size):
        return Report(content, "no digest is known of it", True)
    with checking(path, model.name):
        sha256, md5 = digest(path)
        size = path.stat().st_size
    if not known.differs(size, sha256, md5):
        if len(known.sha256) < 64 and not known.md5:
            return Report(content, "as published, as far as is known", True)
        return Report(content, f"digest as {'noted' if model.place == 'shipped' else 'published'}", True)
    actual = f"sha256 {sha256[:16]}, {size:,} bytes"
    if known.hearsay:
        return Report(content, f"{actual}: not what others report of the published file", True)
    return Report(content, f"{actual}: NOT the published file", False)


def _noted_digest(path: Path) -> str:
    """Read the digest in the JSON file beside a model that comes with the program."""
    try:
        return str(read_sidecar(path.with_suffix(".json"))["sha256"])
    except (OSError, ValueError, KeyError):
        return ""


def _flame(path: Path) -> str:
    head = read_flame(path)
    return f"a FLAME head of {len(head.v_template):,} vertices, {len(head.faces):,} triangles"


def _landmarks(path: Path) -> str:
    embedding = read_landmark_embedding(path)
    return f"{len(embedding.full_faces)} landmarks, {len(embedding.dynamic_faces)} contours by yaw"


def _masks(path: Path) -> str:
    return f"parts of the head: {', '.join(read_flame_masks(path).regions)}"


def _mesh(path: Path) -> str:
    with checking(path, "head_template"):
        layout = read_obj_layout(path)
    return f"a mesh of {len(layout.faces):,} triangles, {len(layout.uv):,} texture coordinates"


def _picture(name: str) -> Callable[[Path], str]:
    def read(path: Path) -> str:
        with checking(path, name):
            height, width = read_image(str(path)).shape[:2]
        return f"a mask of {width} x {height} texels"

    return read


def _efficientnet(path: Path) -> str:
    with checking(path, "efficientnet"):
        return f"{len(read_torch(path))} tensors"


def _weights(read: Callable[[Path], Any]) -> Callable[[Path], str]:
    def count(path: Path) -> str:
        content = read(path)
        state = content if isinstance(content, dict) else next(iter(vars(content).values()))
        tensors = list(state.values() if isinstance(state, dict) else state)
        return f"{len(tensors)} tensors, {sum(t.numel() for t in tensors) / 1e6:.1f} million numbers"

    return count


def _landmarks_3d(path: Path) -> str:
    return f"{len(read_similarity_landmarks(path).landmarks)} landmarks of the mean face"


def _bfm(path: Path) -> str:
    return f"a Basel face of {len(read_bfm(path).mean_shape):,} vertices"


def _onnx(read: Callable[[Path], OnnxNetwork]) -> Callable[[Path], str]:
    def describe(path: Path) -> str:
        network = read(path)
        return f"an ONNX network, {len(network.data) / 2**20:.1f} MiB, {len(network.outputs)} outputs"

    return describe


def _flow(path: Path) -> str:
    model = load_styleflow(path)
    flow, conditions = model.flow, model.conditions
    millions = sum(parameter.numel() for parameter in flow.parameters()) / 1e6
    return (
        f"a StyleFlow network of {flow.settings.width} dimensions under {len(conditions)} attributes "
        f"({', '.join(conditions.names)}), {millions:.1f} million parameters"
    )


def _facevid2vid(path: Path) -> str:
    weights = read_facevid2vid(path)
    parts = (weights.generator, weights.kp_detector, weights.he_estimator)
    millions = sum(value.numel() for part in parts for value in part.values()) / 1e6
    decoder = "SPADE's" if weights.decoder == "spade" else "the paper's own"
    return f"Face-vid2vid with {decoder} decoder, {millions:.1f} million numbers"


def _any_onnx(path: Path) -> str:
    return f"an ONNX network, {len(read_onnx(path).outputs)} outputs"


def _head(path: Path) -> str:
    return f"a morphable head of {MorphableHead.load(path).n_vertices:,} vertices"


_READERS: Mapping[str, Callable[[Path], str]] = {
    **{name: _picture(name) for name in ("uv_face_eye_mask", "uv_face_mask")},
    **dict.fromkeys(("face_detector", "face_landmarks", "iris_landmarks"), _any_onnx),
    **dict.fromkeys(("face_mesh_attention", "age_gender", "person_segmentation"), _any_onnx),
    "flame": _flame,
    "flame_landmarks": _landmarks,
    "flame_masks": _masks,
    "head_template": _mesh,
    "deca": _weights(read_deca),
    "deep3d": _weights(read_deep3d),
    "deep3d_landmarks": _landmarks_3d,
    "bfm": _bfm,
    "pirenderer": _weights(read_pirenderer),
    "vgg16": _weights(read_vgg16),
    "lpips": _weights(read_lpips),
    "alexnet": _weights(read_alexnet),
    "lpips_alex": _weights(read_lpips_alex),
    "inception": _weights(read_inception),
    "styleflow": _flow,
    "facevid2vid": _facevid2vid,
    "arcface": _onnx(read_arcface),
    "arcface_detector": _onnx(read_face_detector),
    "efficientnet": _efficientnet,
    "face_recognition": _weights(read_face_recognition),
    "embedded_head": _head,
    "embedded_flow": _flow,
    "embedded_2d_flow": _flow,
}
