"""The paper's template, with the embedded head in FLAME's place: texture, masks, what stays as it was."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from portrait_core.faces.flame_template import FlameSource, FlameTemplateRenderer
from portrait_core.faces.head import MorphableHead
from portrait_core.faces.uv_maps import UvLayout, UvMapper
from portrait_core.resources import data_file, data_folder, sample_portrait
from portrait_core.tracking import deca_crop, wild_crop
from portrait_core.tracking.deca import DecaCode
from portrait_core.tracking.landmarker import FaceLandmarker
from portrait_core.tracking.landmarks68 import MESH_TO_68, five_points, mesh_to_68
from portrait_core.tracking.projection import pose_from_points
from portrait_core.tracking.track import track_image

TEXTURE = 1024


@pytest.fixture(scope="module")
def embedded() -> dict[str, torch.Tensor]:
    """The embedded head's skin, with 68 landmarks: it has FLAME's arrays but for pose correctives."""
    file = data_file("models/embedded_head.safetensors")
    arrays, whole = load_file(file), MorphableHead.load(file)
    skin = whole.face_group == 0
    renumbered = torch.cumsum(skin, 0) - 1
    marks = torch.from_numpy(MESH_TO_68)
    arrays["lmk_faces_idx"] = renumbered[arrays["lmk_faces_idx"].long()[marks]]
    arrays["lmk_bary_coords"] = arrays["lmk_bary_coords"][marks]
    arrays["f"], arrays["f_uv"] = arrays["f"][skin], arrays["f_uv"][skin]
    del arrays["face_group"]
    return arrays


@pytest.fixture(scope="module")
def head(embedded) -> MorphableHead:
    return MorphableHead(embedded, {"n_shape": "50"})


@pytest.fixture(scope="module")
def mapper(embedded) -> UvMapper:
    index = [embedded[name].numpy().astype(np.int64) for name in ("f_uv", "f")]
    return UvMapper(UvLayout(embedded["uv"].numpy(), *index), TEXTURE)


@pytest.fixture(scope="module")
def source(head) -> FlameSource:
    """The sample portrait with a code that the embedded tracker's fit stands in for."""
    image = np.asarray(Image.open(sample_portrait()).convert("RGB"))
    whole = MorphableHead.load(data_file("models/embedded_head.safetensors"))
    found, fit = track_image(FaceLandmarker.from_models(data_folder() / "models"), whole, image)
    marks = mesh_to_68(found.points)
    crop = deca_crop.crop_faces(image[None], marks)
    tform = crop.tform[0].numpy()
    ndc = ((marks[0] @ tform[:2, :2].T + tform[:2, 2]) + 0.5) / 112 - 1
    shape, exp, jaw = (torch.from_numpy(np.atleast_2d(x)) for x in (fit.shape, fit.expression, fit.jaw))
    rest = head.landmarks(head.decode(shape, exp, jaw))[0].double().numpy()
    turn = pose_from_points(rest[17:], ndc[17:], np.ones(51)).rotation
    root = torch.from_numpy(Rotation.from_matrix(turn).as_rotvec()).float()[None]
    flat = head.landmarks(head.decode(shape, exp, jaw, root=root))[0, 17:, :2].double().numpy()
    to = ndc[17:] * [1, -1]
    scale = np.linalg.norm(to - to.mean(0)) / np.linalg.norm(flat - flat.mean(0))
    cam = torch.tensor([[scale, *(to.mean(0) / scale - flat.mean(0))]], dtype=torch.float32)
    none = torch.zeros(1, 0)
    code = DecaCode(shape, none, exp, torch.cat([root, jaw], 1), cam, none)
    crops, placement = wild_crop.generator_crops(image[None], five_points(found.points))
    return FlameSource(image, crops[0], placement, code, crop.tform)


@pytest.fixture(scope="module")
def renderer(head, mapper, source) -> FlameTemplateRenderer:
    region = mapper.to_uv(head.mask("face")[None, :, None])[0, 0]
    return FlameTemplateRenderer(head, mapper, source, region)


def test_the_same_expression_is_the_portrait(renderer, source):
    got = renderer.render(source.code.exp.numpy(), source.code.pose[:, 3:].numpy())
    assert got.image.shape == (1, 512, 512, 3)
    assert got.face_mask[0].mean() > 0.08
    off = np.abs(got.image[0].astype(int) - source.portrait)
    # a texture of the photograph's own pixels: only its resampling blurs
    assert off[got.face_mask[0] > 0.99].mean() < 2.5
    assert not got.uncovered.any()
    far = got.face_mask[0] == 0
    assert np.array_equal(got.image[0][far], source.portrait[far])


def test_an_open_jaw_moves_the_chin_and_opens_the_mouth(renderer, source):
    jaws = source.code.pose[:, 3:].numpy() + np.array([[0, 0, 0], [0.35, 0, 0]], np.float32)
    expression = np.zeros((2, source.code.exp.shape[1]), np.float32)
    expression[1, renderer_unit("jawOpen")] = 1.0
    got = renderer.render(expression, jaws)
    lowest = [np.nonzero(mask > 0.5)[0].max() for mask in got.face_mask]
    assert lowest[1] > lowest[0] + 5
    assert got.mouth_mask[1].sum() > got.mouth_mask[0].sum() + 300
    assert ((got.mouth_mask > 0) & (got.face_mask < 0.5)).mean() < 1e-3  # the mouth is part of the face
    top = slice(0, 200)
    assert np.abs(got.image[1, top].astype(int) - got.image[0, top]).mean() < 1.0


def renderer_unit(name: str) -> int:
    return MorphableHead.load(data_file("models/embedded_head.safetensors")).index(name)


def test_refuses_what_is_no_portrait(head, mapper, source, renderer):
    from dataclasses import replace

    with pytest.raises(ValueError, match="generator_crops"):
        FlameTemplateRenderer(head, mapper, replace(source, portrait=source.portrait[:100]))
    with pytest.raises(ValueError, match="one portrait"):
        FlameTemplateRenderer(head, mapper, replace(source, tform=source.tform.repeat(2, 1, 1)))
    with pytest.raises(ValueError, match="one jaw a frame"):
        renderer.render(np.zeros((2, 52)), np.zeros((1, 3)))
