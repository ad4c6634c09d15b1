"""What people give by mistake: the message says what it is, which option it came from, and the next step."""

from __future__ import annotations

import io
import shlex
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, OK, PARTIAL
from flows.dataset_run import ClipResult
from portrait_core.dataset.manifest import Row, read_manifest
from tests.conftest import FfmpegRunner


def call(*arguments: str | Path) -> Result:
    """The command line in this process, wide."""
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


def said(result: Result) -> str:
    """The text of a refusal, with line breaks undone."""
    assert result.exit_code == BAD_INPUT, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: Path, clip: Path) -> Path:
    """A folder with a portrait and a video."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "face.png").write_bytes(portrait.read_bytes())
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def clip(ffmpeg_to: FfmpegRunner) -> Path:
    """Five frames."""
    return ffmpeg_to(
        "five96.mp4", "-f", "lavfi", "-i", "testsrc2=s=96x96:r=10", "-frames:v", "5", "-c:v", "libx264"
    )


def reenact(
    portrait: str = "face.png", video: str = "clip.mp4", store: str = "store", out: str = "out"
) -> Result:
    """``portrait reenact`` of names in the folder."""
    return call("reenact", "--portrait", portrait, "--video", video, "--store", store, "--out", out)


def packed(name: str) -> bytes:
    """An archive of one file."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name, "x")
    return target.getvalue()


KINDS = {
    "page": (b"\xef\xbb\xbf<!DOCTYPE html>\n<html><title>Log in</title>", "a web page", "open the address"),
    "pdf": (b"%PDF-1.7\n", "a PDF document", ""),
    "psd": (b"8BPS\0\1", "a Photoshop document", ""),
    "zip": (packed("face.png"), "an archive", "unpack it"),
    "torch": (packed("archive/data.pkl"), "a PyTorch file of weights", "generator.weights=FILE"),
    "onnx": (b"\x08\x07\x12\x07pytorch", "a network (ONNX)", "generator.weights=FILE"),
    "json": (b'{"portrait": "x"}', "a JSON file", ""),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "a pointer of Git LFS",
        "git lfs pull",
    ),
    "companion": (b"\0\5\x16\7\0\2\0\0Mac OS X", "a Mac's companion file", ""),
    "sound": (b"ID3\4\0\0\0\0\0\0", "an MP3 sound file", ""),
}


