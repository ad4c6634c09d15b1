"""The stage ``measure`` on a clip that shows its templates: what the face does at every stage."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks.expressions
from portrait_core.config import load_settings
from portrait_core.media import read_frames, read_image
from portrait_core.models.cache import forget_models
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import Ledger
from portrait_core.resources import sample_portrait
from portrait_core.store import Output
from tasks.context import FrameArrays, landmarker, track_arrays
from tasks.expressions import measured_driver, measured_stages
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
    """Frames spread over the sample video, tracked; the sample portrait's templates, which are also what the
    clip shows; frame ``WITHOUT_FACE`` of the driver has no face."""
    settings = load_settings("embedded", [f"template.size={SIZE}", "template.supersample=1", "device=cpu"])
    made = stub_job(str(tmp_path_factory.mktemp("store")), "clip", FRAMES, settings)
    model, image = landmarker(made, 1), read_image(sample_portrait())
    own = model.detect(image[None]).points
    tracked = tracker(made).portrait(image, own, SIZE)
    arrays = track_arrays(tracked.track) | {"landmarks": own, "crop": tracked.crop[None]}
    _write(made.output("portrait"), arrays)
    film = np.stack(list(read_frames(carphone)))[:: 120 // FRAMES]
    points = model.detect(film).points
    points[WITHOUT_FACE] = np.nan
    FrameArrays(made, "landmarks").keep(0, {"landmarks": points})
    ok = np.arange(FRAMES) != WITHOUT_FACE
    _write(made.output("fit"), track_arrays(tracker(made).clip(points, ok, lambda: film)))
    retarget(job=made)
    template(job=made, start=0, stop=FRAMES)
    pictures, masks = (made.output("template").read(name) for name in ("template", "face_mask"))
    shown = {name: pictures for name in made.declared("render").per_frame}
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
    assert all(set(rows) == moving for rows in found.values())
    assert found["fit"]["lip gap"]["slope"] == pytest.approx(1, abs=0.2)
    assert all(rows["lip gap"]["correlation"] > 0.8 for rows in found.values())
    assert found["result"] == found["template"]  # the clip shows its templates
    assert found["result"] != found["retargeted"]


def test_the_curves_have_a_value_per_frame(said: dict[str, Any]) -> None:
    assert said["regions"].keys() == {"driver", "result"}
    for who, curves in said["regions"].items():
        for curve in curves.values():
            gaps = [frame for frame, value in enumerate(curve) if value is None]
            assert (len(curve), gaps) == (FRAMES, [WITHOUT_FACE] if who == "driver" else [])


def test_what_was_measured_before_is_still_there(said: dict[str, Any]) -> None:
    assert said["faces_found"] == FRAMES
    assert said["result"]["lip_correlation"] > 0.8
    assert said["still_portrait"]["lip_correlation"] == 0.0


def test_the_picture_is_part_of_what_the_stage_makes(said: dict[str, Any], job: Job) -> None:
    output = Ledger(job).output("measure")
    assert output.get_bytes(EXPRESSION)[:4] == b"\x89PNG"
    assert Ledger(job).done("measure").all()
    assert measure(job=job).frames_done == 0
    output.drop_file(EXPRESSION)
    assert not Ledger(job).done("measure").any()


def test_a_part_of_the_templates_is_read(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.expressions, "TEMPLATES_READ", 4)
    found = measured_stages(job, None, 1)
    assert found["template"].frames.tolist() == [0, 4, 7, 11]
    assert "result" not in found
    whole = measured_driver(job).regions["lip gap"][found["template"].frames]
    assert np.corrcoef(found["template"].regions["lip gap"], whole)[0, 1] > 0.8


def test_the_driver_is_measured_at_the_depth_of_its_fit(job: Job) -> None:
    driver, fit = measured_driver(job), measured_stages(job, None, 1)["fit"]
    seen = np.isfinite(driver.regions["lip gap"])
    assert np.flatnonzero(~seen).tolist() == [WITHOUT_FACE]
    off = np.abs(driver.regions["lip gap"] - fit.regions["lip gap"])[seen]
    assert off.max() < 0.05
