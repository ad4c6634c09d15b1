"""Transfer of expressions between people: what is seen of the driver is seen of the portrait."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from portrait_core.face_model.directions import direction_names, handle_points, with_directions
from portrait_core.face_model.expression_names import expression_limits, is_direction, region_of
from portrait_core.face_model.head import MorphableHead
from portrait_core.face_model.head_points import HeadPoints
from portrait_core.metrics.follow import follow, measure_regions
from portrait_core.runtime.package_files import data_file
from portrait_core.template.landmark_solver import UnitTeller
from portrait_core.template.lids import LidModel
from portrait_core.template.rest import driver_rest, quiet_mouth
from portrait_core.template.retarget import Driver, Strengths, retarget
from portrait_core.template.visible_change import Person, with_closed_lips

Units = dict[str, float]
NAMES = ("browInnerUp", "eyeBlinkLeft", "eyeLookInLeft", "jawOpen", "mouthSmileLeft", "shiftLipCornerLeftUp")


@pytest.fixture(scope="module")
def head() -> MorphableHead:
    """The embedded head, with directions."""
    return with_directions(MorphableHead.load(data_file("models/embedded_head.safetensors")))


@pytest.fixture(scope="module")
def points(head: MorphableHead) -> HeadPoints:
    return HeadPoints.from_head(head)


def codes(head: MorphableHead, *frames: Units) -> NDArray[np.float64]:
    """Expressions ``[T,E]`` with the named coefficients; others are 0."""
    made = np.zeros((len(frames), head.n_expression))
    for row, units in zip(made, frames, strict=True):
        for name, value in units.items():
            row[head.index(name)] = value
    return made


def person(head: MorphableHead, seed: int) -> NDArray[np.float64]:
    return 0.7 * np.random.default_rng(seed).normal(size=head.n_shape)


def seen(
    points: HeadPoints, shape: NDArray[np.floating], expression: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    shaped = points.with_shape(np.asarray(shape, float))
    return measure_regions(np.stack([shaped.points(np.asarray(e, float)) for e in expression]))


def pair(name: str, value: float) -> Units:
    return {f"{name}Left": value, f"{name}Right": value}


def acted(head: MorphableHead) -> NDArray[np.float64]:
    """A clip that begins at rest, then smiles, smirks, opens, pouts, frowns, raises brows, looks around."""
    rng = np.random.default_rng(1)
    acts: list[Units] = [
        pair("mouthSmile", 1.0) | {"jawOpen": 0.15},
        {"mouthSmileLeft": 0.9},
        {"jawOpen": 0.9, "mouthFunnel": 0.4},
        {"mouthPucker": 0.9},
        pair("browDown", 0.9) | pair("mouthFrown", 0.7),
        {"browInnerUp": 0.9} | pair("browOuterUp", 0.9),
        {"browOuterUpLeft": 1.0},
        {"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9},
        {"eyeLookInLeft": 0.9, "eyeLookOutRight": 0.9},
        pair("eyeLookUp", 0.8),
        pair("eyeLookDown", 0.8),
    ]
    frames: list[Units] = [{}] * 4
    for act in acts:
        frames += [{name: share * value for name, value in act.items()} for share in (0.3, 0.7, 1.0)]
    clip = codes(head, *frames)
    free = np.array([is_direction(name) for name in head.expression_names])
    clip[4:, free] += rng.normal(scale=0.15, size=(len(clip) - 4, int(free.sum())))
    return clip.clip(*expression_limits(head.expression_names))


@pytest.mark.parametrize("smiling", [False, True])
def test_every_region_of_another_face_moves_as_the_drivers(
    head: MorphableHead, points: HeadPoints, smiling: bool
) -> None:
    shape, other, clip = person(head, 2), person(head, 3), acted(head)
    own = codes(head, pair("mouthSmile", 0.8) | {"jawOpen": 0.2} if smiling else {})[0]
    made, _ = retarget(head, Driver(shape, clip), other, own)
    ok = np.ones(len(clip), bool)
    found = follow(seen(points, shape, clip), seen(points, other, made), ok)
    assert set(found) >= {
        "lip gap",
        "mouth width",
        "corners' lift",
        "inner brows",
        "outer brows",
        "gaze across",
    }
    for region, one in found.items():
        if region.startswith("lid"):
            continue
        assert 0.93 < one.slope < 1.07, (region, one)
        assert one.correlation > 0.98, (region, one)


def test_coefficients_alone_would_not_have_carried_it(head: MorphableHead, points: HeadPoints) -> None:
    """The driver pouts from a rest that smiles a little: the portrait's would have to be less than 0."""
    clip = codes(head, {}, pair("mouthSmile", 0.1), pair("mouthFrown", 0.8))
    clip[:, head.index("shiftLipCornerLeftAcross")] = [0.3, 0.0, -0.9]
    shape, other = person(head, 2), person(head, 3)
    rest = clip[1]
    made, _ = retarget(head, Driver(shape, clip, rest=rest), other, np.zeros(head.n_expression))
    plain = (clip - rest).clip(*expression_limits(head.expression_names))
    wanted = seen(points, shape, clip)["corners' lift"]
    apart = [
        np.abs(np.diff(seen(points, other, got)["corners' lift"]) - np.diff(wanted)).max()
        for got in (made, plain)
    ]
    assert apart[0] < 0.003 < apart[1]


