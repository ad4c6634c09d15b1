"""The benchmark of likeness (``tests/benchmarks/likeness.py``) runs, and compares what belongs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer

from portrait_core.media import probe, read_frames, read_image
from portrait_core.metrics.likeness import psnr_db
from tasks.stages.encode import CLIP
from tests.benchmarks.likeness import (
    PHI,
    RESULT,
    STILL,
    TEMPLATE,
    Comparison,
    Ruler,
    cut_clip,
    measure_clip,
    parse_variant,
    results_of,
    run,
    write_clip,
)

QUICK = (
    "device=cpu",
    "inversion.first_steps=1",
    "tuning.steps=1",
    "render.calibration_frames=0",
    "render.samples=4",
    "render.importance_samples=4",
    "runner.workers=1",
)
FRAMES = 6


def test_variants_are_split_at_settings_and_not_within_their_values() -> None:
    name, changes = parse_variant("still:render.pose_transfer=none,output.crf=3")
    assert (name, changes) == ("still", ["render.pose_transfer=none", "output.crf=3"])
    assert parse_variant("b:tuning.adam_betas=[0.9,0.99],output.crf=3")[1] == [
        "tuning.adam_betas=[0.9,0.99]",
        "output.crf=3",
    ]
    for wrong in ("x", "x:", ":output.crf=3", "x:output.crf", f"{RESULT}:output.crf=3"):
        with pytest.raises(typer.BadParameter):
            parse_variant(wrong)


def test_a_cut_begins_where_it_is_asked_and_its_first_frame_is_the_portrait(
    tmp_path: Path, carphone: Path
) -> None:
    whole, later = (cut_clip(f"{carphone}{at}", 70, tmp_path / at[1:]) for at in (":0", ":60"))
    assert (len(whole.frames), len(later.frames)) == (70, 60)
    assert whole.video == carphone
    assert probe(later.video).frame_rate == probe(carphone).frame_rate
    true = whole.frames[60][:, :192]  # a clip that is written has even sides
    first, second = (frame[:, :192] for frame in later.frames[:2])
    everywhere = np.ones(true.shape[:2], bool)
    assert psnr_db(first, true, everywhere) > 40 > psnr_db(second, true, everywhere)
    for cut in (whole, later):
        np.testing.assert_array_equal(read_image(cut.portrait), cut.frames[0])
    with pytest.raises(typer.BadParameter, match="frames"):
        cut_clip(f"{carphone}:119", 10, tmp_path / "short")


def _travel(faces: list[np.ndarray]) -> float:
    """How far the middle of a face goes from the first frame to the last, in pixels."""
    first, last = (np.argwhere(face).mean(0) for face in (faces[0], faces[-1]))
    return float(np.linalg.norm(last - first))


@pytest.mark.slow
def test_the_truth_itself_is_without_error_and_every_row_is_measured(tmp_path: Path, carphone: Path) -> None:
    source = tmp_path / "hurried.mp4"  # the head travels far in few frames
    write_clip(source, list(read_frames(carphone))[60::7], probe(carphone).frame_rate)
    cut = cut_clip(str(source), FRAMES, tmp_path / "cut")
    store, out = str(tmp_path / "store"), tmp_path / "out"
    job = run(cut, store, out, QUICK, "embedded")
    comparison, ruler = Comparison(cut, job, 0), Ruler()
    truth = ruler.row(comparison.truths, comparison)
    assert truth["face PSNR"] == truth["crop PSNR"] == float("inf")
    assert truth[f"crop {PHI}"] == pytest.approx(0, abs=1e-5)
    assert truth["flicker"] == 0

    # A perfect result, as a clip of the crop and as one of the whole photograph, loses to its encoding alone.
    perfect = tmp_path / "perfect"
    perfect.mkdir()
    write_clip(perfect / CLIP, comparison.truths, probe(carphone).frame_rate)
    crops = ruler.row(list(results_of(job, perfect, comparison)), comparison)
    whole = ruler.row([comparison.of_photograph(frame) for frame in cut.frames], comparison)
    assert whole["crop PSNR"] > crops["crop PSNR"] > 36

    following = Comparison(cut, job, 0, follow_face=True)
    np.testing.assert_array_equal(following.truths[0], comparison.truths[0])
    assert _travel(following.faces) < 0.5 * _travel(comparison.faces)

    found = measure_clip(cut, ruler, lambda row: (job, out), [RESULT])
    assert list(found["rows"]) == [STILL, TEMPLATE, RESULT]
    assert found["frames"] == FRAMES
    for row in found["rows"].values():
        assert np.isfinite(list(row.values())).all()
        assert row["face PSNR"] < crops["face PSNR"]
    assert found["rows"][STILL][f"face {PHI}"] > 0.05
