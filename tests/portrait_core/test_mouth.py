"""The painted mouth: its colours, both rows of teeth, what the photograph shows of it, the hair above it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from portrait_core.face_model import landmark_regions as regions
from portrait_core.face_model.contours import Opening
from portrait_core.face_model.head import MorphableHead
from portrait_core.template.lip_line import closed_lips, is_closed
from portrait_core.template.mouth import MouthPainter
from portrait_core.template.mouth_colors import MouthPalette, bounded, monochrome
from portrait_core.template.template import Template, TemplateRenderer
from portrait_core.template.texture import PortraitTexture
from portrait_core.template.visible_teeth import find_teeth
from tests.portrait_core.drawn_portrait import SKIN, DrawnPortrait, render, renderer_of


def _pair(name: str, value: float) -> dict[str, float]:
    return {f"{name}Left": value, f"{name}Right": value}


WIDE = {"jawOpen": 0.8}
SMILE = {**_pair("mouthSmile", 0.7), **_pair("mouthUpperUp", 0.5), "jawOpen": 0.3}
CLENCHED = {**_pair("mouthUpperUp", 0.9), **_pair("mouthLowerDown", 1.0), **_pair("mouthPress", 0.0)}
PRESSED = {**_pair("mouthPress", 0.9), **_pair("mouthUpperUp", 0.0), "jawOpen": 0.0}


def _closed(head: MorphableHead) -> DrawnPortrait:
    return renderer_of(head, 0, 0.1, mouthShrugLower=0.3, **_pair("mouthPress", 0.5))


def _parted(head: MorphableHead) -> DrawnPortrait:
    return renderer_of(head, 0, 0.1, jawOpen=0.35, **_pair("mouthUpperUp", 0.6))


@pytest.fixture(scope="module")
def closed(head: MorphableHead) -> DrawnPortrait:
    """A portrait with closed lips."""
    return _closed(head)


@pytest.fixture(scope="module")
def parted(head: MorphableHead) -> DrawnPortrait:
    """A portrait with parted lips and upper teeth."""
    return _parted(head)


def _again(head: MorphableHead, portrait: DrawnPortrait, image: np.ndarray) -> DrawnPortrait:
    """The same portrait with another photograph."""
    renderer, _, marks = portrait
    return TemplateRenderer(head, image, renderer.skin.fit, marks), image, marks


def _toned(image: np.ndarray, tone: np.ndarray | list[float]) -> np.ndarray:
    gray = image.astype(float).mean(-1, keepdims=True)
    return np.round(np.clip(gray * tone, 0, 255)).astype(np.uint8)


def _column(template: Template, portrait: DrawnPortrait, shift: int = 0) -> np.ndarray:
    """Luminances down the middle of the painted mouth, without its soft rims."""
    x = int(portrait[2][13, 0]) + shift
    rows = np.nonzero(template.mouth_mask[0, :, x] > 0.95)[0]
    return template.image[0, rows, x].astype(float).mean(-1)


@pytest.mark.parametrize("make", [_closed, _parted])
@pytest.mark.parametrize(
    "units", [WIDE, SMILE, CLENCHED, PRESSED], ids=["wide", "smile", "clenched", "pressed"]
)
def test_a_gray_portrait_has_a_gray_mouth(
    head: MorphableHead, make: Callable[[MorphableHead], DrawnPortrait], units: dict[str, float]
) -> None:
    portrait = make(head)
    portrait = _again(head, portrait, _toned(portrait[1], np.ones(3)))
    image = render(head, portrait, **units).image[0].astype(int)
    assert (image.max(-1) - image.min(-1)).max() <= 2


def test_a_sepia_portrait_has_a_sepia_mouth(head: MorphableHead, closed: DrawnPortrait) -> None:
    tone = np.array([1.1, 0.98, 0.80])
    portrait = _again(head, closed, _toned(closed[1], tone))
    for units in (WIDE, SMILE, CLENCHED):
        got = render(head, portrait, **units)
        inside = got.image[0][got.mouth_mask[0] > 0.95].astype(float)
        assert len(inside) > 20
        assert np.abs(inside - inside.mean(-1, keepdims=True) * tone / tone.mean()).max() <= 4


def test_teeth_that_the_photograph_does_not_show_are_plausible(
    head: MorphableHead, closed: DrawnPortrait
) -> None:
    _, photograph, _ = closed
    bared = render(head, closed, **CLENCHED)
    colors = bared.image[0][bared.mouth_mask[0] > 0.95].astype(float)
    luminance = colors.mean(-1)
    teeth = colors[luminance >= np.percentile(luminance, 60)]
    wide = render(head, closed, **WIDE)
    tongue = _column(wide, closed)
    lower_half = tongue[len(tongue) // 2 : -3]
    assert teeth.mean() > 1.25 * np.median(lower_half)
    assert teeth.mean() > 0.8 * np.mean(SKIN)
    assert (teeth[:, 1] <= teeth[:, [0, 2]].max(1) + 2).all()
    assert teeth.mean(-1).max() <= np.percentile(photograph.mean(-1), 99) + 2
    # the tongue is red where lips are, and lies in the dark
    middle = wide.image[0][wide.mouth_mask[0] > 0.95].astype(float).mean(0)
    assert middle[0] > 1.2 * middle[1:].max()


def test_clenched_teeth_leave_no_dark_gap_between_the_rows(
    head: MorphableHead, closed: DrawnPortrait
) -> None:
    got = render(head, closed, **CLENCHED)
    for shift in (-4, 0, 4):
        teeth = _column(got, closed, shift)
        assert len(teeth) >= 3
        assert teeth.min() > 0.6 * teeth.max()
        assert teeth.min() > 0.5 * np.mean(SKIN)


def test_lower_teeth_show_where_the_lower_lip_drops(head: MorphableHead, closed: DrawnPortrait) -> None:
    units = {"jawOpen": 0.3, **_pair("mouthPress", 0.0)}
    bared = _column(render(head, closed, **units, **_pair("mouthLowerDown", 1.0)), closed)
    upper, between, lower = bared[:2].max(), bared[2:-3].min(), bared[-3:].max()
    assert upper > 0.6 * np.mean(SKIN)
    assert lower > 0.6 * np.mean(SKIN)
    assert between < 0.6 * min(upper, lower)  # the jaw is open


def test_rows_of_teeth_rise_to_the_corners_and_meet_there(head: MorphableHead, closed: DrawnPortrait) -> None:
    interior, skin = closed[0]._mouth.interior, closed[0].skin
    level = []
    for units in ({}, {"jawOpen": 1.0}):
        code = np.zeros((1, head.n_expression), np.float32)
        for name, value in units.items():
            code[0, head.index(name)] = value
        jaw = head.jaw_from_expression(torch.from_numpy(code)).numpy()
        placed = interior.placed(skin.decode(code, jaw)[0]).vertices_m
        rises = []
        for group, edge in (("helper-upper-teeth", np.min), ("helper-lower-teeth", np.max)):
            x, y, _ = placed[head.group_vertices(group)].numpy().T
            front, side = np.abs(x) < 0.004, (np.abs(x) > 0.016) & (np.abs(x) < 0.022)
            rises.append(edge(y[side]) - edge(y[front]))
        level.append(rises)
    # a jaw that turns open leaves its far teeth higher: that much is not of the bend
    assert level[0][0] == pytest.approx(level[1][0], abs=1e-4)
    assert level[0][0] > 0.0015
    assert level[0][1] == pytest.approx(level[0][0], abs=0.001)


def test_an_open_mouth_ends_at_its_inner_corners(head: MorphableHead, closed: DrawnPortrait) -> None:
    """The line between closed lips may go on beyond the corners, and does while they are closed."""
    renderer, _, _ = closed
    painter, mouth = renderer._mouth, renderer.texture.mouth
    longer = replace(mouth, origin=mouth.origin - 0.08 * mouth.width * mouth.axis, width=1.16 * mouth.width)
    painter = MouthPainter(
        replace(renderer.texture, mouth=longer), painter.interior, painter._source, np.zeros((2, 2))
    )
    inner = _opened(head, renderer, jawOpen=0.8)
    assert painter.opening(painter._source).width == pytest.approx(longer.width, rel=0.02)
    assert painter.opening(inner).width == pytest.approx(inner.width, rel=0.02)


@pytest.mark.parametrize("jaw_open", [0.0, 0.3, 0.8])
def test_lips_are_where_they_are_said_to_be_painted(
    head: MorphableHead, closed: DrawnPortrait, jaw_open: float
) -> None:
    renderer = closed[0]
    code = renderer.skin.fit.expression[None].copy()
    code[0, head.index("jawOpen")] = jaw_open
    jaw = head.jaw_from_expression(torch.from_numpy(code)).numpy()
    marks = renderer.skin.landmarks(renderer.skin.moved(renderer.skin.decode(code, jaw))[0])
    upper, lower = renderer.painted_lips(code, jaw)[0] * renderer.skin.px_per_m + marks[[13, 14], 1]
    mask = renderer.render(code, jaw).mouth_mask[0, :, int(closed[2][13, 0])]
    # heights of the work image in pixels of the crop
    assert (lower - upper) / renderer.scale == pytest.approx(float(mask.sum()), abs=1.0)
    if jaw_open:
        assert (upper + lower) / 2 / renderer.scale == pytest.approx(
            float(np.average(np.arange(len(mask)) + 0.5, weights=mask)), abs=1.0
        )


def test_a_wide_open_mouth_is_round_at_its_corners(head: MorphableHead, closed: DrawnPortrait) -> None:
    """Straight edges to the landmarks beside the corners would make a hexagon of it."""
    renderer, _, _ = closed
    painted = renderer._mouth.opening(_opened(head, renderer, jawOpen=1.0))
    steps = np.array([0.03, 0.12], np.float32)
    for edge in painted.edges(steps):
        corner, beside = np.abs(edge) / np.sqrt(steps * (1 - steps))
        assert corner > 0.85 * beside


def _opened(head: MorphableHead, renderer: TemplateRenderer, **units: float) -> Opening:
    """The mesh's opening with some units."""
    code = np.zeros((1, head.n_expression), np.float32)
    for name, value in units.items():
        code[0, head.index(name)] = value
    jaw = head.jaw_from_expression(torch.from_numpy(code)).numpy()
    marks = renderer.skin.landmarks(renderer.skin.moved(renderer.skin.decode(code, jaw))[0])
    return Opening.from_points(*(marks[list(edge)] for edge in regions.INNER_LIPS))