@pytest.mark.parametrize("option", ["portrait", "video"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named_by_its_content(place: Path, kind: str, option: str) -> None:
    content, words, step = KINDS[kind]
    (place / "given.mp4").write_bytes(content)
    text = said(reenact(**{option: "given.mp4"}))
    assert f"Invalid input (--{option}): the {option} {place}/given.mp4 is not a readable" in text
    assert f"(it is {words}" in text
    assert step in text


def test_a_video_as_portrait_is_told_with_a_command_that_works(place: Path) -> None:
    (place / "my film.mp4").write_bytes((place / "clip.mp4").read_bytes())
    text = said(reenact(portrait="my film.mp4"))
    assert "(--portrait)" in text
    assert "it is an MP4 video); a portrait is one picture, such as a frame of it: `" in text
    subprocess.run(shlex.split(text.split("`")[1]), check=True, capture_output=True)
    assert Image.open("portrait.png").size == (96, 96)


def test_a_picture_as_video_is_told(place: Path) -> None:
    text = said(reenact(video="face.png"))
    assert "(--video): the driving video" in text
    assert "has one frame (it is a PNG picture): there is no motion" in text


def test_music_with_a_cover_is_told(place: Path, ffmpeg_to: FfmpegRunner) -> None:
    cover = ["-map", "0", "-map", "1", "-c:a", "aac", "-c:v", "mjpeg", "-disposition:v", "attached_pic"]
    sine = ["-f", "lavfi", "-i", "sine=d=0.2", "-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1"]
    music = ffmpeg_to("music.m4a", *sine, *cover)
    assert "holds sound and a cover picture, no video" in said(reenact(video=str(music)))


def test_a_video_that_is_cut_short_is_told(place: Path) -> None:
    (place / "cut.mp4").write_bytes((place / "clip.mp4").read_bytes()[:3000])
    assert "it begins as an MP4 video and is cut short or damaged" in said(reenact(video="cut.mp4"))
    (place / "cut.png").write_bytes((place / "face.png").read_bytes()[:3000])
    assert "is not a readable image (" in said(reenact(portrait="cut.png"))
    (place / "empty.png").touch()
    assert "is empty (0 bytes)" in said(reenact(portrait="empty.png"))


# Places


@pytest.mark.parametrize(
    ("option", "given", "words"),
    [
        ("out", "file", "--out file is a file; give a folder"),
        ("out", "file/below", "is a file; give a folder"),
        ("out", "result.mp4", "give `--out result`"),
        ("out", "RESULT.GIF", "it names a folder"),
        ("out", "store", "--out store lies in --store"),
        ("out", "store/out", "--out store/out lies in --store"),
        ("out", "/proc/none/x", "--out /proc/none/x cannot be made"),
        ("store", "file", "is a file; give a folder"),
        ("store", "/proc/none/x", "--store /proc/none/x cannot be made"),
    ],
)
def test_places_are_checked_before_any_work(place: Path, option: str, given: str, words: str) -> None:
    (place / "file").touch()
    before = sorted(place.iterdir())
    assert words in said(reenact(**{option: given}))
    assert sorted(place.iterdir()) == before, "nothing is left behind"


def test_a_folder_that_ends_like_a_file_and_exists_is_kept(place: Path) -> None:
    (place / "old.mp4").mkdir()
    assert "it is a PDF" not in said(reenact(portrait="none.png", out="old.mp4"))


BAD = {
    "reenact": ["--portrait", "none.png", "--video", "clip.mp4", "--store", "s", "--out", "o"],
    "plan": ["--portrait", "none.png", "--video", "clip.mp4", "--store", "s"],
    "edit": ["--portrait", "none.png", "--out", "o", "--set", "age=+20"],
    "train-styleflow": ["--store", "s", "--out", "file"],
    "evaluate": ["--store", "s", "--out", "file"],
    "demo": ["--store", "s", "--out", "file"],
    "dataset init": ["m.csv", "--portraits", "none", "--videos", "clip.mp4"],
    "dataset check": ["none.csv"],
    "dataset run": ["none.csv", "--store", "s", "--out", "o"],
    "dataset plan": ["none.csv", "--store", "s"],
    "settings": ["--set", "tuning.steps=few"],
    "doctor": ["--profile", "none"],
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_ends_every_command_with_2(place: Path, command: str) -> None:
    (place / "file").touch()
    assert "Invalid input" in said(call(*command.split(), *BAD[command]))


# What is left out


def test_init_counts_what_it_leaves_out(place: Path) -> None:
    for name in ("A.JPG", "IMG_0042.HEIC", "notes.txt", ".DS_Store", "sub/._a.jpg", "sub/b.Jpeg"):
        (place / "faces" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "faces" / name).write_bytes(b"x")
    frames = [Image.fromarray(np.full((8, 8, 3), i * 99, np.uint8)) for i in range(2)]
    (place / "clips").mkdir()
    frames[0].save(place / "clips" / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(place / "clips" / "still.webp")
    (place / "clips" / "code.ts").write_text("export const x = 1")
    (place / "clips" / "tv.ts").write_bytes((b"G" + bytes(187)) * 3)
    names = (
        "X.MOV",
        "a.gif",
        "b.m2ts",
        "c.mts",
        "d.wmv",
        "e.flv",
        "f.3gp",
        "g.mpg",
        "h.ogv",
        "i.apng",
        "j.y4m",
    )
    for name in (*names, "readme.txt", "LICENSE"):
        (place / "clips" / name).write_bytes(b"x")
    ended = call("dataset", "init", "m.csv", "--portraits", "faces", "--videos", "clips", "--licence", "x")
    assert ended.exit_code == OK, ended.output
    assert f"{3 * 13} rows written to m.csv: 3 portraits, 13 videos" in ended.output
    assert "left out of the portraits: 2 hidden, 1 .txt" in ended.output
    (line,) = [line for line in ended.output.splitlines() if "of the videos" in line]
    assert all(
        f"1 {kind}" in line
        for kind in (".webp (not a video)", ".ts (not a video)", ".txt", "without an ending")
    )


def test_what_serves_as_the_other_is_not_left_out(place: Path) -> None:
    ended = call("dataset", "init", "m.csv", "--portraits", ".", "--videos", ".", "--licence", "x")
    assert ended.exit_code == OK, ended.output
    assert "left out" not in ended.output


@pytest.mark.parametrize(
    ("videos", "rows"),
    [
        ("takes", ["takes/one", "takes/two"]),
        ("takes/*", ["takes/one", "takes/two"]),
        ("takes/one", ["takes/one"]),
        ("takes/*/*.png", ["takes/one/*.png", "takes/two/*.png"]),
        ("takes/one/%02d.png", ["takes/one/%02d.png"]),
    ],
)
def test_a_folder_of_numbered_pictures_is_one_video_of_a_data_set(
    place: Path, videos: str, rows: list[str]
) -> None:
    for take in ("one", "two"):
        (place / "takes" / take).mkdir(parents=True)
        for i in range(3):
            (place / "takes" / take / f"{i:02d}.png").write_bytes((place / "face.png").read_bytes())
    (place / "takes" / "notes.txt").write_text("x")
    ended = call("dataset", "init", "m.csv", "--portraits", "face.png", "--videos", videos)
    assert ended.exit_code == OK, ended.output
    kept = read_manifest("m.csv", require_consent=False)
    assert [row.video for row in kept.rows] == [str(place / row) for row in rows]
    assert {row.name for row in kept.rows} <= {"face--one", "face--two"}
    assert ("1 .txt" in ended.output) == (videos in ("takes", "takes/*"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("dataset init m.csv --portraits none --videos .", "(--portraits): none does not exist"),
        ("dataset init m.csv --portraits . --videos faces", "(--videos): faces holds no file"),
        ("plan --portrait face.png --video clip.mp4 --store s --from abc", "'--from': 'abc' is no place"),
        ("plan --portrait face.png --video clip.mp4 --store s --to -2", "'--to': '-2' is no place"),
        ("plan --portrait face.png --video clip.mp4 --store s --rate 0", "'--rate': '0' is no rate"),
        (
            "plan --portrait face.png --portrait no.png --video clip.mp4 --store s",
            "(--portrait): the portrait",
        ),
        (
            "check --portrait face.png --portrait face.png --video clip.mp4",
            "(--portrait): it is given 2 times",
        ),
        ("check --portrait \udcff.png --video clip.mp4", "(--portrait): the portrait \\xff.png has a name"),
    ],
)
def test_what_is_wrong_names_the_option(place: Path, command: str, words: str) -> None:
    (place / "faces").mkdir()
    assert words in said(call(*command.split()))


# Several at once


@pytest.fixture
def started(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Names of the rows of each run that would begin; the second clip has held frames."""
    runs: list[list[str]] = []

    def run(rows: list[Row], _settings: object, _console: object, parameters: dict[str, str]) -> object:
        kept = read_manifest(parameters["manifest"], require_consent=False)
        assert [row.name for row in kept.rows] == [row.name for row in rows], "what a server's run reads"
        runs.append([row.name for row in rows])
        outcomes = ["done", "held", *["done"] * len(rows)]
        return [
            ClipResult(row.number, row.name, outcome, frames=5)  # type: ignore[arg-type]
            for row, outcome in zip(rows, outcomes, strict=False)
        ]

    monkeypatch.setattr("flows.dataset.start_dataset", run)
    for name in ("a.png", "b.png"):
        (place / "faces").mkdir(exist_ok=True)
        (place / "faces" / name).write_bytes((place / "face.png").read_bytes())
    (place / "clip2.mp4").write_bytes((place / "clip.mp4").read_bytes())
    return runs


def several(*more: str) -> Result:
    """``portrait reenact`` with these portraits and videos."""
    return call("reenact", *more, "--store", "store", "--out", "out")


def test_every_pair_is_made_in_its_own_folder(place: Path, started: list[list[str]]) -> None:
    given = [
        "--portrait",
        "faces",
        "--portrait",
        "face.png",
        "--portrait",
        "face.png",
        "--video",
        "clip*.mp4",
    ]
    ended = several(*given)
    assert started == [[f"{face}--{clip}" for face in ("a", "b", "face") for clip in ("clip", "clip2")]]
    assert ended.exit_code == PARTIAL, ended.output
    assert "6 clips: 3 portraits, 2 videos" in ended.output
    assert "out/a--clip" in ended.output
    assert "held" in ended.output


def test_a_dry_run_of_several_changes_nothing(place: Path, started: list[list[str]]) -> None:
    ended = several("--portrait", "faces/*.png", "--video", "clip.mp4", "--dry-run")
    assert ended.exit_code == OK, ended.output
    assert "2 clips (2 new)" in ended.output
    assert not started
    assert not (place / "store").exists()
    assert not (place / "out").exists()


def test_inputs_of_several_are_all_looked_at_first(place: Path, started: list[list[str]]) -> None:
    (place / "faces" / "c.jpg").write_bytes(b"%PDF-1.7")
    text = said(
        several(
            "--portrait", "faces", "--portrait", "none.jpg", "--video", "clip.mp4", "--video", "clip2.mp4"
        )
    )
    assert "2 inputs; nothing was started" in text
    assert "c.jpg is not a readable image (it is a PDF document)" in text
    assert "none.jpg does not exist" in text
    assert not started


def test_one_of_each_is_no_dataset(place: Path, started: list[list[str]]) -> None:
    text = said(several("--portrait", "faces/a.png", "--video", "none.mp4"))
    assert "(--video): the video" in text
    assert "takes one" not in text
    assert "one portrait and one video" in said(
        several("--portrait", "faces", "--video", "clip.mp4", "--only", "x")
    )


def test_a_pattern_that_the_shell_wrote_out_is_told(place: Path) -> None:
    assert "A pattern is given in quotes" in said(
        several("--portrait", "a.png", "b.png", "--video", "clip.mp4")
    )


@pytest.mark.slow
def test_several_are_made_and_found_done_the_second_time(
    place: Path, small: list[str], driver: Path, portrait: Path
) -> None:
    Image.open(portrait).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "turned.png")
    settings = [part for change in small for part in ("--set", change)]
    given = ["--portrait", "face.png", "--portrait", "turned.png", "--video", str(driver), *settings]
    for _ in range(2):
        ended = several(*given)
        assert ended.exit_code == PARTIAL, "one frame of the driver shows no face"
        assert ended.output.count(" held ") >= 2, ended.output
        for name in ("face--driver", "turned--driver"):
            assert (place / "out" / name / "reenactment.mp4").is_file()
            assert f"out/{name}" in ended.output
    assert "done" in call("status", "store").output


def test_an_edit_and_an_evaluation_read_names_as_the_disk_spells_them(place: Path) -> None:
    (place / "sub").mkdir()
    (place / "face.png").rename(place / "sub" / "face.png")
    refused = said(call("edit", "--portrait", "sub\\face.png", "--set", "hat=on", "--out", "out"))
    assert "hat" in refused  # the portrait was found
    assert "face.png" not in refused
    (place / "clip.mp4").rename(place / "sub" / "clip.mp4")
    line = ["evaluate", "--portraits", "nothing\\*", "--videos", ".\\sub", "--out", "out", "--store", "store"]
    refused = said(call(*line))
    assert "nothing" in refused
    assert ".\\sub" not in refused
