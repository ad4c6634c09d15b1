"""The whole flow on a short clip at small size: what comes out, and what a second run does."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from portrait_core.media import probe, read_frames, read_image
from tests.flows.conftest import FRAMES, Arguments, Run, repeat

UNSEEN = 3  # the driver's frame without a face


def test_a_run_with_a_held_frame_ends_with_1_and_says_which(first: Run) -> None:
    assert first.result.exit_code == 1, first.result.output
    assert f"held from a neighbour (no face was found): 1, frame {UNSEEN}" in first.result.output
    assert first.summary["held_frames"] == {"no_face": [UNSEEN], "not_rendered": []}
    (failure,) = first.summary["failures"]
    assert (failure["stage"], failure["frame"], failure["cls"]) == ("landmarks", UNSEEN, "input")


def test_clip_has_the_drivers_frames_rate_and_sound(first: Run, driver: Path) -> None:
    for name in ("reenactment.mp4", "side_by_side.mp4"):
        made, wanted = probe(first.out / name), probe(driver)
        assert made.frame_count == wanted.frame_count == FRAMES
        assert made.frame_rate == wanted.frame_rate == Fraction(30000, 1001)
        assert made.has_audio
        assert made.audio_duration_s == pytest.approx(wanted.audio_duration_s, abs=0.03)
    with av.open(str(first.out / "reenactment.mp4")) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == FRAMES
    assert (probe(first.out / "reenactment.mp4").width, probe(first.out / "reenactment.mp4").height) == (
        64,
        64,
    )


def test_the_frame_without_a_face_shows_the_frame_before_it(first: Run) -> None:
    expression = first.output("retarget").read("expression")
    np.testing.assert_array_equal(expression[UNSEEN], expression[UNSEEN - 1])
    frames = [frame.astype(int) for frame in read_frames(first.out / "reenactment.mp4")]
    kept, changed = (np.abs(frames[i] - frames[i + 1]).mean() for i in (UNSEEN - 1, UNSEEN))
    assert kept <= changed + 0.5


def test_every_stage_ran_over_every_frame_and_reported(first: Run) -> None:
    stages = {s["stage"]: s for s in first.summary["stages"]}
    for stage in ("landmarks", "template", "inversion", "render"):
        assert stages[stage]["frames_done"] == stages[stage]["frames_total"] == FRAMES
    assert all(s["seconds_all_runs"] >= s["seconds"] >= 0 for s in stages.values())
    assert stages["tuning"]["seconds"] > 0
    losses = first.summary["losses"]
    assert [
        len(losses[name]) for name in ("inversion_frames", "inversion_first_frame_steps", "tuning_steps")
    ] == [
        FRAMES,
        3,
        4,
    ]
    assert np.isfinite([*losses["inversion_frames"], *losses["tuning_steps"]]).all()
    assert first.summary["peak_memory_bytes"] > 50e6
    assert first.summary["motion"]["still_portrait"]["lip_correlation"] == 0.0
    assert (first.out / "contact_sheet.png").stat().st_size > 10_000


def test_a_run_measures_the_regions_of_the_face_and_draws_them(first: Run) -> None:
    motion = first.summary["motion"]
    assert {"fit", "retargeted", "template"} <= motion["follow"].keys()
    driver = motion["regions"]["driver"]
    assert {"mouth width", "inner brows", "lid left", "gaze up"} <= driver.keys()
    assert all(len(curve) == FRAMES and curve[UNSEEN] is None for curve in driver.values())
    assert all(0.4 < width < 0.8 for width in driver["mouth width"] if width is not None)
    assert first.summary["files"]["expression"] == "expression.png"
    assert read_image(first.out / "expression.png").shape[1] > 400


def test_the_same_command_again_computes_nothing(again: Run, arguments: Arguments) -> None:
    second = repeat(again, arguments)
    assert second.result.exit_code == 1, second.result.output
    assert "everything was done already" in second.result.output
    assert second.computed() == {}
    assert (second.out / "reenactment.mp4").is_file()


def test_only_what_depends_on_a_changed_setting_is_made_again(again: Run, arguments: Arguments) -> None:
    second = repeat(again, arguments, "output.crf=30")
    assert second.computed() == {"encode": 1}
    third = repeat(again, arguments, "output.crf=30", "composite.feather_px=3")
    assert third.computed() == {"pose": 1, "render": FRAMES, "encode": 1, "measure": 1}


def test_numbers_of_workers_and_batches_change_nothing(again: Run, arguments: Arguments) -> None:
    changes = (
        "runner.workers=1",
        "runner.frames_per_task=3",
        "tracking.batch=2",
        "runner.checkpoint_s=3",
    )
    assert repeat(again, arguments, *changes).computed() == {}


def test_lost_and_damaged_chunks_are_made_again_and_nothing_else(again: Run, arguments: Arguments) -> None:
    output = again.output("render")
    before = output.read("frames")
    output.unpack("frames")
    array = again.store / output.path / "frames"
    chunk = {i: next(array.glob(f"c.{i}.*")) for i in (1, 4)}
    chunk[1].unlink()
    chunk[4].write_bytes(chunk[4].read_bytes()[:-7] + b"garbage")
    again.output("encode").uncommit()  # so that the damaged one is read
    second = repeat(again, arguments)
    assert "recomputing damaged data" in second.result.output
    assert second.computed() == {"render": 2, "encode": 1}
    np.testing.assert_array_equal(second.output("render").read("frames"), before)


def test_damage_in_a_packed_array_costs_its_frames_alone(again: Run, arguments: Arguments) -> None:
    output = again.output("render")
    before = output.read("frames")
    packed = next(path for path in (again.store / output.path / "frames" / "c").rglob("0") if path.is_file())
    data = bytearray(packed.read_bytes())
    data[-9] ^= 4  # in the last frame
    packed.write_bytes(data)
    again.output("encode").uncommit()
    second = repeat(again, arguments)
    assert second.computed() == {"render": 1, "encode": 1}, second.result.output
    np.testing.assert_array_equal(second.output("render").read("frames"), before)


def test_what_is_delivered_is_made_again_when_it_is_lost(again: Run, arguments: Arguments) -> None:
    for stage, folder in (("encode", "files"), ("measure", "files"), ("measure", "notes")):
        for path in sorted((again.store / again.output(stage).path / folder).glob("[rme]*")):
            path.unlink()
            second = repeat(again, arguments)
            assert second.computed() == {stage: 1}, path.name
            assert (second.out / "reenactment.mp4").is_file()
            assert (second.out / "expression.png").is_file()


def test_a_lost_generator_is_tuned_again_to_the_same_result(again: Run, arguments: Arguments) -> None:
    output = again.output("render")
    before = output.read("frames")
    next((again.store / again.output("tuning").path / "files").glob("tuned_generator*")).unlink()
    output.uncommit()
    second = repeat(again, arguments)
    assert second.computed() == {"tuning": 1, "render": FRAMES}
    np.testing.assert_array_equal(second.output("render").read("frames"), before)


def test_a_lost_shape_of_the_clip_is_fitted_again(again: Run, arguments: Arguments) -> None:
    (chunk,) = (again.store / again.output("fit").path / "shape").glob("c.*")
    chunk.unlink()
    again.output("retarget").uncommit()
    second = repeat(again, arguments)
    assert second.computed() == {"fit": 1, "retarget": 1}