def test_lips_that_meet_in_the_driver_meet_in_a_portrait_that_shows_its_teeth(
    head: MorphableHead, points: HeadPoints
) -> None:
    clip = codes(head, *[{}] * 5, {"jawOpen": 0.5}, {"jawOpen": 0.2}, {})
    own = codes(head, pair("mouthSmile", 0.7) | {"jawOpen": 0.25} | pair("mouthUpperUp", 0.5))[0]
    made, jaw = retarget(head, Driver(person(head, 2), clip), person(head, 4), own)
    gap = seen(points, person(head, 4), made)["lip gap"]
    assert gap == pytest.approx(seen(points, person(head, 2), clip)["lip gap"], abs=0.003)
    assert gap[[0, 7]].max() < 0.013  # what the mesh leaves between lips that are shut
    assert jaw[:, 0] == pytest.approx(made[:, head.index("jawOpen")] * head.jaw_open_angle_rad, abs=1e-6)


def test_a_portrait_keeps_its_own_brows_and_gaze_at_the_drivers_rest(
    head: MorphableHead, points: HeadPoints
) -> None:
    clip = codes(head, *[{"browInnerUp": 0.2}] * 9, {"browInnerUp": 0.8})
    own = codes(head, {"eyeLookInLeft": 0.5, "eyeLookOutRight": 0.5, "browDownLeft": 0.4})[0]
    made, _ = retarget(head, Driver(person(head, 2), clip), person(head, 3), own)
    still, first = seen(points, person(head, 3), own[None]), seen(points, person(head, 3), made)
    for region in ("gaze across", "inner brows", "brows' difference"):
        assert first[region][0] == pytest.approx(still[region][0], abs=0.004)
    assert first["inner brows"][9] > still["inner brows"][0] + 0.02


def test_a_blink_shuts_narrow_and_wide_eyes(head: MorphableHead) -> None:
    lids, shape = LidModel.of(head), np.random.default_rng(0).normal(size=head.n_shape) * 0.5
    clip = codes(head, *[{}] * 8, pair("eyeBlink", 0.4), pair("eyeBlink", 1.0), {})
    for own in (codes(head, pair("eyeSquint", 0.6))[0], codes(head, pair("eyeWide", 0.8))[0]):
        made, _ = retarget(head, Driver(np.zeros(head.n_shape), clip), shape, own)
        opening, at_rest = lids.opening(shape, made), lids.opening(shape, own[None])[0]
        assert opening[0] == pytest.approx(at_rest, abs=0.01)
        assert (opening[9] < lids.shut(shape) + 0.01).all()
        assert (opening[8] < at_rest - 0.03).all()


@pytest.mark.parametrize("own", [pair("eyeSquint", 0.6), pair("eyeWide", 0.8)], ids=["narrow", "wide"])
def test_lids_close_evenly_on_eyes_of_another_size_and_open_beyond_their_rest(
    head: MorphableHead, own: dict[str, float]
) -> None:
    lids, shape, face = LidModel.of(head), person(head, 3), codes(head, own)[0]
    blinks = [pair("eyeBlink", b) for b in np.linspace(0.0, 1.0, 11).tolist()]
    clip = codes(head, *[{}] * 20, *blinks, pair("eyeWide", 0.6))
    made, _ = retarget(head, Driver(person(head, 2), clip), shape, face)
    # lids that have met are shut, however far a blink goes on
    opening = lids.opening(shape, made)[20:]
    shut = lids.shut(person(head, 2))
    driver = np.maximum(lids.opening(person(head, 2), clip)[20:], shut)
    for eye in (0, 1):
        assert np.corrcoef(opening[:11, eye], driver[:11, eye])[0, 1] > 0.98
        closing = driver[:11, eye] > driver[0, eye] - 0.9 * (driver[0, eye] - shut[eye])
        steps = -np.diff(opening[:11, eye][closing])  # nine tenths of the way count as shut
        assert len(steps) > 3
        assert steps.min() > 0.3 * steps.mean()
    if "eyeSquintLeft" in own:  # eyes that are wide already cannot open further
        assert (opening[11] - opening[0]) == pytest.approx(driver[11] - driver[0], abs=0.02)


