"""``portrait dataset``: manifests from folders, and what checking them says."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli import dataset_commands
from flows.cli.main import app
from portrait_core.dataset.manifest import read_manifest
from tests.conftest import FfmpegRunner


def call(*arguments: str | Path) -> Result:
    """The command line in this process, wide."""
    return CliRunner().invoke(app, ["dataset", *map(str, arguments)], env={"COLUMNS": "200"})


def read(path: Path) -> list[dict[str, str]]:
    """A manifest's cells."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def clip(ffmpeg_to: FfmpegRunner) -> Path:
    """Five frames."""
    return ffmpeg_to(
        "five.mp4", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=10", "-frames:v", "5", "-c:v", "libx264"
    )


@pytest.fixture
def folder(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``faces``: three images and a note; ``clips``: two videos in VoxCeleb's folders, one in its cropped
    sets' way, one with a name of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("00010.jpg", "00002.jpg", "me.png", "sub/you.png", ".cache/old.png"):
        path = tmp_path / "faces" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 99, np.uint8)).save(path)
    (tmp_path / "faces" / "notes.txt").write_text("not a face")
    names = ("id00012/21Uxsk56VDQ/00001.mp4", "id00012/21Uxsk56VDQ/00003.mp4", "own.mp4")
    for name in (*names, "id10280#NXjT3732Ekg#001093#001192.mp4"):
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip.read_bytes())
    return tmp_path


def init(out: str, *more: str) -> Result:
    """``portrait dataset init`` of the folder, with consent."""
    given = ["--portraits", "faces", "--videos", "clips", "--licence", "CC0", "--consent", "form 7"]
    return call("init", out, *given, *more)


def test_a_manifest_of_folders_can_be_used_at_once(folder: Path) -> None:
    ended = init("m.csv")
    assert ended.exit_code == 0, ended.output
    assert "16 rows written to m.csv: 4 portraits, 4 videos" in ended.output
    rows = read(folder / "m.csv")
    assert rows[0] == {
        "portrait": "faces/00002.jpg", "video": "clips/id00012/21Uxsk56VDQ/00001.mp4",
        "name": "00002--00001", "licence": "CC0", "consent": "form 7",
    }  # fmt: skip
    assert not any("old" in row["portrait"] for row in rows), "hidden folders are left out"
    ended = call("check", "m.csv")
    assert ended.exit_code == 0, ended.output
    said = [" ".join(line.split()) for line in ended.output.splitlines()]
    assert said == [
        "rows 16",
        "portraits 4; 4 in several rows (up to 4)",
        "videos 4; 4 in several rows (up to 4)",
    ]


def test_deep_counts_frames_and_time(folder: Path) -> None:
    assert init("m.parquet", "--pairs", "one-each").exit_code == 0
    ended = call("check", "m.parquet", "--deep", "--set", "media.max_frames=3")
    assert ended.exit_code == 0, ended.output
    assert "video      20 frames, 2 s" in ended.output
    assert "to make    12 frames" in ended.output


def test_check_lists_every_bad_row_and_ends_with_2(folder: Path) -> None:
    init("m.csv")
    with (folder / "m.csv").open("a") as file:
        file.writelines(f"faces/none{i}.jpg,clips/own.mp4,name{i},CC0,form [red]\n" for i in range(60))
    ended = call("check", "m.csv")
    assert ended.exit_code == 2
    assert "rows       76, 60 of them with problems" in ended.output
    listed = [line for line in ended.output.splitlines() if line.startswith("row ")]
    assert len(listed) == 60
    assert listed[0] == f"row 18: the portrait {folder}/faces/none0.jpg does not exist; check the path"
    assert "60 problems: correct the manifest and check it again" in ended.output


def test_check_takes_profile_settings_and_consent(folder: Path) -> None:
    given = ["--portraits", "faces/me.png", "--videos", "clips/own.mp4"]
    ended = call("init", "m.csv", *given)
    assert "Fill in the columns licence and consent" in ended.output
    assert call("check", "m.csv").exit_code == 2
    assert call("check", "m.csv", "--no-consent").exit_code == 0
    refused = call("check", "m.csv", "--no-consent", "--set", "tuning.steps=none")
    assert refused.exit_code == 2
    assert "Invalid input: setting tuning.steps" in refused.output
    refused = call("check", "m.csv", "--no-consent", "--profile", "quick")
    assert "there is no profile 'quick'" in refused.output