def _with_tongue(head: MorphableHead, parted: DrawnPortrait) -> DrawnPortrait:
    """A portrait whose photograph has a blue tongue between its lips."""
    _, photograph, marks = parted
    image = photograph.copy()
    mask = render(head, parted).mouth_mask[0] > 0.9
    rows = np.arange(len(image))[:, None]
    image[mask & (rows > marks[[13, 14], 1].mean())] = (60, 70, 160)
    return _again(head, parted, image)


def test_the_photographs_own_interior_is_kept_at_rest(head: MorphableHead, parted: DrawnPortrait) -> None:
    portrait = _with_tongue(head, parted)
    got = render(head, portrait)
    inside = got.mouth_mask[0] > 0.5
    assert np.abs(got.image[0].astype(int) - portrait[1])[inside].max() <= 10


def test_the_photographs_own_interior_moves_a_little_with_the_lips(
    head: MorphableHead, parted: DrawnPortrait
) -> None:
    portrait = _with_tongue(head, parted)

    def blue(template: Template) -> int:
        image = template.image[0].astype(int)
        return ((image[..., 2] > image[..., 0] + 25) & (template.mouth_mask[0] > 0.5)).sum()

    assert blue(render(head, portrait, jawOpen=0.42)) > 0.8 * blue(render(head, portrait))
    assert blue(render(head, portrait, jawOpen=1.0)) < 0.2 * blue(render(head, portrait))


