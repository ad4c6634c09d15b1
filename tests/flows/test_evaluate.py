"""Evaluations: methods on pairs, assessed and put into tables; resumed, partial, and of true frames."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, OK, PARTIAL
from portrait_core.store import Store
from tests import official_files
from tests.conftest import FfmpegRunner
from tests.flows.test_interruption import _start, _wait_until

FILES = ("report.md", "summary.parquet", "clips.parquet", "plot.png", "sheet.png")
METHODS = ("references", "3D GAN", "3D GAN (w/o pose)")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, ffmpeg_to: FfmpegRunner, carphone: Path) -> Path:
    """A folder of two drivers of four frames."""
    folder = tmp_path_factory.mktemp("videos")
    for name, start in (("first", 0), ("second", 2)):
        options = ("-ss", start, "-i", carphone, "-frames:v", 4, "-c:v", "libx264", "-crf", 10)
        shutil.copy(ffmpeg_to(f"evaluated-{name}.mp4", *map(str, options)), folder / f"{name}.mp4")
    return folder


Arguments = Callable[..., list[str]]


@pytest.fixture(scope="module")
def command(portrait: Path, videos: Path, small: list[str]) -> Arguments:
    """``command(folder, *options)``: the command line of a small evaluation."""

    def make(folder: Path, *options: str, methods: tuple[str, ...] = METHODS) -> list[str]:
        changes = [part for change in (*small, "evaluation.resamples=50") for part in ("--set", change)]
        named = [part for method in methods for part in ("--method", method)]
        places = ["--store", folder / "store", "--out", folder / "out"]
        inputs = ["--videos", videos] if "self" in options else ["--portraits", portrait, "--videos", videos]
        return ["evaluate", *map(str, (*places, *inputs)), *named, *changes, *options]

    return make


@dataclass(frozen=True)
class Evaluated:
    """One call of the command line."""

    result: Result
    out: Path

    @property
    def report(self) -> str:
        return (self.out / "report.md").read_text()

    def content(self) -> dict[str, bytes]:
        return {name: (self.out / name).read_bytes() for name in FILES}


def call(line: list[str], folder: Path) -> Evaluated:
    return Evaluated(CliRunner().invoke(app, line), folder / "out")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, command: Arguments) -> Evaluated:
    folder = tmp_path_factory.mktemp("evaluated")
    return call(command(folder), folder)


@pytest.mark.slow
@pytest.mark.each_change
def test_tables_have_every_method_with_every_pair(first: Evaluated) -> None:
    assert first.result.exit_code == OK, first.result.output
    clips = pd.read_parquet(first.out / "clips.parquet")
    names = ["pasted template", "still photograph", "3D GAN", "3D GAN (w/o pose)"]
    assert list(clips["method"].unique()) == names
    assert (clips.groupby("method")["pair"].nunique() == 2).all()
    summary = pd.read_parquet(first.out / "summary.parquet").set_index(["method", "column"])
    still = summary.loc["still photograph"]
    assert still.loc["Fréchet", "value"] == pytest.approx(0, abs=1e-6)
    assert still.loc["ID of the source", "value"] > 0.9, "of the photograph and its small crop"
    assert summary.loc[("still photograph", "ID of the source"), "clips"] == 2
    assert ("3D GAN", "ID") in summary.index
    assert ("3D GAN (w/o pose)", "ID") not in summary.index, "the paper leaves ID out without pose"
    assert "| 3D GAN |" in first.report
    assert "not FID" in first.report
    assert "FID of" not in first.report


@pytest.mark.slow
@pytest.mark.each_change
@pytest.mark.parametrize("method", ["3D GAN (w/o pose)", "pasted template", "still photograph"])
def test_a_clip_is_assessed_in_the_crop_of_its_portrait(first: Evaluated, method: str) -> None:
    store = Store(first.out.parent / "store")
    (plan,) = store.read_records("plans").values()
    for member in (one for one in plan["members"] if one["method"] == method):
        output = store.unit("reenactment", member["unit"]).output("assess", member["key"])
        source, *frames = output.read("strip").astype(float)
        border = np.ones(source.shape[:2], bool)
        border[20:-20, 20:-20] = False  # where nothing moves while the pose is the portrait's own
        for frame in frames:
            assert np.abs(frame - source)[border].mean() < 6


@pytest.mark.slow
@pytest.mark.each_change
def test_a_second_run_computes_nothing_and_one_with_more_methods_keeps_the_rest(
    first: Evaluated, command: Arguments, tmp_path: Path
) -> None:
    folder = first.out.parent
    shutil.copytree(folder / "store", tmp_path / "store")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").glob("reenactment/*/*/done/*")}
    again = call(command(tmp_path), tmp_path)
    assert again.content() == first.content()
    more = call(command(tmp_path, methods=(*METHODS, "w/o compositing")), tmp_path)
    assert more.result.exit_code == OK, more.result.output
    assert "| w/o compositing |" in more.report
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_evaluation_killed_while_clips_are_made_ends_with_the_same_tables(
    first: Evaluated, command: Arguments, tmp_path: Path
) -> None:
    log, line = tmp_path / "log.txt", command(tmp_path)
    for stage in ("animate", "inversion", "assess"):
        process = _start(line, log)
        marks = f"reenactment/*/{stage}.*/done/*"
        _wait_until(process, partial(_any, tmp_path / "store", marks), log)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert not (tmp_path / "out" / "report.md").exists(), "it was over before it was killed"
    resumed = call(line, tmp_path)
    assert resumed.result.exit_code == OK, resumed.result.output
    assert resumed.content() == first.content()


def _any(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


@pytest.mark.slow
def test_clips_that_cannot_be_made_are_named_and_stop_no_other(command: Arguments, tmp_path: Path) -> None:
    line = command(tmp_path, methods=("references",))
    place = line.index("--videos") + 1
    broken = tmp_path / "videos"
    shutil.copytree(line[place], broken)
    (broken / "second.mp4").write_bytes(b"no video")
    made = call([*line[:place], str(broken), *line[place + 1 :]], tmp_path)
    assert made.result.exit_code == PARTIAL, made.result.output
    assert "missing: pair" in made.result.output
    assert "## Clips that are missing" in made.report
    assert "second.mp4" in made.report
    clips = pd.read_parquet(made.out / "clips.parquet")
    assert set(clips["method"]) == {"pasted template", "still photograph"}
    assert clips["pair"].nunique() == 1


@pytest.mark.slow
def test_self_reenactment_compares_with_the_true_frames(
    command: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    official_files.write_alexnet(tmp_path / "models" / "alexnet-owt-7be5be79.pth")
    options = ("--protocol", "self", "--set", "evaluation.lpips=[alexnet]")
    made = call(command(tmp_path, *options, methods=("references",)), tmp_path)
    assert made.result.exit_code == OK, made.result.output
    summary = pd.read_parquet(made.out / "summary.parquet")
    still = summary[summary["method"] == "still photograph"].set_index("column")
    assert 15 < still.loc["PSNR", "value"] < 60
    assert still.loc["CSIM", "value"] > 0.8
    assert still.loc["AKD", "value"] > 0
    assert "LPIPS, AlexNet, version 0.1" in set(summary["variant"])
    assert "Self-reenactment: distances from the true frames" in made.report


def test_what_cannot_be_run_is_said_with_its_reason(
    command: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "none"))
    made = call(command(tmp_path, methods=("PIRenderer",)), tmp_path)
    assert made.result.exit_code == BAD_INPUT, made.result.output
    said = " ".join(made.result.output.split())
    assert "no method can be run: PIRenderer" in said
    assert "epoch_20.pth" in said


def test_an_unknown_protocol_names_the_known_ones(command: Arguments, tmp_path: Path) -> None:
    made = call(command(tmp_path, "--protocol", "table9"), tmp_path)
    assert made.result.exit_code == BAD_INPUT
    assert "table1, table2, supplement, self, table3" in " ".join(made.result.output.split())