def test_lids_leave_brows_and_gaze_to_the_driver(head: MorphableHead, points: HeadPoints) -> None:
    """Lids take the skin around them along, differently far on eyes of another size."""
    acts: list[Units] = [{}, {"eyeBlinkLeft": 0.5}, pair("eyeBlink", 0.3), pair("eyeWide", 1.0), {}]
    clip = codes(head, *[{}] * 10, *acts)
    narrow = pair("eyeSquint", 0.9) | pair("eyeBlink", 0.2)
    made, _ = retarget(head, Driver(person(head, 2), clip), person(head, 3), codes(head, narrow)[0])
    wanted, found = seen(points, person(head, 2), clip), seen(points, person(head, 3), made)
    for region in ("inner brows", "outer brows", "brows' difference", "gaze up"):
        assert found[region] - found[region][0] == pytest.approx(
            wanted[region] - wanted[region][0], abs=0.004
        ), region


@pytest.mark.parametrize("eye", ["large", "small"])
def test_irises_move_in_units_of_the_eye(head: MorphableHead, points: HeadPoints, eye: str) -> None:
    """Up to where the eye's corner begins to cover them, also from a look aside."""
    widths = [
        Person(points.with_shape(person(head, i)), codes(head, {})[0]).eye_widths.mean() for i in range(12)
    ]
    other = person(head, int(np.argmax(widths) if eye == "large" else np.argmin(widths)))
    looks = [{"eyeLookOutLeft": s, "eyeLookInRight": s} for s in (0.4, 0.8, 1.2)]
    clip = codes(head, *[{}] * 4, *looks)
    own = codes(head, {"eyeLookOutLeft": 0.6, "eyeLookInRight": 0.6})[0]
    made, _ = retarget(head, Driver(person(head, 2), clip), other, own)
    wanted, found = (seen(points, *one)["gaze across"] for one in ((person(head, 2), clip), (other, made)))
    assert found[6] - found[0] == pytest.approx(wanted[6] - wanted[0], rel=0.04)


def test_a_wink_is_one_eye(head: MorphableHead) -> None:
    lids, clip = LidModel.of(head), codes(head, *[{}] * 6, {"eyeBlinkLeft": 1.0})
    made, _ = retarget(head, Driver(np.zeros(head.n_shape), clip), np.zeros(head.n_shape), clip[0])
    right, left = lids.opening(np.zeros(head.n_shape), made)[6]
    assert left < 0.1 < 0.2 < right


@pytest.mark.parametrize("frames", [1, 20])
def test_eyes_that_a_driver_never_opens_are_shut(head: MorphableHead, frames: int) -> None:
    lids, shape, own = LidModel.of(head), person(head, 3), codes(head, {})[0]
    clip = codes(head, *[pair("eyeBlink", 1.0)] * frames)
    made, _ = retarget(head, Driver(person(head, 2), clip), shape, own)
    assert (lids.opening(shape, made) < lids.shut(shape) + 0.01).all()
    winks = codes(head, *[{"eyeBlinkLeft": 1.0}] * frames)
    made, _ = retarget(head, Driver(person(head, 2), winks), shape, own)
    right, left = lids.opening(shape, made).T
    assert (left < lids.shut(shape)[1] + 0.01).all()
    assert right == pytest.approx(lids.opening(shape, own[None])[0, 0], abs=0.01)


