"""What tracks make of a driver's motion."""

from __future__ import annotations

import numpy as np
import pytest

from portrait_core.errors import InputError
from portrait_core.face_model.head import MorphableHead
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import load_settings
from portrait_core.template.driven_eyes import eye_units
from portrait_core.template.lids import LidModel
from portrait_core.template.moves import embedded_moves, flame_moves, mouth_moves, mouth_of, own_moves
from portrait_core.tracking.fit import FaceTrack, with_rows_of
from portrait_core.tracking.mouth_inside import LIGHT_SIZE, MouthInside


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    """The embedded head."""
    return MorphableHead.load(data_file(load_settings("embedded").tracking.head))


def track(shape: int, expression: np.ndarray) -> FaceTrack:
    frames = len(expression)
    return FaceTrack(
        shape=np.zeros(shape, np.float32),
        expression=expression.astype(np.float32),
        jaw=np.full((frames, 3), 0.1, np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        crop_center_px=np.zeros((frames, 2), np.float32),
        crop_side_px=np.ones(frames, np.float32),
        cameras=np.zeros((frames, 25), np.float32),
        fit_error=np.zeros(frames, np.float32),
        ok=np.ones(frames, bool),
    )


@pytest.mark.parametrize("transfer", ["relative", "absolute"])
def test_eyes_of_the_embedded_head_stay_or_follow(head: MorphableHead, transfer: str) -> None:
    rng = np.random.default_rng(0)
    own, driver = track(head.n_shape, rng.uniform(0, 0.3, (1, 52))), rng.uniform(0, 0.4, (20, 52))
    driver[10, [head.index("eyeBlinkLeft"), head.index("eyeBlinkRight")]] = 1.0
    moves = {}
    for eyes in ("paper", "driven"):
        chosen = load_settings("embedded", [f"template.eyes={eyes}", f"template.transfer={transfer}"])
        moved = embedded_moves(head, own, track(head.n_shape, driver), chosen.template)
        moves[eyes] = moved["expression"]
    units = eye_units(head.expression_names)
    assert np.array_equal(moves["paper"][:, units], np.repeat(own.expression[:, units], 20, axis=0))
    if transfer == "absolute":
        assert moves["driven"][10, head.index("eyeBlinkLeft")] > 0.8
    else:  # lids meet before a blink of this head is full
        lids, shape = LidModel.of(head), np.zeros(head.n_shape)
        assert lids.opening(shape, moves["driven"][10:11])[0] == pytest.approx(lids.shut(shape), abs=0.01)
    others = np.delete(np.arange(52), units)
    assert np.array_equal(moves["paper"][:, others], moves["driven"][:, others])


def test_the_papers_transfer_needs_no_other_head() -> None:
    rng = np.random.default_rng(0)
    own, driver = track(100, rng.normal(size=(1, 50))), track(100, rng.normal(size=(4, 50)))
    made = flame_moves(own, driver, load_settings("paper").template)
    assert made.keys() == {"expression", "jaw"}
    assert np.array_equal(made["expression"], driver.expression)
    assert np.array_equal(made["jaw"], driver.jaw)


def test_the_named_frame_is_the_drivers_rest(head: MorphableHead) -> None:
    """With every tracker: the portrait does in it what it does itself."""
    chosen = load_settings("embedded", ["template.neutral_frame=3"]).template
    rng = np.random.default_rng(0)
    clip, brow = np.zeros((5, 52)), head.index("browInnerUp")
    clip[:, brow] = [0.2, 0.3, 0.4, 0.6, 0.8]
    own = track(head.n_shape, np.zeros((1, 52)))
    own.expression[:, brow] = 0.3
    made = embedded_moves(head, own, track(head.n_shape, clip), chosen)["expression"]
    assert made[3:, brow] == pytest.approx([0.3, 0.5], abs=0.03)
    flame, codes = track(100, rng.normal(size=(1, 50))), rng.normal(size=(5, 50))
    carried = flame_moves(flame, track(100, codes), chosen)["expression"]
    assert carried[3] == pytest.approx(flame.expression[0], abs=1e-5)


def test_a_rest_is_named_in_a_frame_with_a_face(head: MorphableHead) -> None:
    own, driver = track(head.n_shape, np.zeros((1, 52))), track(head.n_shape, np.zeros((4, 52)))
    driver.ok[2] = False
    for frame, why in ((4, "frames 0 to 3"), (2, "no face was found")):
        chosen = load_settings("embedded", [f"template.neutral_frame={frame}"]).template
        with pytest.raises(InputError, match=f"--neutral-frame {frame} .*{why}.*name a frame"):
            embedded_moves(head, own, driver, chosen)
        with pytest.raises(InputError, match=why):
            flame_moves(own, driver, chosen)


def test_an_edits_portrait_does_what_it_does_itself() -> None:
    own = track(100, np.full((1, 50), 0.25))
    made = own_moves(own)
    assert made.keys() == {"expression", "jaw"}
    assert np.array_equal(made["expression"], own.expression)
    assert np.array_equal(made["jaw"], own.jaw)


def test_a_frame_without_a_face_takes_another_frames_row() -> None:
    seen = track(3, np.arange(4.0)[:, None])
    ok = np.array([True, True, False, True])
    held = with_rows_of(seen, np.array([0, 1, 1, 3]), ok)
    assert held.expression[:, 0].tolist() == [0, 1, 1, 3]
    assert held.ok.tolist() == ok.tolist()
    assert np.array_equal(held.shape, seen.shape)


def test_the_mouth_shows_the_drivers_teeth_as_far_as_it_follows() -> None:
    rng = np.random.default_rng(0)
    teeth, light = rng.uniform(0, 0.5, (4, 3)), rng.uniform(0, 1, (4, *LIGHT_SIZE))
    driver = MouthInside(teeth.astype(np.float32), light.astype(np.float32))

    def told(*settings: str) -> MouthInside | None:
        return mouth_of(mouth_moves(driver, load_settings("embedded", list(settings)).template))

    whole, strong, half, still = (
        told(*more) for more in ((), *((f"template.mouth_gain={gain}",) for gain in (2, 0.5, 0)))
    )
    for one, share in ((whole, 1.0), (strong, 1.0), (half, 0.5), (still, 0.0)):
        assert one is not None
        np.testing.assert_allclose(one.teeth[:, 2], share * driver.teeth[:, 2], rtol=1e-6)
        np.testing.assert_array_equal(one.teeth[:, :2], driver.teeth[:, :2])
        np.testing.assert_array_equal(one.light, driver.light)
    assert told("template.mouth_inside=lips") is None
    assert mouth_of(mouth_moves(None, load_settings("embedded").template)) is None