def _lined_skin(size: int = 200, bend: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Skin with a dark line across lips ``[S,S,3]``, and the line's height at each column."""
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    line = 100 + bend * np.sin((x - 50) / 100 * np.pi)
    depth = np.exp(-np.square((y - line) / 1.5)) * ((x > 45) & (x < 155))
    lips = np.clip(1.6 * np.exp(-np.square((y - line) / 16.0)), 0, 1)[..., None]
    color = np.array([205.0, 160, 135]) + lips * [-30, -60, -40]
    return (color * (1 - 0.6 * depth[..., None])).astype(np.float32), line[0]


@pytest.mark.parametrize("off", [-4.0, 0.0, 6.0])
def test_the_line_between_closed_lips_is_found_beside_the_landmarks(off: float) -> None:
    photo, line = _lined_skin()
    x = np.linspace(50, 150, 11)
    gap = 6.0 * np.sin((x - 50) / 100 * np.pi)
    landmarks = Opening.from_points(
        np.stack([x, 100 + off - gap / 2], 1), np.stack([x, 100 + off + gap / 2], 1)
    )
    assert is_closed(photo, landmarks)
    found = closed_lips(photo, landmarks)
    assert found.gap.max() == 0
    along = np.linspace(0.1, 0.9, 9, dtype=np.float32)
    px, py = found.position(along, found.edges(along)[0])
    assert np.abs(py - np.interp(px, np.arange(200) + 0.5, line)).max() < 1.5


def test_lips_with_something_else_between_them_are_parted() -> None:
    photo, _ = _lined_skin(bend=0.0)
    x = np.linspace(50, 150, 11)
    gap = 12.0 * np.sin((x - 50) / 100 * np.pi)
    landmarks = Opening.from_points(np.stack([x, 100 - gap / 2], 1), np.stack([x, 100 + gap / 2], 1))
    for color in ((30, 15, 15), (235, 228, 215)):
        open_mouth = photo.copy()
        open_mouth[95:105, 60:140] = color
        assert not is_closed(open_mouth, landmarks)


@pytest.mark.parametrize("level", [0, 255])
def test_a_picture_without_anything_on_it_has_colours_to_paint_with(
    closed: DrawnPortrait, level: int
) -> None:
    _, photograph, marks = closed
    blank = np.full(photograph.shape, level, np.float32)
    texture = PortraitTexture.build(blank, marks)
    teeth = find_teeth(texture, px_per_m=1000.0)
    palette = MouthPalette.estimate(texture, teeth.sure)
    assert not palette.teeth_seen
    for color in (palette.tooth, palette.gum, palette.tongue, palette.dark):
        assert np.isfinite(color).all()
        assert color.max() - color.min() < 1e-3


@pytest.mark.parametrize("black", [0.0, 60.0])
def test_the_depth_of_a_mouth_is_as_dark_as_the_picture_gets(closed: DrawnPortrait, black: float) -> None:
    """Prints fade, and their darkest places with them; elsewhere a mouth is darker than a face's shadows."""
    _, photograph, marks = closed
    faded = (black + photograph * (1.0 - black / 255.0)).astype(np.float32)
    faded[:20, :20] = black
    texture = PortraitTexture.build(faded, marks)
    dark = MouthPalette.estimate(texture, find_teeth(texture, px_per_m=1000.0).sure).dark.mean()
    assert dark < 0.5 * texture.shadow if black == 0 else dark == pytest.approx(texture.black, rel=0.05)


def test_a_picture_has_one_colour_or_several(closed: DrawnPortrait) -> None:
    _, photograph, _ = closed
    assert monochrome(photograph.astype(np.float32)) == 0
    for tone in (np.ones(3), np.array([1.1, 0.98, 0.80])):
        assert monochrome(_toned(photograph, tone).astype(np.float32)) == 1


def test_saturation_is_bounded_at_the_same_luminance() -> None:
    red = np.array([200.0, 50, 50])
    assert bounded(red, 0.0) == pytest.approx(np.full(3, 100.0))
    half = bounded(red, 0.5)
    assert half.mean() == pytest.approx(100.0)
    assert (half.max() - half.min()) / half.max() == pytest.approx(0.5)
    assert (bounded(red, 0.9) == red).all()


@pytest.fixture(scope="module")
def moustache(head: MorphableHead, closed: DrawnPortrait) -> DrawnPortrait:
    """A portrait with black hair over the upper lip."""
    _, photograph, marks = closed
    image = photograph.copy()
    top, bottom = marks[2, 1] + 1.5, marks[13, 1]
    x0, x1 = marks[regions.OUTER_LIPS.upper[0], 0] - 3, marks[regions.OUTER_LIPS.upper[-1], 0] + 3
    image[int(top) : int(bottom), int(x0) : int(x1)] = (40, 32, 28)
    return _again(head, closed, image)


def test_only_dark_hair_over_the_lip_is_a_moustache(
    closed: DrawnPortrait, parted: DrawnPortrait, moustache: DrawnPortrait
) -> None:
    assert closed[0].texture.hair is None
    assert parted[0].texture.hair is None
    assert moustache[0].texture.hair is not None
    assert moustache[0].texture.hair.weight.max() == 1


def test_a_moustache_is_kept_at_rest(head: MorphableHead, moustache: DrawnPortrait) -> None:
    rest = render(head, moustache)
    assert np.abs(rest.image[0].astype(int) - moustache[1]).mean() < 0.5


def test_a_moustache_moves_with_the_upper_lip_as_one(moustache: DrawnPortrait) -> None:
    texture = moustache[0].texture
    mouth, hair = texture.mouth, texture.hair
    assert hair is not None
    for shift in ((4.0, 0.0), (0.0, 6.0), (-3.0, 5.0)):
        moved = replace(mouth, origin=mouth.origin + np.array(shift, np.float32))
        canvas = np.full_like(texture.photo, 200.0)
        hair.paint(canvas, texture.photo, mouth, moved)
        before = np.full_like(canvas, 200.0)
        hair.paint(before, texture.photo, mouth, mouth)
        # all but the roots under the nose, which stay
        y, x = np.nonzero(before[..., 0] < 60)
        low = y > np.median(y)
        y, x = y[low] + int(shift[1]), x[low] + int(shift[0])
        assert len(y) > 200
        assert (canvas[y, x, 0] < 60).mean() > 0.98


def test_no_bright_line_is_drawn_over_a_moustache(head: MorphableHead, moustache: DrawnPortrait) -> None:
    x = int(moustache[2][13, 0])
    bottom = int(moustache[2][13, 1])
    for units in ({}, PRESSED, {"jawOpen": 0.5}):
        image = render(head, moustache, **units).image[0].astype(float).mean(-1)
        assert image[bottom - 6 : bottom - 2, x - 8 : x + 9].max() < 75
