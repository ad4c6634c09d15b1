"""The paper's template of the sample portrait without FLAME's files: the embedded head's skin in its place.

It has FLAME's arrays but for pose correctives; the embedded tracker's fit stands in for DECA's code.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.uv_maps import UvLayout, UvMapper
from portrait_core.runtime.package_files import data_file, data_folder, sample_portrait
from portrait_core.template.flame_template import FlameSource, FlameTemplateRenderer
from portrait_core.tracking import deca_crop, wild_crop
from portrait_core.tracking.deca import DecaCode
from portrait_core.tracking.fit import FaceTrack
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.landmarks68 import MESH_TO_68, five_points, mesh_to_68
from portrait_core.tracking.projection import pose_from_points
from portrait_core.tracking.track import track_image

TEXTURE = 1024


@cache
def whole_head() -> MorphableHead:
    """The embedded head as it is, with eyes and teeth."""
    return MorphableHead.load(data_file("models/embedded_head.safetensors"))


@cache
def landmarker() -> FaceLandmarker:
    """The embedded detector."""
    return FaceLandmarker.from_models(data_folder() / "models")


@cache
def arrays() -> dict[str, Tensor]:
    """The embedded head's skin, with 68 landmarks."""
    found, whole = load_file(data_file("models/embedded_head.safetensors")), whole_head()
    skin = whole.face_group == 0
    renumbered = torch.cumsum(skin, 0) - 1
    marks = torch.from_numpy(MESH_TO_68)
    found["lmk_faces_idx"] = renumbered[found["lmk_faces_idx"].long()[marks]]
    found["lmk_bary_coords"] = found["lmk_bary_coords"][marks]
    found["f"], found["f_uv"] = found["f"][skin], found["f_uv"][skin]
    del found["face_group"]
    return found


@cache
def head() -> MorphableHead:
    """The skin alone."""
    return MorphableHead(arrays(), {"n_shape": "50"})


@cache
def mapper() -> UvMapper:
    """Its texture coordinates."""
    index = [arrays()[name].numpy().astype(np.int64) for name in ("f_uv", "f")]
    return UvMapper(UvLayout(arrays()["uv"].numpy(), *index), TEXTURE)


@cache
def tracked() -> tuple[NDArray[np.uint8], NDArray[np.float32], FaceTrack]:
    """The sample portrait, its landmarks ``[1,478,2]`` and its fit."""
    image = np.asarray(Image.open(sample_portrait()).convert("RGB"))
    found, fit = track_image(landmarker(), whole_head(), image)
    return image, found.points, fit


@cache
def source() -> FlameSource:
    """The sample portrait as the paper's tracker would give it."""
    image, points, fit = tracked()
    marks = mesh_to_68(points)
    crop = deca_crop.crop_faces(image[None], marks)
    tform = crop.tform[0].numpy()
    ndc = ((marks[0] @ tform[:2, :2].T + tform[:2, 2]) + 0.5) / 112 - 1
    shape, exp, jaw = (torch.from_numpy(np.atleast_2d(x)) for x in (fit.shape, fit.expression, fit.jaw))
    rest = head().landmarks(head().decode(shape, exp, jaw))[0].double().numpy()
    turn = pose_from_points(rest[17:], ndc[17:], np.ones(51)).rotation
    root = torch.from_numpy(Rotation.from_matrix(turn).as_rotvec()).float()[None]
    flat = head().landmarks(head().decode(shape, exp, jaw, root=root))[0, 17:, :2].double().numpy()
    to = ndc[17:] * [1, -1]
    scale = np.linalg.norm(to - to.mean(0)) / np.linalg.norm(flat - flat.mean(0))
    cam = torch.tensor([[scale, *(to.mean(0) / scale - flat.mean(0))]], dtype=torch.float32)
    none = torch.zeros(1, 0)
    code = DecaCode(shape, none, exp, torch.cat([root, jaw], 1), cam, none)
    crops, placement = wild_crop.generator_crops(image[None], five_points(points))
    return FlameSource(image, crops[0], placement, code, crop.tform)


@cache
def renderer() -> FlameTemplateRenderer:
    """Of the sample portrait; its face alone."""
    region = mapper().to_uv(head().mask("face")[None, :, None])[0, 0]
    return FlameTemplateRenderer(head(), mapper(), source(), region)