def test_check_of_no_manifest(folder: Path) -> None:
    ended = call("check", "none.csv")
    assert ended.exit_code == 2
    assert "none.csv: does not exist" in ended.output


def test_layouts_of_voxceleb_and_celeba_hq(folder: Path) -> None:
    ended = init("m.csv", "--layout", "voxceleb", "--layout", "celeba-hq")
    assert ended.exit_code == 0, ended.output
    assert [row["name"] for row in read(folder / "m.csv")] == [
        f"{face}--{clip}"
        for face in ("00002", "00010")
        for clip in (
            "id00012-21Uxsk56VDQ-00001", "id00012-21Uxsk56VDQ-00003", "id10280-NXjT3732Ekg-001093-001192"
        )
    ]  # fmt: skip
    assert len(read_manifest("m.csv").rows) == 6
    refused = call("init", "n.csv", "--portraits", "faces/sub", "--videos", "clips", "--layout", "celeba-hq")
    assert refused.exit_code == 2
    assert "faces/sub holds 1 images but none named by a number (00000.jpg)" in refused.output


@pytest.mark.parametrize(
    ("pairs", "portraits", "expected"),
    [
        ("all", "faces/0*.jpg", ["2-1", "2-3", "10-1", "10-3"]),
        ("zip", "faces/0*.jpg", ["2-1", "10-3"]),
        ("one-each", "faces/00002.jpg", ["2-1", "2-3"]),
        ("one-each", "faces/**/*.*g", ["2-1", "10-3", "me-1", "you-3"]),
    ],
)
def test_ways_to_pair(folder: Path, pairs: str, portraits: str, expected: list[str]) -> None:
    ended = call("init", "m.csv", "--portraits", portraits, "--videos", "clips/id*/*/*.mp4", "--pairs", pairs)
    assert ended.exit_code == 0, ended.output
    found = [row["name"].split("--") for row in read(folder / "m.csv")]
    assert [f"{face.lstrip('0')}-{clip[4]}" for face, clip in found] == expected


def test_inputs_elsewhere_and_outside_are_named_in_full(folder: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(f"{folder}/clips/own.mp4", "/videos/own.mp4")
    (folder / "out").mkdir()
    try:
        ended = call("init", "out/m.csv", "--portraits", "faces/me.png", "--videos", "memory://videos")
        assert ended.exit_code == 0, ended.output
        (row,) = read(folder / "out" / "m.csv")
        assert row["portrait"] == f"{folder}/faces/me.png"
        assert row["video"] == "memory:///videos/own.mp4"
        ended = call(
            "init", "memory://videos/m.csv", "--portraits", "faces/me.png", "--videos", "memory://videos"
        )
        assert ended.exit_code == 0, ended.output
        assert len(read_manifest("memory://videos/m.csv", require_consent=False, deep=True).rows) == 1
    finally:
        files.rm("/videos", recursive=True)


def test_names_that_a_spreadsheet_would_compute_are_written_as_text(folder: Path) -> None:
    for name in ("=1+1.png", "@a.png", "-b\n.png", "'=c.png", " d.png"):
        (folder / "faces" / "me.png").rename(folder / "odd.png")
        target = folder / name
        target.write_bytes((folder / "odd.png").read_bytes())
        (folder / "odd.png").rename(folder / "faces" / "me.png")
    given = ["--portraits", "*.png", "--videos", "clips/own.mp4", "--licence", "=x", "--consent", "y"]
    ended = call("init", "m.csv", *given)
    assert ended.exit_code == 0, ended.output
    cells = [cell for row in read(folder / "m.csv") for cell in row.values()]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]
    found = read_manifest("m.csv")
    names = {Path(row.portrait).name for row in found.rows}
    assert names == {"=1+1.png", "@a.png", "-b\n.png", "'=c.png", " d.png"}
    assert {row.licence for row in found.rows} == {"=x"}


