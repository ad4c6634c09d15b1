"""The stage ``measure`` on a clip that shows its templates: what the face does at every stage."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tasks.expressions
from portrait_core.inputs.known import local_digest
from portrait_core.media import VideoWriter, read_frames, read_image
from portrait_core.metrics.reader_slopes import NOISE, WARPED
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import Ledger
from portrait_core.runtime.model_cache import forget_models
from portrait_core.runtime.package_files import sample_portrait
from portrait_core.settings import load_settings
from portrait_core.store import Output
from portrait_core.tracking.landmarker import FaceLandmarker
from tasks.context import FrameArrays, landmarker, track_arrays
from tasks.expressions import expression_rows, measured_clip, measured_stages, seen_driver
from tasks.stages.fit import fit
from tasks.stages.measure import EXPRESSION, MOTION, measure
from tasks.stages.pose import CAMERAS
from tasks.stages.retarget import retarget
from tasks.stages.template import template
from tasks.trackers import tracker
from tests.simulation.stub import stub_job

FRAMES, SIZE = 12, 128
WITHOUT_FACE = 5


@pytest.fixture(scope="module", autouse=True)
def _empty_cache() -> Iterator[None]:
    forget_models()
    yield
    forget_models()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, carphone: Path) -> Job:
    """A video of frames spread over the sample video (lips are closed in one), tracked; the sample
    portrait's templates, which are also what the clip shows; frame ``WITHOUT_FACE`` of the driver has no
    face."""
    small = [f"template.size={SIZE}", "template.supersample=1", "device=cpu"]
    plain = ["render.detail=off", "render.motion=camera", "output.frame=crop"]
    settings = load_settings("embedded", small + plain)
    made = stub_job(str(tmp_path_factory.mktemp("store")), "clip", FRAMES, settings)
    video = tmp_path_factory.mktemp("video") / "driver.mp4"
    some = list(read_frames(carphone))[8 :: 120 // FRAMES]
    with VideoWriter(video, (some[0].shape[1], some[0].shape[0]), made.rate, crf=4) as writer:
        for frame in some:
            writer.write(frame)
    inputs = made.inputs | {"video": local_digest(video)}
    made = made.model_copy(update={"video": str(video), "inputs": inputs})
    model, image = landmarker(made, 1), read_image(sample_portrait())
    own = model.detect(image[None]).points
    tracked = tracker(made).portrait(image, own, SIZE)
    arrays = track_arrays(tracked.track) | {"landmarks": own, "crop": tracked.crop[None]}
    _write(made.output("portrait"), arrays)
    film = np.stack(list(read_frames(video)))
    points = model.detect(film).points
    points[WITHOUT_FACE] = np.nan
    still = {"cut": np.zeros(FRAMES, bool), "turn": np.zeros(1, np.int64)}
    _write(made.output("person"), {"landmarks": points} | still)
    fit(job=made)
    retarget(job=made)
    template(job=made, start=0, stop=FRAMES)
    pictures, masks = (made.output("template").read(name) for name in ("template", "face_mask"))
    shown = dict.fromkeys(made.declared("render").per_frame, pictures)
    shown |= {"render_mask": masks, "render_depth": np.full(masks.shape, 2.7, np.float32)}
    FrameArrays(made, "render").keep(0, shown)
    cameras = io.BytesIO()
    np.save(cameras, np.repeat(tracked.track.cameras, FRAMES, axis=0))
    made.output("pose").put_bytes(CAMERAS, cameras.getvalue())
    made.output("pose").commit()
    return made


def _write(output: Output, arrays: dict[str, Any]) -> None:
    output.write_whole(arrays)
    output.commit()


@pytest.fixture(scope="module")
def said(job: Job) -> dict[str, Any]:
    """What the stage measured."""
    assert measure(job=job).frames_done == 1
    found = Ledger(job).output("measure").read_note(MOTION)
    assert isinstance(found, dict)
    return found


def test_every_stage_says_how_every_region_follows(said: dict[str, Any]) -> None:
    found = said["follow"]
    assert found.keys() == {"fit", "retargeted", "template", "result"}
    moving = set(found["fit"])
    assert {"lip gap", "mouth width"} <= moving
    assert set(found["retargeted"]) == moving
    # neither of the two has a picture whose colours could be read
    assert all(set(found[stage]) - moving == {"mouth open"} for stage in ("template", "result"))
    assert found["template"]["mouth open"]["correlation"] > 0.7
    assert found["fit"]["lip gap"]["slope"] == pytest.approx(1, abs=0.2)
    assert all(rows["lip gap"]["correlation"] > 0.8 for rows in found.values())
    assert found["result"] == found["template"]  # the clip shows its templates
    assert found["result"] != found["retargeted"]


def test_a_reader_is_charged_with_what_it_loses_where_it_read_painted_pictures(said: dict[str, Any]) -> None:
    for stage, rows in said["follow"].items():
        for region, row in rows.items():
            wanted = round(WARPED[region], 4) if stage in ("template", "result") else None
            assert row["reader_slope"] == wanted
            assert (row["highest_correlation"] < 1) == (wanted is not None and region in NOISE)


def test_lips_that_close_are_counted(said: dict[str, Any]) -> None:
    driver, result = (said["regions"][who]["mouth open"] for who in ("driver", "result"))
    closed = said["lips_closed"]
    gap = said["regions"]["driver"]["lip gap"]
    pairs = zip(driver, gap, result, strict=True)
    shown = [last for height, apart, last in pairs if height is not None and height < 0.01 and apart < 0.03]
    assert 0 < len(shown) < FRAMES
    assert closed == {"driver_frames": len(shown), "result_frames": sum(last < 0.01 for last in shown)}


def test_another_reader_is_asked_of_driver_and_result(
    said: dict[str, Any], job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = said["follow_plain_reader"]["result"]
    assert said["follow_plain_reader"].keys() == {"result"}
    assert plain["lip gap"]["correlation"] > 0.8
    assert plain["lip gap"]["reader_slope"] is None
    assert plain["lip gap"]["slope"] != said["follow"]["result"]["lip gap"]["slope"]
    asked: list[tuple[bool, int]] = []
    true = tasks.expressions.read_landmarks

    def counted(model: FaceLandmarker, pictures: Iterable[NDArray[np.uint8]], batch: int) -> Any:
        points = true(model, pictures, batch)
        asked.append((model is landmarker(job, 1, refine=False), len(points)))
        return points

    monkeypatch.setattr(tasks.expressions, "read_landmarks", counted)
    monkeypatch.setattr(tasks.expressions, "PLAIN_READ", 4)
    rows = expression_rows(job, seen_driver(job), 1)  # the driver follows itself
    assert asked == [(False, FRAMES), (True, 4), (True, 4)]
    assert all(row["slope"] == pytest.approx(1) for row in rows["follow_plain_reader"]["result"].values())
    assert rows["lips_closed"]["driver_frames"] == rows["lips_closed"]["result_frames"]


def test_without_a_face_in_the_clip_there_is_nothing_to_read_again(job: Job) -> None:
    rows = expression_rows(job, None, 1)
    assert rows["follow_plain_reader"] == {}
    assert rows["lips_closed"] == {"driver_frames": 0, "result_frames": 0}
    assert "mouth open" in rows["regions"]["driver"]


def test_the_curves_have_a_value_per_frame(said: dict[str, Any]) -> None:
    assert said["regions"].keys() == {"driver", "result"}
    for who, curves in said["regions"].items():
        for curve in curves.values():
            gaps = [frame for frame, value in enumerate(curve) if value is None]
            assert (len(curve), gaps) == (FRAMES, [WITHOUT_FACE] if who == "driver" else [])
        assert {"mouth open", "teeth shown", "lip gap"} <= curves.keys()


def test_what_was_measured_before_is_still_there(said: dict[str, Any]) -> None:
    assert said["faces_found"] == FRAMES
    assert said["result"]["lip_correlation"] > 0.8
    assert said["still_portrait"]["lip_correlation"] == 0.0


def test_the_picture_is_part_of_what_the_stage_makes(said: dict[str, Any], job: Job) -> None:
    output = Ledger(job).output("measure")
    assert (output.get_bytes(EXPRESSION) or b"")[:4] == b"\x89PNG"
    assert Ledger(job).done_frames("measure").all()
    assert measure(job=job).frames_done == 0
    output.drop_file(EXPRESSION)
    assert not Ledger(job).done_frames("measure").any()


def test_a_part_of_the_templates_is_read(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.expressions, "TEMPLATES_READ", 4)
    found = measured_stages(job, None, 1)
    assert found["template"].frames.tolist() == [0, 4, 7, 11]
    assert "result" not in found
    whole = measured_clip(job, seen_driver(job)).regions["lip gap"][found["template"].frames]
    assert np.corrcoef(found["template"].regions["lip gap"], whole)[0, 1] > 0.8


def test_the_driver_is_measured_at_the_depth_of_its_fit(job: Job) -> None:
    driver, fit = measured_clip(job, seen_driver(job)), measured_stages(job, None, 1)["fit"]
    seen = np.isfinite(driver.regions["lip gap"])
    assert np.flatnonzero(~seen).tolist() == [WITHOUT_FACE]
    off = np.abs(driver.regions["lip gap"] - fit.regions["lip gap"])[seen]
    assert off.max() < 0.05
