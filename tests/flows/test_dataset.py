"""A small dataset: shared inputs, a clip that fails, resume, plan, clean as it goes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.main import app
from portrait_core.store import Store
from tests.flows.conftest import FRAMES, markers

COLUMNS = "portrait,video,name,licence,consent\n"


def call(*arguments: str | Path) -> Result:
    """The command line in this process, wide."""
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, portrait: Path, driver: Path) -> Path:
    """Two portraits of one face, one of nothing, and a manifest of three rows that share a video."""
    folder = tmp_path_factory.mktemp("dataset")
    image = Image.open(portrait)
    image.save(folder / "left.png")
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "right.png")
    Image.fromarray(np.full((256, 256, 3), 90, np.uint8)).save(folder / "nobody.png")
    rows = [f"{name}.png,{driver},{name},CC0,form 7\n" for name in ("left", "nobody", "right")]
    (folder / "manifest.csv").write_text(COLUMNS + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def settings(small: list[str]) -> list[str]:
    return [part for change in small for part in ("--set", change)]


@pytest.fixture(scope="module")
def first(folder: Path, settings: list[str]) -> Result:
    places: list[str | Path] = ["--store", folder / "store", "--out", folder / "out", "--keep", "pictures"]
    return call("dataset", "run", folder / "manifest.csv", *places, *settings)


@pytest.mark.timeout(900)
def test_one_clip_that_fails_stops_no_other(first: Result, folder: Path) -> None:
    assert first.exit_code == 1, first.output
    assert "1 failed, 2 held" in first.output  # the driver has a frame without a face
    assert "row 3, nobody: failed: input: no human face was found" in first.output
    for name in ("left", "right"):
        said = json.loads((folder / "out" / name / "summary.json").read_text())
        assert said["frames"] == FRAMES
        assert (folder / "out" / name / "reenactment.mp4").is_file()
    assert not (folder / "out" / "nobody").exists()


def test_a_shared_video_is_tracked_once(first: Result, folder: Path) -> None:
    store = Store(folder / "store")
    assert len(store.units("video")) == 1
    assert len(store.units("reenactment")) == 3
    (name,) = store.units("video")
    # one row a frame without a face, not one a clip
    assert store.unit("video", name).failures()["frame"].tolist() == [3]


def test_finished_clips_lost_their_pictures_as_asked(first: Result, folder: Path) -> None:
    store = Store(folder / "store")
    for name in store.units("reenactment"):
        outputs = {output.stage: output for output in store.unit("reenactment", name).outputs()}
        if outputs:  # the portrait without a face got no further
            assert outputs["render"].array_info("render") is None
            assert outputs["inversion"].array_info("latents") is not None


def test_the_same_command_makes_nothing_again(first: Result, folder: Path, settings: list[str]) -> None:
    before = markers(folder / "store")
    places: list[str | Path] = ["--store", folder / "store", "--out", folder / "out", "--keep", "pictures"]
    again = call("dataset", "run", folder / "manifest.csv", *places, *settings)
    assert again.exit_code == 1
    assert "1 aside, 2 held" in again.output  # a portrait without a face is not looked at again
    assert markers(folder / "store") == before


def test_plan_counts_shared_work_once(
    first: Result, folder: Path, settings: list[str], tmp_path: Path
) -> None:
    places: list[str | Path] = ["--store", folder / "store"]
    done = call("dataset", "plan", folder / "manifest.csv", *places, *settings)
    assert "3 clips (1 begun, 2 done)" in done.output
    new = call(
        "dataset", "plan", folder / "manifest.csv", *places, *settings, "--set", "tracking.iterations=9"
    )
    (landmarks,) = [line for line in new.output.splitlines() if line.startswith("fit head")]
    assert landmarks.split()[2:4] == ["1", "1"], "one video, whatever it drives"
    empty = call("dataset", "plan", folder / "manifest.csv", "--store", tmp_path, *settings)
    assert "have no history" in empty.output


def test_shards_take_every_row_once(first: Result, folder: Path, settings: list[str]) -> None:
    said = [
        call(
            "dataset",
            "plan",
            folder / "manifest.csv",
            "--store",
            folder / "s2",
            "--shard",
            f"{i}/2",
            *settings,
        )
        for i in range(2)
    ]
    counts = [int(line.split()[0]) for r in said for line in r.output.splitlines() if " clips (" in line]
    assert sum(counts) == 3
    wrong = call("dataset", "plan", folder / "manifest.csv", "--store", folder, "--shard", "2/2")
    assert wrong.exit_code == 2


def test_a_bad_row_stops_everything_before_any_work(tmp_path: Path, folder: Path) -> None:
    text = (folder / "manifest.csv").read_text() + "gone.png,gone.mp4,x,CC0,form 8\n"
    (tmp_path / "manifest.csv").write_text(text.replace("left.png", str(folder / "left.png")))
    ended = call("dataset", "run", tmp_path / "manifest.csv", "--store", tmp_path / "store")
    assert ended.exit_code == 2
    assert not (tmp_path / "store").exists()
    assert "gone.png" in ended.output


@pytest.mark.slow
def test_rows_that_differ_in_overrides_are_clips_of_their_own(
    first: Result, folder: Path, driver: Path, settings: list[str], tmp_path: Path
) -> None:
    columns = "portrait,video,name,overrides,licence,consent\n"
    rows = [
        f"{folder / 'left.png'},{driver},{name},{change},CC0,form 7\n"
        for name, change in (("sharp", "composite.feather_px=1"), ("soft", "composite.feather_px=6"))
    ]
    (tmp_path / "manifest.csv").write_text(columns + "".join(rows))
    command: list[str | Path] = ["dataset", "run", tmp_path / "manifest.csv", "--store", folder / "store"]
    command += ["--out", tmp_path / "out", *settings]
    made = call(*command)
    assert "2 held" in made.output, made.output
    clips = [(tmp_path / "out" / name / "reenactment.mp4").read_bytes() for name in ("sharp", "soft")]
    assert clips[0] != clips[1]
    before = markers(folder / "store")
    again = call(*command)
    assert "2 held" in again.output
    assert markers(folder / "store") == before, "the rows took each other's place"
    assert {"sharp", "soft"} <= set(call("status", folder / "store").output.split())
    tuned = [name for name in before if "/tuning." in name]
    assert len(tuned) == 2, "what both rows share was made once, of each portrait"


def test_a_row_says_nothing_of_the_runner(tmp_path: Path, folder: Path, driver: Path) -> None:
    columns = "portrait,video,overrides,licence,consent\n"
    row = f"{folder / 'left.png'},{driver},runner.kind=local_cluster,CC0,form 7\n"
    (tmp_path / "manifest.csv").write_text(columns + row)
    refused = call("dataset", "run", tmp_path / "manifest.csv", "--store", tmp_path / "store")
    assert refused.exit_code == 2
    assert "may not stand in a row" in refused.output