def test_strengths_apply_by_region(head: MorphableHead, points: HeadPoints) -> None:
    clip = acted(head)
    shape, own = np.zeros(head.n_shape), np.zeros(head.n_expression)
    wanted, ok = seen(points, shape, clip), np.ones(len(clip), bool)
    made, _ = retarget(
        head, Driver(shape, clip), shape, own, strengths=Strengths(mouth=0.5, brows=1.0, gaze=0.0)
    )
    found = follow(wanted, seen(points, shape, made), ok)
    assert found["mouth width"].slope == pytest.approx(0.5, abs=0.08)
    assert found["inner brows"].slope == pytest.approx(1.0, abs=0.08)
    clip[:, [name.startswith("eyeLook") for name in head.expression_names]] = 0.0
    ahead, _ = retarget(
        head, Driver(shape, clip), shape, own, strengths=Strengths(mouth=0.5, brows=1.0, gaze=0.0)
    )
    # corners of the eyes move with the cheeks
    looks = [seen(points, shape, one)["gaze across"] for one in (made, ahead)]
    assert looks[0] == pytest.approx(looks[1], abs=0.01)


def test_absolute_is_the_driver(head: MorphableHead) -> None:
    clip = acted(head)
    made, _ = retarget(
        head, Driver(person(head, 2), clip), person(head, 3), np.ones(head.n_expression), "absolute"
    )
    assert made == pytest.approx(clip, abs=1e-6)


def test_bad_input_says_what_to_do(head: MorphableHead) -> None:
    shape, own = np.zeros(head.n_shape), np.zeros(head.n_expression)
    with pytest.raises(ValueError, match="one head"):
        retarget(head, Driver(shape, np.zeros((2, 5))), shape, own)
    with pytest.raises(ValueError, match="transfer"):
        retarget(head, Driver(shape, own[None]), shape, own, "both")  # type: ignore[arg-type]  # what it must refuse
    with pytest.raises(ValueError, match="negative"):
        retarget(head, Driver(shape, own[None]), shape, own, strengths=Strengths(eyes=-1.0))


def test_the_rest_is_where_the_face_does_least_not_what_it_does_most() -> None:
    """A clip that laughs with raised brows for nine tenths of its time."""
    clip = np.tile([0.7, 0.0, 0.2, 0.4, 0.8, 0.9], (40, 1))
    clip[17:21] = [0.02, 0.0, 0.0, 0.01, 0.05, 0.1]
    rest = driver_rest(clip, NAMES)
    assert rest[0] == pytest.approx(0.02)
    assert rest[3:] == pytest.approx([0.01, 0.05, 0.1])
    assert rest[2] == pytest.approx(0.2)  # gaze: where it mostly is


def test_the_rest_ignores_frames_without_a_face_and_long_blinks() -> None:
    clip = np.tile([0.3, 0.0, 0.0, 0.05, 0.0, 0.0], (10, 1))
    clip[:6, 1] = 1.0  # shut for more than half of the clip
    clip[8:, 0] = 0.0
    rest = driver_rest(clip, NAMES, ok=np.arange(10) < 8)
    assert rest[0] == pytest.approx(0.3)
    assert rest[1] < 1.0


def test_a_mouth_that_never_rests_has_its_expression_taken_off() -> None:
    rest = quiet_mouth(np.array([0.9, 0.9, 0.9, 0.5, 0.05, 0.4]), NAMES)
    assert rest[:5] == pytest.approx([0.9, 0.9, 0.9, 0.0, 0.05])
    assert 0.0 < rest[5] < 0.4  # so wide open, a mouth keeps a part of its directions
    still = quiet_mouth(np.array([0.9, 0.9, 0.9, 0.05, 0.05, 0.4]), NAMES)
    assert still[5] == pytest.approx(0.4)
    laughing = quiet_mouth(np.array([0.9, 0.9, 0.9, 0.7, 0.05, 0.4]), NAMES)
    assert laughing[5] == 0.0


def test_a_small_mouth_keeps_its_shape_and_a_smile_leaves_corners_and_width(
    head: MorphableHead, points: HeadPoints
) -> None:
    """A mouth that seems to pucker a little at rest is a small one; one that smiles rests lower and narrower
    than the shape, which was fitted to the smile, says."""
    shape = person(head, 3)
    small = codes(head, {"mouthPucker": 0.45, "mouthRollUpper": 0.4})[0]
    assert quiet_mouth(small, points.names) == pytest.approx(small)
    smiling = codes(head, pair("mouthSmile", 0.6) | pair("mouthUpperUp", 0.7) | {"jawOpen": 0.2})[0]
    rest = quiet_mouth(smiling, points.names)
    seen_at = seen(points, shape, np.stack([smiling, rest, np.zeros_like(rest)]))
    for region in ("mouth width", "corners' lift"):
        smile, quiet, zero = seen_at[region]
        assert quiet < zero < smile, region


