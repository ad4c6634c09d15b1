"""The profile ``paper`` from official files to a clip, at few steps.

The networks have their full shapes and seeded weights, so the whole path is run and nothing is said of faces;
EG3D's file and FLAME's mesh are small.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.outcome import OK, PARTIAL
from portrait_core.cameras import offsets_from_labels
from portrait_core.face_model.directions import direction_names
from portrait_core.media import probe
from portrait_core.store import Output
from tests import official_files
from tests.flows.conftest import FRAMES, stage_output

FEW = (
    "template.size=128",
    "template.supersample=1",
    "generator.neural_resolution=16",
    "generator.samples=6",
    "generator.importance_samples=6",
    "inversion.first_steps=2",
    "inversion.steps=2",
    "tuning.steps=2",
    "tuning.patch=16",
    "render.neural_resolution=16",
    "render.samples=6",
    "render.importance_samples=6",
    "runner.frames_per_task=4",
    "runner.prefect=never",
    "device=cpu",
)
"""Of the profile, what makes it long."""


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with every file under its official name."""
    folder = tmp_path_factory.mktemp("official")
    official_files.write_paper(folder, official_files.QUIET)
    return folder


@pytest.fixture
def models(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTRAIT_MODELS", str(official))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return official


def reenact(portrait: Path, driver: Path, folder: Path, *changes: str) -> dict[str, Any]:
    settings = [part for change in (*FEW, *changes) for part in ("--set", change)]
    places = ["--portrait", portrait, "--video", driver, "--store", folder / "store", "--out", folder / "out"]
    result = CliRunner().invoke(app, ["reenact", "--profile", "paper", *map(str, places), *settings])
    assert result.exit_code == PARTIAL, result.output  # the driver's third frame shows no face
    return json.loads((folder / "out" / "summary.json").read_text())


@pytest.mark.slow
def test_from_official_files_to_a_clip(models: Path, portrait: Path, driver: Path, tmp_path: Path) -> None:
    summary = reenact(portrait, driver, tmp_path)
    assert summary["profile"] == "paper"
    done = {stage["stage"]: stage["frames_done"] for stage in summary["stages"]}
    assert done["template"] == done["render"] == FRAMES
    assert done["inversion"] == FRAMES
    assert probe(str(tmp_path / "out" / "reenactment.mp4")).frame_count == FRAMES
    assert (tmp_path / "out" / "side_by_side.mp4").stat().st_size > 0
    motion = summary["motion"]
    assert "fit" not in motion["follow"]  # FLAME has other landmarks; the embedded head reads the pictures
    assert all(0.4 < width < 0.8 for width in motion["regions"]["driver"]["mouth width"] if width is not None)
    assert (tmp_path / "out" / "expression.png").is_file()
    job = _outputs(summary)
    track = {name: job["fit"].read(name) for name in ("expression", "jaw", "cameras", "ok")}
    assert track["expression"].shape == (FRAMES, 50)
    assert job["portrait"].read("shape").shape == (1, 100)
    assert job["portrait"].read("crop").shape == (1, 128, 128, 3)
    assert np.abs(offsets_from_labels(track["cameras"])).max() > 1e-3  # EG3D's cameras look past the origin
    assert track["ok"].tolist() == [True, True, True, False, True, True]
    assert np.array_equal(track["expression"][3], track["expression"][2])  # shows its neighbour
    assert not np.array_equal(track["expression"][1], track["expression"][2])
    moves = job["retarget"].read("expression"), job["retarget"].read("jaw")
    assert np.array_equal(moves[0], track["expression"])  # the paper's transfer: the driver's as they are
    assert np.array_equal(moves[1], track["jaw"])
    masks = {name: job["template"].read(name) for name in ("face_mask", "mouth_mask")}
    face = masks["face_mask"] > 250
    assert face.mean() > 0.05
    drawn, crop = job["template"].read("template"), job["portrait"].read("crop")
    # codes of a few hundredths: the head that carries the portrait's pixels hardly moves
    assert np.abs(drawn.astype(int) - crop)[face].mean() < 8
    assert not np.array_equal(drawn[1], drawn[2])
    driven = reenact(portrait, driver, tmp_path, "template.eyes=driven")
    done = {stage["stage"]: stage["frames_done"] for stage in driven["stages"]}
    assert done["portrait"] == done["landmarks"] == done["fit"] == 0  # tracked already
    assert done["template"] == FRAMES
    eyes = _outputs(driven)["retarget"].read("eyes")
    assert eyes.shape == (FRAMES, 52 + len(direction_names()))
    assert np.ptp(eyes, axis=0).max() > 0.02  # the driver's lids and gaze move
    again = reenact(portrait, driver, tmp_path, "template.eyes=driven")
    assert sum(stage["frames_done"] for stage in again["stages"]) == 0


@pytest.mark.slow
def test_the_papers_tables_from_official_files(
    models: Path, portrait: Path, driver: Path, tmp_path: Path
) -> None:
    """Every network that the paper reads with, of its full shape and with random weights."""
    official_files.write_inception(models / "pt_inception-2015-12-05-6726825d.pth")
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(driver, videos / "first.mp4")
    # the same frames in another file: an empty atom follows them
    (videos / "second.mp4").write_bytes(driver.read_bytes() + b"\0\0\0\x08free")
    places = ["--portraits", portrait, "--videos", videos, "--store", tmp_path / "store", "--out", tmp_path]
    settings = [part for change in FEW for part in ("--set", change)]
    line = ["evaluate", "--profile", "paper", "--method", "3D GAN", *map(str, places), *settings]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == OK, result.output
    rows = pd.read_parquet(tmp_path / "summary.parquet").set_index("variant")
    assert math.isfinite(rows.loc["FID, pytorch-fid", "value"])
    names = set(rows.index)
    assert "APD, Deep3DFaceRecon, 3 angles, root mean square" in names
    assert "AED, DECA, 50 expression coefficients, root mean square" in names
    assert any("ArcFace w600k_r50" in name for name in names)
    assert "(paper 31.176)" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_at_the_published_size(
    portrait: Path, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile's own sizes and EG3D's own architecture, 512 pixels, on two frames at one step each."""
    official_files.write_paper(tmp_path / "models", official_files.QUIET, ffhq=True)
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one = ("inversion.first_steps=1", "inversion.steps=1", "tuning.steps=1", "media.max_frames=2")
    command = ["reenact", "--profile", "paper", "--portrait", portrait, "--video", driver]
    command += ["--store", tmp_path / "store", "--out", tmp_path / "out"]
    settings = [part for change in (*one, "runner.prefect=never") for part in ("--set", change)]
    result = CliRunner().invoke(app, [*map(str, command), *settings])
    assert result.exit_code == OK, result.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    job = _outputs(summary)
    assert job["render"].read("frames").shape == (2, 512, 512, 3)
    assert job["inversion"].read("latents").shape == (2, 1, 512)  # one vector for 14 layers
    assert job["portrait"].read("crop", 0, 1).shape == (1, 512, 512, 3)
    print(json.dumps(summary["stages"], indent=1), f"{summary['peak_memory_bytes'] / 2**20:.0f} MiB")


def _outputs(summary: dict[str, Any]) -> dict[str, Output]:
    return {
        stage: stage_output(summary["store"], stage, key)
        for stage, key in summary["keys"].items()
        if stage not in ("encode", "measure")  # frames that are missing would be in their keys
    }
