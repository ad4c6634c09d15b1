"""The paper's template, with the embedded head in FLAME's place: texture, masks, what stays as it was."""

import numpy as np
import pytest

from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.uv_maps import UvMapper
from portrait_core.template.clip_heads import FlameClipHead
from portrait_core.template.flame_template import FlameSource, FlameTemplateRenderer
from tests.portrait_core import stand_in


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    return stand_in.head()


@pytest.fixture(scope="module")
def mapper() -> UvMapper:
    return stand_in.mapper()


@pytest.fixture(scope="module")
def source() -> FlameSource:
    return stand_in.source()


@pytest.fixture(scope="module")
def renderer() -> FlameTemplateRenderer:
    return stand_in.renderer()


def test_the_same_expression_is_the_portrait(renderer: FlameTemplateRenderer, source: FlameSource) -> None:
    got = renderer.render(source.code.exp.numpy(), source.code.pose[:, 3:].numpy())
    assert got.image.shape == (1, 512, 512, 3)
    assert got.face_mask[0].mean() > 0.08
    off = np.abs(got.image[0].astype(int) - source.portrait)
    # a texture of the photograph's own pixels: only its resampling blurs
    assert off[got.face_mask[0] > 0.99].mean() < 2.5
    assert not got.uncovered.any()
    far = got.face_mask[0] == 0
    assert np.array_equal(got.image[0][far], source.portrait[far])


def test_an_open_jaw_moves_the_chin_and_opens_the_mouth(
    renderer: FlameTemplateRenderer, source: FlameSource
) -> None:
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
    return stand_in.whole_head().index(name)


def test_silhouette_landmarks_and_detail_lie_on_the_face(
    renderer: FlameTemplateRenderer, source: FlameSource
) -> None:
    head = FlameClipHead(renderer, source.code.exp.numpy(), source.code.pose[:, 3:].numpy())
    face = renderer.render(source.code.exp.numpy(), source.code.pose[:, 3:].numpy()).face_mask[0] > 0.5
    silhouette = head.silhouette()
    assert (silhouette & face).sum() > 0.99 * face.sum()
    assert silhouette.sum() > 1.2 * face.sum()  # scalp and neck too
    detail = head.detail(0) > 127
    assert 0.005 < detail.mean() < 0.15  # mouth, eyes and brows
    assert (detail & face).sum() > 0.85 * detail.sum()  # the stand-in has holes for its eyes
    assert head.surface is None
    with pytest.raises(ValueError, match="depth_anchor=0"):
        head.vertices(0)


def test_refuses_what_is_no_portrait(
    head: MorphableHead, mapper: UvMapper, source: FlameSource, renderer: FlameTemplateRenderer
) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="generator_crops"):
        FlameTemplateRenderer(head, mapper, replace(source, portrait=source.portrait[:100]))
    with pytest.raises(ValueError, match="one portrait"):
        FlameTemplateRenderer(head, mapper, replace(source, tform=source.tform.repeat(2, 1, 1)))
    with pytest.raises(ValueError, match="one jaw per frame"):
        renderer.render(np.zeros((2, 52)), np.zeros((1, 3)))