def test_lips_are_closed_without_moving_the_corners(head: MorphableHead, points: HeadPoints) -> None:
    shaped = points.with_shape(person(head, 3))
    opened = shaped.points(codes(head, pair("mouthUpperUp", 0.8) | pair("mouthLowerDown", 0.8))[0])
    closed = with_closed_lips(opened)
    assert np.linalg.norm(closed[13] - closed[14]) < 1e-5 < np.linalg.norm(opened[13] - opened[14])
    assert closed[[61, 291, 1, 152]] == pytest.approx(opened[[61, 291, 1, 152]])
    assert np.linalg.norm(closed[0] - closed[13]) == pytest.approx(
        np.linalg.norm(opened[0] - opened[13]), rel=0.2
    )


def test_strength_of_one_changes_what_the_expression_does(head: MorphableHead, points: HeadPoints) -> None:
    clip, rest = acted(head), np.zeros(head.n_expression)
    who = Person(points.with_shape(person(head, 2)), rest)
    ones = dict.fromkeys(("mouth", "eyes", "brows", "gaze"), 1.0)
    change = who.changes(clip[6], ones, points.names)
    assert change * who.face_unit == pytest.approx(who.points.points(clip[6]) - who.at_rest, abs=1e-9)


def test_a_direction_moves_its_handle_and_no_other(head: MorphableHead) -> None:
    names, handles = direction_names(), handle_points()
    basis = head.landmark_basis(handles)[1][..., head.n_shape :][..., -len(names) :]
    for k, name in enumerate(names):
        axis, own = (0 if name.endswith("Across") else 1), k // 2
        moved = basis[:, axis, k]
        assert moved[own] == pytest.approx(0.01, rel=0.1), name
        assert np.abs(np.delete(moved, own)).max() < 0.0015, name
    assert [
        region_of(name) for name in ("shiftLipCornerLeftUp", "shiftLowerLipLeftUp", "shiftOuterBrowLeftUp")
    ] == [
        "mouth",
        "mouth",
        "brows",
    ]


def test_directions_are_given_to_a_head_with_landmarks_once(head: MorphableHead) -> None:
    with pytest.raises(ValueError, match="directions already; extend the head of the file"):
        with_directions(head)
    arrays = {name: value for name, value in head.named_buffers() if not name.startswith(("lmk_", "_"))}
    with pytest.raises(ValueError, match=r"478 face-mesh landmarks.*use the embedded head"):
        with_directions(MorphableHead(arrays, {"n_shape": str(head.n_shape)}))


def test_teeth_and_eyeballs_stay_where_directions_move_the_skin(head: MorphableHead) -> None:
    moved = head.decode(torch.zeros(1, 1), torch.ones(1, head.n_expression) * 0.0)
    free = torch.tensor([[1.0 if is_direction(n) else 0.0 for n in head.expression_names]])
    change = (head.decode(torch.zeros(1, 1), free) - moved)[0].abs().amax(-1)
    for name in head.group_names[1:]:
        assert float(change[head.group_vertices(name)].max()) < 1e-7, name


def test_directions_are_told_in_units_that_look_like_them(head: MorphableHead, points: HeadPoints) -> None:
    """A mouth opened and narrowed by directions alone is told as a jaw that opens, and lids as they are."""
    teller = UnitTeller(points, person(head, 2))
    names = [name for name in head.expression_names if not is_direction(name)]
    opened = codes(
        head, {"eyeBlinkLeft": 0.7, "shiftLowerLipEdgeMiddleUp": -1.5, "shiftLowerLipMiddleUp": -1.5}
    )
    for side in ("Left", "Right"):
        opened[0, head.index(f"shiftLowerLipEdge{side}Up")] = -1.3
        opened[0, head.index(f"shiftLowerLip{side}Up")] = -1.3
    told = dict(zip(names, teller.tell(opened[0]), strict=True))
    assert told["jawOpen"] + told["mouthLowerDownLeft"] > 0.5
    assert told["eyeBlinkLeft"] == 0.7
    plain = codes(head, {"jawOpen": 0.6} | pair("mouthSmile", 0.5))
    again = dict(zip(names, teller.tell(plain[0]), strict=True))
    assert again["jawOpen"] == pytest.approx(0.6, abs=0.1)
    assert again["mouthSmileLeft"] == pytest.approx(0.5, abs=0.15)
