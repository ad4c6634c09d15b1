"""DECA's crop against scikit-image's warp, and its boxes."""

import numpy as np
import pytest
import torch
from skimage.transform import ProjectiveTransform
from skimage.transform import warp as skimage_warp

from portrait_core.tracking import deca_crop


def frames(batch: int) -> list[np.ndarray]:
    rng = np.random.default_rng(batch)
    return [rng.integers(0, 256, (90 + 17 * i, 120 - 9 * i, 3), dtype=np.uint8) for i in range(batch)]


def landmarks(batch: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform([20, 10], [95, 80], (batch, 68, 2))


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("shift", [0, 60])  # the second: partly outside of the image
def test_crops_are_those_of_scikit_image(batch: int, shift: int) -> None:
    pictures, points = frames(batch), landmarks(batch) + shift
    got = deca_crop.crop_faces(pictures, points, 32)
    assert got.images.shape == (batch, 3, 32, 32)
    for picture, image, tform in zip(pictures, got.images, got.tform, strict=True):
        inverse = ProjectiveTransform(matrix=np.linalg.inv(tform.numpy()))
        wanted = skimage_warp(picture / 255.0, inverse, output_shape=(32, 32), order=1)
        assert np.abs(image.permute(1, 2, 0).numpy() - wanted).max() < 1e-4


def test_a_crop_wholly_outside_is_black() -> None:
    got = deca_crop.crop_faces(frames(1), landmarks(1) + 5000, 16)
    assert not got.images.any()


def test_boxes_and_rules() -> None:
    points = np.zeros((1, 68, 2))
    points[0, :2] = [[10, 20], [50, 120]]
    points[0, 2:] = [30, 60]
    boxes = deca_crop.point_boxes(points)
    assert boxes.tolist() == [[10, 50, 20, 120]]
    marks, box = deca_crop.face_squares(boxes, "kpt68"), deca_crop.face_squares(boxes, "bbox")
    assert marks.face_size[0] == pytest.approx(77)
    assert marks.center.tolist() == [[30, 70]]
    assert marks.size.tolist() == [96]  # 96.25
    assert box.face_size[0] == pytest.approx(70)
    assert box.center[0] == pytest.approx([30, 78.4])
    tform = deca_crop.square_transforms(marks, 224)[0]
    assert tform @ [30 - 48, 70 - 48, 1] == pytest.approx([0, 0, 1])
    assert tform @ [30 + 48, 70 + 48, 1] == pytest.approx([223, 223, 1])


def test_similarity_comes_back() -> None:
    points = landmarks(3)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]]) * 1.7
    moved = points @ turn.T + [3, -4]
    got = deca_crop.similarity(points, moved)
    assert got[:, :2, :2] == pytest.approx(np.tile(turn, (3, 1, 1)))
    assert got[:, :2, 2] == pytest.approx(np.tile([3.0, -4.0], (3, 1)))
    square = deca_crop.whole_image_transform(50, 50, 25)[0]
    assert square @ [49, 49, 1] == pytest.approx([24, 24, 1])  # squares are not turned


def test_refuses_what_is_no_face() -> None:
    with pytest.raises(ValueError, match="was a face found"):
        deca_crop.point_boxes(np.full((1, 68, 2), np.nan))
    with pytest.raises(ValueError, match="no area"):
        deca_crop.face_squares(np.zeros((1, 4)))
    with pytest.raises(ValueError, match="kpt68 or bbox"):
        deca_crop.face_squares(np.array([[0.0, 1, 0, 1]]), "middle")  # type: ignore[arg-type]  # what it must refuse
    with pytest.raises(ValueError, match="one each"):
        deca_crop.crop_faces(frames(2), landmarks(1))
    with pytest.raises(ValueError, match="uint8 RGB"):
        deca_crop.crop_faces([np.zeros((9, 9))], landmarks(1))  # type: ignore[list-item]  # what it must refuse
    with pytest.raises(ValueError, match="coincide"):
        deca_crop.similarity(np.zeros((1, 3, 2)), np.zeros((1, 3, 2)))
    assert torch.is_tensor(deca_crop.crop_faces(np.stack(frames(1)), landmarks(1), 8).tform)