def test_a_name_that_is_no_text_is_told(folder: Path) -> None:
    with open(os.fsencode(folder / "faces") + b"/\xff.png", "wb") as file:
        file.write(b"x")
    ended = init("m.csv")
    assert ended.exit_code == 2
    assert "a file whose name is not UTF-8" in ended.output


@pytest.mark.parametrize("command", [["check"], ["run", "--store", "store"]])
def test_a_hostile_manifest_ends_with_one_message(folder: Path, command: list[str]) -> None:
    with (folder / "sparse.csv").open("wb") as file:
        file.truncate(1 << 40)
    (folder / "quote.csv").write_text('portrait,video\n"' + "x" * 3_000_000)
    (folder / "wide.csv").write_text(",".join(f"c{i}" for i in range(5000)))
    os.mkfifo(folder / "pipe.csv")
    for name, words in (
        ("sparse.csv", "limits.table_bytes"), ("quote.csv", "has a row of more than"),
        ("wide.csv", "limits.table_columns"), ("pipe.csv", "pipe.csv"),
    ):  # fmt: skip
        ended = call(command[0], name, *command[1:])
        assert ended.exit_code == 2, ended.output
        assert words in ended.output
        assert len(ended.output) < 1000
    ended = call(command[0], "own.csv", *command[1:], "--set", "limits.table_rows=none")
    assert ended.exit_code == 2
    assert "limits.table_rows" in ended.output


def test_check_counts_the_problems_that_it_does_not_list(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portrait_core.inputs.problems.MAX_HELD", 3)
    (folder / "m.csv").write_text("portrait,video,licence,consent\n" + "no.png,no.mp4,x,y\n" * 4)
    ended = call("check", "m.csv")
    assert ended.exit_code == 2
    lines = ended.output.splitlines()
    assert lines[0] == "rows       4, 4 of them with problems"
    assert len([line for line in lines if line.startswith("row ")]) == 3
    assert lines[-2].startswith("and ")


def test_the_limits_of_a_check_are_settings(folder: Path) -> None:
    (folder / "m.csv").write_text("portrait,video,licence,consent\n" + "no.png,no.mp4,x,y\n" * 4)
    assert "holds 4 rows, more than the 3" in call("check", "m.csv", "--set", "limits.table_rows=3").output


@pytest.fixture
def small_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_commands, "_MAX_ROWS", 10)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--layout", "tree"], "there is no layout tree; there are files, voxceleb, celeba-hq"),
        (["--pairs", "some"], "there is no way to pair some; there are all, zip, one-each"),
        (["--pairs", "all"], "--pairs all of 4 portraits and 4 videos makes 16 rows, over 10"),
        (["--pairs", "zip", "--portraits", "faces/0*"], "as many portraits as videos; got 2 and 4"),
        (["--portraits", "nowhere"], "nowhere does not exist, or fits no file"),
        (["--portraits", "nosuch://faces"], "is no URL"),
    ],
)
@pytest.mark.usefixtures("small_most")
def test_what_cannot_be_written_says_why(folder: Path, more: list[str], reason: str) -> None:
    ended = init("m.csv", *more)
    assert ended.exit_code == 2
    assert reason in " ".join(ended.output.split())
    assert not (folder / "m.csv").exists()


def test_a_manifest_is_never_overwritten(folder: Path) -> None:
    (folder / "m.csv").write_text("filled in by hand")
    ended = init("m.csv")
    assert ended.exit_code == 2
    assert "m.csv exists already" in ended.output
    assert (folder / "m.csv").read_text() == "filled in by hand"
    ended = init("m.xlsx")
    assert ended.exit_code == 2
    assert "written as .csv or .parquet" in ended.output
    (folder / "file").touch()
    assert "cannot write file/m.csv" in init("file/m.csv").output
    with (folder / "m.csv").open("a") as written:
        written.write("more")
    assert "there is no column 'portrait'" in call("check", "m.csv").output
