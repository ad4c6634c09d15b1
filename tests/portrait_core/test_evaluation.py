"""Evaluations: draws, methods, plans, and tables made of what was read of clips."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portrait_core.cameras import angles_from_labels, orbit_labels
from portrait_core.errors import InputError
from portrait_core.evaluation import paper
from portrait_core.evaluation.draws import draw_pairs, draw_views
from portrait_core.evaluation.markdown import headline, markdown_table, report, table_1, table_2
from portrait_core.evaluation.methods import GROUPS, PAPER_METHODS, choose_methods
from portrait_core.evaluation.plan import Member, Plan, read_plan, write_plan
from portrait_core.evaluation.plots import bars
from portrait_core.evaluation.sheet import FRAMES as FRAMES_SHOWN
from portrait_core.evaluation.sheet import shown_frames
from portrait_core.evaluation.tables import ID, ID_SOURCE, ClipReadings, clip_values, summarise
from portrait_core.settings import EvaluationSettings, load_settings
from portrait_core.store import Store

FRAMES, IDENTITY = 5, "some network"
NAMES = {"identity": IDENTITY, "features": "distance of features (not FID)", "pictures": []}


def test_nothing_is_drawn_twice_before_all_of_its_list_was() -> None:
    portraits, videos = [f"p{i}" for i in range(5)], [f"v{i}" for i in range(3)]
    pairs = draw_pairs(portraits, videos, 10, seed=4)
    assert [pair.number for pair in pairs] == list(range(1, 11))
    for first in (0, 5):
        assert {pair.portrait for pair in pairs[first : first + 5]} == set(portraits)
    for first in (0, 3, 6):
        assert {pair.video for pair in pairs[first : first + 3]} == set(videos)
    assert pairs == draw_pairs(portraits, videos, 10, seed=4)
    assert pairs != draw_pairs(portraits, videos, 10, seed=5)
    with pytest.raises(ValueError, match="a portrait and a video at least"):
        draw_pairs([], videos, 1, seed=0)


def test_views_are_of_two_frames_and_have_poses_of_portraits() -> None:
    cameras = {f"p{i}": orbit_labels(yaw, 0.1 * yaw, 0.02)[0] for i, yaw in enumerate((-0.4, 0.1, 0.3))}
    rows = np.stack(list(cameras.values()))
    poses = {tuple(row) for row in np.round(angles_from_labels(rows), 6).tolist()}
    drawn = [draw_views(cameras, pair, 9, seed=1) for pair in range(1, 9)]
    for views in drawn:
        (first, *one), (second, *other) = views
        assert first != second
        assert {tuple(one), tuple(other)} <= poses
        assert one != other
        assert max(first, second) < 9
    assert len({views[0][1:] for views in drawn}) > 1
    assert [view[0] for view in draw_views(cameras, 1, 1, seed=1)] == [0, 0]
    assert drawn == [draw_views(cameras, pair, 9, seed=1) for pair in range(1, 9)]
    (first, *one), (second, *other) = draw_views({"alone": rows[0]}, 1, 9, seed=1)
    assert one == other


def test_a_portrait_more_changes_only_the_views_that_it_has_a_part_in() -> None:
    few = {f"p{i}": orbit_labels(0.1 * i, 0.0)[0] for i in range(12)}
    more = few | {"new": orbit_labels(-0.5, 0.0)[0]}
    changed = 0
    for pair in range(1, 60):
        before, after = draw_views(few, pair, 9, seed=0), draw_views(more, pair, 9, seed=0)
        new = [view for view in after if view[1] == -0.5]
        changed += before != after
        assert bool(new) == (before != after)
    assert 0 < changed < 25


def test_more_pairs_add_to_fewer() -> None:
    portraits, videos = [f"p{i}" for i in range(5)], [f"v{i}" for i in range(3)]
    assert draw_pairs(portraits, videos, 4, seed=1) == draw_pairs(portraits, videos, 9, seed=1)[:4]


def test_methods_are_chosen_by_group_name_and_own_changes() -> None:
    names = [method.name for method in choose_methods(["references", "3D GAN", "paper"])]
    assert names[:3] == ["pasted template", "still photograph", "3D GAN"]
    assert len(names) == len(set(names)) == 3 + len(PAPER_METHODS) - 1
    (own,) = choose_methods(["longer: tuning.steps=400 tuning.batch=4"])
    assert (own.name, own.goal) == ("longer", "evaluate_3d")
    assert own.changes == ("tuning.steps=400", "tuning.batch=4")
    with pytest.raises(ValueError, match="there is no method 'fast'"):
        choose_methods(["fast"])
    for name in (
        "3D GAN: tuning.steps=1",
        "paper: tuning.steps=1",
        ": tuning.steps=1",
        "a|b: tuning.steps=1",
    ):
        with pytest.raises(ValueError, match="cannot name a method of your own"):
            choose_methods([name])


@pytest.mark.parametrize("method", GROUPS["all"], ids=lambda method: method.name)
def test_the_changes_of_every_method_are_settings_of_both_profiles(method: Any) -> None:
    deep3d = "evaluation.estimators=[embedded,deep3d]"
    for profile in ("embedded", "paper"):
        load_settings(profile, [deep3d, *method.changes])


def test_every_row_of_the_papers_tables_is_a_method() -> None:
    names = [method.name for method in PAPER_METHODS]
    assert names == list(paper.TABLE_1) == list(paper.TABLE_2) == list(paper.SUPPLEMENT_1)


def clip(pair: int, angle_rad: float = 0.1, unit: float = 0.2) -> ClipReadings:
    """A clip whose pose and expression are off by known amounts, the last frame without a face."""
    rng = np.random.default_rng(pair)
    pose, expression = rng.normal(size=(FRAMES, 3)), rng.normal(size=(FRAMES, 52))
    identity = rng.normal(size=(FRAMES, 8))
    landmarks = np.zeros((FRAMES, 478, 2))
    for rows in (identity, landmarks):
        rows[-1] = np.nan
    arrays = {
        "landmarks": landmarks,
        "features": rng.normal(size=(FRAMES, 6)),
        "features_source": rng.normal(size=(1, 6)),
        "identity": identity,
        "identity_source": identity[:1],
        "identity_views": np.array([[1.0, 0, 0], [0.6, 0.8, 0]]),
        "embedded_pose": pose + angle_rad,
        "embedded_driver_pose": pose,
        "embedded_expression": expression + unit,
        "embedded_driver_expression": expression,
    }
    follow = {"lip gap": {"correlation": 0.9, "slope": 0.8}, "gaze up": {"correlation": 0.5, "slope": 0.4}}
    return ClipReadings(pair, f"clip {pair}", arrays, follow, NAMES)


def values_of(readings: ClipReadings) -> Mapping[tuple[str, str], float]:
    return {(one.column, one.variant): one.value for one in clip_values(readings, seed=0)}


def test_a_clips_distances_are_those_that_were_put_in() -> None:
    values = values_of(clip(1))
    by_column = {
        column: [value for (name, _), value in values.items() if name == column]
        for column in ("APD embedded", "AED embedded")
    }
    assert by_column["APD embedded"] == pytest.approx([0.1, 0.1, 0.1 * math.sqrt(3)])
    assert by_column["AED embedded"] == pytest.approx([0.2, 0.2, 0.2 * math.sqrt(52)])
    assert values[ID, f"cosine, {IDENTITY}, two frames from other sides"] == pytest.approx(0.6)
    assert values["faces", "share of frames in which a face is found"] == pytest.approx(0.8)
    assert values["follow r", "correlation, mean over the regions that move"] == pytest.approx(0.7)
    assert values["follow slope", "slope of gaze up"] == pytest.approx(0.4)
    source = values[ID_SOURCE, f"cosine, {IDENTITY}, two frames and the source"]
    assert math.isfinite(source), "the frame without a face is not taken"


def test_the_columns_of_true_pictures_are_named_by_their_variants() -> None:
    readings = clip(2)
    names = ["PSNR, dB, peak 255", "L1, mean over pixels", "distance of some features (not LPIPS)"]
    pictures = np.tile([30.0, 0.1, 0.5], (FRAMES, 1))
    pictures[0] = math.inf, 0, 0
    readings = ClipReadings(
        2, "clip", {**readings.arrays, "pictures": pictures}, readings.follow, {**NAMES, "pictures": names}
    )
    found = {one.column: (one.variant, one.value) for one in clip_values(readings, seed=0)}
    assert found["PSNR"] == (names[0], 30.0), "the first frame, which is the portrait itself, is left out"
    assert found["L1"][1] == pytest.approx(0.1)
    assert found["distance"] == (names[2], 0.5)


CHOSEN = EvaluationSettings(realisations=7, resamples=50)


def plan_of(methods: tuple[str, ...]) -> Plan:
    members = tuple(
        Member(method=method, pair=pair, clip=f"clip {pair}", unit="0" * 16, key="ab")
        for method in methods
        for pair in (1, 2, 3)
    )
    return Plan(
        title="A trial",
        profile="embedded",
        seed=3,
        methods=methods,
        estimators=("embedded",),
        pairs=3,
        portraits=2,
        videos=3,
        members=members,
        absent=({"pair": 3, "method": "PIRenderer", "why": "input: no face"},),
        unavailable=({"method": "Face-vid2vid", "why": "its file is missing"},),
    )


def test_a_table_has_the_papers_number_beside_ones_own_and_says_what_is_missing() -> None:
    methods = ("3D GAN", "still photograph")
    summary, clips = summarise(methods, lambda name: [clip(1), clip(2), clip(3)], (1, 2, 3), CHOSEN, seed=3)
    assert set(clips["pair"]) == {1, 2, 3}
    text = markdown_table(summary, methods, [*table_1("embedded"), *table_2()])
    ours, still = text.splitlines()[2:]
    assert "(paper 31.176)" in ours
    assert "(paper 0.590)" in ours
    assert "0.100 [0.100, 0.100] (paper 0.030)" in ours
    assert "paper" not in still
    whole = report(summary, plan_of(methods))
    assert "Face-vid2vid: its file is missing" in whole
    assert "pair 3, PIRenderer: input: no face" in whole
    assert "root mean square" in whole
    assert "without effect in this profile: still photograph." in whole
    other, _ = summarise(methods, lambda name: [clip(1, 0.1 * len(name)), clip(2)], (1, 2), CHOSEN, seed=3)
    assert "without effect" not in report(other, plan_of(methods))
    row = headline(summary, "3D GAN", "Fréchet")
    assert "FID" not in row["variant"].replace("not FID", "")
    assert bars(summary, methods, table_1("embedded")).startswith(b"\x89PNG")


def test_a_number_that_some_clips_lack_says_of_how_many_it_is() -> None:
    def read(method: str) -> list[ClipReadings]:
        lost = clip(2)
        views = np.full((2, 3), np.nan)
        return [
            clip(1),
            ClipReadings(2, "clip", {**lost.arrays, "identity_views": views}, lost.follow, NAMES),
        ]

    summary, _ = summarise(("3D GAN",), read, (1, 2), CHOSEN, seed=3)
    text = markdown_table(summary, ("3D GAN",), table_1("embedded"))
    assert "0.600 (1 of 2 clips) (paper 0.733)" in text


def test_tables_are_equal_whenever_they_are_made() -> None:
    def made() -> tuple[Any, Any]:
        return summarise(("3D GAN",), lambda name: [clip(1), clip(2)], (1, 2), CHOSEN, seed=3)

    for first, second in zip(made(), made(), strict=True):
        assert first.equals(second)
    other, _ = summarise(("3D GAN",), lambda name: [clip(1), clip(2)], (1, 2), CHOSEN, seed=4)
    assert not other.equals(made()[0])


def test_a_plan_that_was_changed_in_the_store_is_refused(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), plan_of(("3D GAN",))
    digest = write_plan(store, plan)
    assert read_plan(store, digest) == plan
    changed = plan.model_dump(mode="json") | {"pairs": 400}
    store.write_record("plans", digest[:32], changed)
    with pytest.raises(InputError, match="does not hold the evaluation's plan"):
        read_plan(store, digest)
    with pytest.raises(InputError, match="does not hold the evaluation's plan"):
        read_plan(Store(tmp_path / "empty"), digest)


def test_a_failure_that_is_told_in_other_words_makes_no_other_tables() -> None:
    plan = plan_of(("3D GAN",))
    told = plan.model_copy(update={"absent": ({**plan.absent[0], "why": "stage: no face"},)})
    other = plan.model_copy(update={"absent": ({**plan.absent[0], "pair": 2},)})
    assert told.digest() == plan.digest() != other.digest()


def test_methods_are_compared_over_the_pairs_that_all_of_them_have() -> None:
    plan = plan_of(("3D GAN", "still photograph"))
    fewer = tuple(one for one in plan.members if (one.method, one.pair) != ("3D GAN", 2))
    plan = plan.model_copy(update={"members": fewer})
    assert plan.common_pairs() == {1, 3}

    def read(method: str) -> list[ClipReadings]:
        return [clip(one.pair) for one in plan.members_of(method)]

    summary, clips = summarise(plan.methods, read, plan.common_pairs(), CHOSEN, seed=3)
    assert set(summary["clips"]) == {2}
    assert set(clips[clips["method"] == "still photograph"]["pair"]) == {1, 2, 3}
    assert "of the 2 pairs that every method has" in report(summary, plan)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_as_many_frames_are_shown_of_any_clip(count: int) -> None:
    frames = shown_frames(count)
    assert len(frames) == FRAMES_SHOWN
    assert frames == sorted(frames)
    assert 0 <= frames[0] <= frames[-1] < count
