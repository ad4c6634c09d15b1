"""Manifests: what is read, what is refused with which row and which words."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from portrait_core.dataset import manifest
from portrait_core.dataset.manifest import ManifestError, Row, check_manifest, read_manifest
from portrait_core.errors import InputError
from portrait_core.inputs.sources import local_copy
from portrait_core.inputs.table import write_table
from portrait_core.settings import load_settings
from tests.conftest import FfmpegRunner

HEADER = "portrait,video,licence,consent"
Written = Callable[..., str]


@pytest.fixture(scope="session")
def clips(ffmpeg_to: FfmpegRunner) -> dict[str, Path]:
    """Videos of 5 and 9 frames, one of a single frame, and one that is too small."""
    made = {}
    for name, frames, size in (("v", 5, 64), ("w", 9, 96), ("one", 1, 64), ("tiny", 5, 32)):
        source = f"testsrc2=s={size}x{size}:r=10"
        made[name] = ffmpeg_to(
            f"{name}-{size}.mp4", "-f", "lavfi", "-i", source, "-frames:v", str(frames), "-c:v", "libx264"
        )
    return made


@pytest.fixture
def folder(tmp_path: Path, clips: dict[str, Path]) -> Path:
    """Two portraits, two driving videos, and things that are neither."""
    for name in ("a", "b"):
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (40, 80)).save(tmp_path / "small.png")
    for name, path in clips.items():
        (tmp_path / f"{name}.mp4").write_bytes(path.read_bytes())
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    (tmp_path / "text.png").write_text("this is no picture\n" * 100)
    (tmp_path / "empty.png").touch()
    (tmp_path / "sub.png").mkdir()
    return tmp_path


@pytest.fixture
def written(folder: Path) -> Written:
    """``written(*lines)``: the path of a manifest of these lines."""

    def write(*lines: str, name: str = "m.csv") -> str:
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(folder / name)

    return write


def problems(url: str, deep: bool = False, **options: Any) -> list[tuple[int, str]]:
    """Rows and texts of what is wrong."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(url, deep=deep, **options)
    return [(problem.row, problem.text) for problem in caught.value.problems]


def told(url: str, row: int, *words: str, deep: bool = False) -> None:
    """Only that row is wrong, with these words."""
    found = problems(url, deep)
    assert [number for number, _ in found] == [row], found
    assert all(word in found[0][1] for word in words), found


# What is read


def test_rows_are_read_with_their_defaults(folder: Path, written: Written) -> None:
    url = written(
        "portrait,video,name,profile,overrides,edit,licence,consent",
        "a.png,v.mp4,,,,,CC0,form 1",
        f'{folder}/b.png,file://{folder}/w.mp4,mine,fast,"tuning.steps=4; media.max_frames=3;",,CC0,form 2',
    )
    found = read_manifest(url)
    assert found.rows == (
        Row(
            number=2, portrait=f"{folder}/a.png", video=f"{folder}/v.mp4", name="a--v", profile="embedded",
            licence="CC0", consent="form 1",
        ),
        Row(
            number=3, portrait=f"{folder}/b.png", video=f"{folder}/w.mp4", name="mine", profile="fast",
            overrides=("tuning.steps=4", "media.max_frames=3"), licence="CC0", consent="form 2",
        ),
    )  # fmt: skip
    assert found.frames is None
    assert read_manifest(url, profile="fast").rows[0].profile == "fast"
    with pytest.raises(ValueError, match="frozen"):
        found.rows[0].name = "other"


def test_what_is_shared_is_counted(written: Written) -> None:
    found = read_manifest(written(HEADER, "a.png,v.mp4,x,y", "a.png,w.mp4,x,y", "b.png,v.mp4,x,y"))
    assert sorted(found.portraits.values()) == [1, 2]
    assert sorted(found.videos.values()) == [1, 2]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_dialects_of_csv_are_one_manifest(folder: Path, mark: str, start: str, end: str) -> None:
    lines = ["Portrait, VIDEO ,overrides,licence,consent", "a.png,v.mp4,'tuning.steps=4',x,y", "", ",,,,"]
    text = start + end.join(line.replace(",", mark).replace("'", '"') for line in lines)
    (folder / "m.csv").write_bytes(text.encode())
    found = read_manifest(str(folder / "m.csv"))
    assert [(row.number, row.overrides) for row in found.rows] == [(2, ("tuning.steps=4",))]
    plain = folder / "plain.csv"
    plain.write_text("consent,licence,video,portrait,overrides,name\ny,x,v.mp4,a.png,tuning.steps=4\n")
    assert read_manifest(str(plain)).digest == found.digest


def test_parquet_is_read_as_csv_is(folder: Path, written: Written) -> None:
    rows = [{"portrait": "a.png", "video": f"{name}.mp4", "licence": "x", "consent": "y"} for name in "vw"]
    for name in ("m.csv", "m.parquet"):
        write_table(str(folder / name), rows)
    one, other = (read_manifest(str(folder / name)) for name in ("m.csv", "m.parquet"))
    assert (one.rows, one.digest) == (other.rows, other.digest)
    table = pa.table({name: pa.array([row[name] for row in rows]).dictionary_encode() for name in rows[0]})
    pq.write_table(table.append_column("edit", pa.nulls(2)), folder / "misnamed.csv")
    assert read_manifest(str(folder / "misnamed.csv")).rows == one.rows
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        write_table(str(folder / "m.xlsx"), rows)


def test_default_names_are_unique_and_stay_when_rows_are_added(folder: Path, written: Written) -> None:
    (folder / "d").mkdir()
    (folder / "d" / "ä é.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "d" / "A.png").write_bytes((folder / "a.png").read_bytes())
    rows = ["a.png,v.mp4,x,y", "d/A.png,v.mp4,x,y", "d/ä é.png,v.mp4,x,y"]
    names = [row.name for row in read_manifest(written(HEADER, *rows)).rows]
    assert names[0] == "a--v"
    assert names[1].startswith("A--v-"), "some file systems do not tell a from A"
    assert names[2] == "input--v"
    more = read_manifest(written(HEADER, *rows, "b.png,v.mp4,x,y", name="more.csv"))
    assert [row.name for row in more.rows[:3]] == names
    explicit = written("name," + HEADER, f",{rows[0]}", "A--V,b.png,v.mp4,x,y")
    assert [row.name for row in read_manifest(explicit).rows][1] == "A--V"


def test_profiles_beside_the_manifest_are_found(folder: Path, written: Written) -> None:
    (folder / "mine.yaml").write_text("extends: embedded\ntuning: {steps: 3}\n")
    url = written(f"profile,{HEADER}", "mine.yaml,a.png,v.mp4,x,y")
    assert read_manifest(url).rows[0].profile == str(folder / "mine.yaml")


def test_consent_may_be_asked_for_or_not(written: Written) -> None:
    url = written("portrait,video", "a.png,v.mp4")
    assert len(read_manifest(url, require_consent=False).rows) == 1
    first, second = problems(url)
    assert first == (1, "there is no column 'consent' (reference of the subject's consent); add it")
    assert second[1] == "there is no column 'licence' (the licence of the subject's pictures); add it"
    url = written(HEADER, "a.png,v.mp4,, ")
    assert [text for _, text in problems(url)] == [
        "the cell 'consent' is empty; fill it in",
        "the cell 'licence' is empty; fill it in",
    ]
    assert read_manifest(url, require_consent=False).rows[0].licence == ""


# What is refused


def test_every_bad_row_is_told_at_once(folder: Path, written: Written) -> None:
    url = written(
        f"{HEADER},name,overrides,edit",
        "a.png,v.mp4,x,y,good",
        "none.png,v.mp4,x,y,missing",
        "",
        ",w.mp4,x,,empty",
        "a.png,w.mp4,x,y,setting,tuning.step=3",
        "a.png,v.mp4,x,y,twice,",
        "b.png,v.mp4,x,y,GOOD",
        "b.png,w.mp4,x,y,a/b,,older",
        "sub.png,empty.png,x,y,neither",
    )
    assert problems(url) == [
        (3, f"the portrait {folder}/none.png does not exist; check the path"),
        (5, "the cell 'consent' is empty; fill it in"),
        (5, "the cell 'portrait' is empty; fill it in"),
        (6, "profile or overrides: unknown setting 'tuning.step'; did you mean: tuning.steps, tuning.seed, "
            "tuning.warmup_steps?"),
        (7, "is a duplicate of row 2 (portrait, video, profile, overrides); delete one"),
        (8, "the name 'GOOD' is that of row 2 too; give each row its own"),
        (9, "cannot read the edit 'older'; write it as attribute=value: age=+20 (20 more than the picture "
            "has), age=60 (60, whatever it has), beard=0.5, glasses=on"),
        (9, "the name 'a/b' is not safe in every file system; use letters, digits, '_', '-', '.', beginning "
            "with a letter or digit, 200 at most"),
        (10, f"the portrait {folder}/sub.png is a folder; give the path of one file"),
        (10, f"the video {folder}/empty.png is empty (0 bytes); copy it again from its source"),
    ]  # fmt: skip
    found, _ = check_manifest(url)
    assert [row.number for row in found.rows] == [2]


def test_the_message_shows_fifty_and_a_count(written: Written) -> None:
    url = written(HEADER, *(f"none{i}.png,v.mp4,x,y" for i in range(60)))
    with pytest.raises(ManifestError) as caught:
        read_manifest(url)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("m.csv: 60 problems in 60 rows; nothing was started")
    assert lines[1].startswith("row 2: the portrait ")
    assert lines[-1] == "and 10 more; `portrait dataset check` lists them all"
    assert len(lines) == 52
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (f"{HEADER},licens", ("unknown column 'licens'; did you mean licence?", "portrait, video, name")),
        (f"{HEADER},__index_level_0__", ("unknown column '__index_level_0__'; delete it",)),
        ("picture,video,licence,consent", ("unknown column 'picture'", "there is no column 'portrait'; add")),
        (f"{HEADER},Video", ("column 'video' is there twice; delete one",)),
        ("/data/a.png,/data/v.mp4", ("there is no column 'portrait'", "there is no column 'video'")),
    ],
)
def test_wrong_columns_are_named(written: Written, header: str, words: tuple[str, ...]) -> None:
    found = problems(written(header, "a.png,v.mp4,x,y"))
    assert {row for row, _ in found} == {1}
    said = "\n".join(text for _, text in found)
    assert all(word in said for word in words), said


def test_rows_are_checked_though_a_column_is_unknown(written: Written) -> None:
    found = problems(written(f"{HEADER},note", "a.png,none.mp4,x,y,nice"))
    assert [row for row, _ in found] == [1, 2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.png,v.mp4,x,y,z", "more cells than the header has names; put a cell that holds a separator"),
        ('a.png,"v.mp4,x,y', "cannot be read (unexpected end of data); check its quotation marks"),
        ('a.png,"v"x.mp4,x,y', "',' expected after '\"'"),
    ],
)
def test_broken_lines_are_told(written: Written, line: str, words: str) -> None:
    told(written(HEADER, "b.png,v.mp4,x,y", "", line), 4, words)


def test_rows_are_numbered_as_a_spreadsheet_does(written: Written) -> None:
    told(written(HEADER, 'a.png,v.mp4,"two\nlines",y', "none.png,v.mp4,x,y"), 3, "does not exist")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"\n , \n", "is empty; its first row names the columns: portrait, video"),
        (b"portrait,video,licence,consent\n,,,\n", "holds no row; give each pair a row below the header"),
        ("portrait,video\nä.png,v.mp4".encode("latin-1"), "not UTF-8: byte 0xe4 in line 2; save it as"),
        (b"\xff\xfep", "is damaged UTF-16 text"),
        (b"PK\x03\x04rest", "is not a readable Excel workbook (File is not a zip file); save it again"),
        (b"<!DOCTYPE html><html>log in", "is a web page; a table is a CSV file, an Excel workbook"),
        (b"\0\0\0\x18ftypisom", "is an MP4 video; a table is a CSV file"),
        (b"PAR1rest", "is not readable Parquet"),
    ],
)
def test_what_is_no_table_is_refused(folder: Path, data: bytes, words: str) -> None:
    (folder / "m.csv").write_bytes(data)
    told(str(folder / "m.csv"), 0, words)


def test_a_manifest_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ManifestError, match=r"none.csv: does not exist; check the path of the manifest$"):
        read_manifest(str(folder / "none.csv"))
    told(str(folder), 0, "is a folder")
    told("memory://manifests/none.csv", 0, "does not exist; check the path")


def test_wrong_types_in_parquet_are_named(folder: Path) -> None:
    table = pa.table({"portrait": ["a.png"], "video": [7], "name": [0.5], "licence": ["x"], "consent": ["y"]})
    pq.write_table(table, folder / "m.parquet")
    found = problems(str(folder / "m.parquet"))
    assert (1, "the column 'video' holds int64; write it as text (string)") in found
    assert (1, "the column 'name' holds double; write it as text (string)") in found
    pq.write_table(table.slice(0, 0).select(["portrait", "licence", "consent"]), folder / "m.parquet")
    assert "there is no column 'video'" in problems(str(folder / "m.parquet"))[0][1]


def test_rows_of_parquet_count_from_two(folder: Path) -> None:
    rows = [
        {"portrait": name, "video": "v.mp4", "licence": "x", "consent": "y"} for name in ("a.png", "no.png")
    ]
    write_table(str(folder / "m.parquet"), rows)
    told(str(folder / "m.parquet"), 3, "no.png does not exist")


@pytest.mark.parametrize(
    "name", ["../up", ".hidden", "-dash", "CON", "com1.txt", "dot.", "a b", "x" * 201, "a:b", "é"]
)
def test_names_that_some_file_system_cannot_hold_are_refused(written: Written, name: str) -> None:
    told(written(f"name,{HEADER}", f"{name},a.png,v.mp4,x,y"), 2, "is not safe in every file system")


def test_each_combination_of_settings_is_loaded_once(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Counter[tuple[str, tuple[str, ...]]]()

    def counted(profile: str, overrides: list[str]) -> object:
        seen[profile, tuple(overrides)] += 1
        return load_settings(profile, overrides)

    monkeypatch.setattr(manifest, "load_settings", counted)
    rows = [f"{p}.png,{v}.mp4,x,y,{o}" for p in "ab" for v in "vw" for o in ("", "tuning.steps=none")]
    url = written(f"{HEADER},overrides", *rows)
    with pytest.raises(ManifestError) as caught:
        read_manifest(url, changes=["seed=3"])
    assert [problem.row for problem in caught.value.problems] == [3, 5, 7, 9]
    assert "setting tuning.steps: got 'none'" in caught.value.problems[0].text
    assert seen == {("embedded", ("seed=3",)): 1, ("embedded", ("seed=3", "tuning.steps=none")): 1}
    assert (
        "there is no profile 'quick'" in problems(written(f"profile,{HEADER}", "quick,a.png,v.mp4,x,y"))[0][1]
    )


# Opening the inputs


def test_deep_opens_every_input_once(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def copied(place: str, *more: Any) -> Any:
        opened.append(place)
        return local_copy(place, *more)

    monkeypatch.setattr(manifest, "local_copy", copied)
    rows = [f"{p}.png,{v}.mp4,x,y,{o}" for p in "ab" for v in "vw" for o in ("", "media.max_frames=3")]
    steps: list[tuple[int, int]] = []
    found = read_manifest(
        written(f"{HEADER},overrides", *rows), deep=True, told=lambda *now: steps.append(now)
    )
    assert len(opened) == 4
    assert steps[-1] == (4, 4)
    assert [row.frames for row in found.rows] == [5, 3, 9, 3] * 2
    assert found.frames == 40
    assert sorted(clip.frame_count for clip in found.clips.values()) == [5, 9]


def test_deep_tells_what_cannot_be_opened(folder: Path, written: Written) -> None:
    names = ["text.png,v", "small.png,v", "a.png,text", "a.png,one", "a.png,tiny", "a.png,w", "none.png,w"]
    url = written(HEADER, *(f"{name}.mp4,x,y" for name in names))
    assert [row for row, _ in problems(url)] == [8], "as long as nothing is opened"
    found = dict(problems(url, deep=True))
    assert list(found) == [2, 3, 4, 5, 6, 8]
    assert found[2].startswith(f"the portrait {folder}/text.png is not a readable image")
    assert found[3] == (
        f"the portrait {folder}/small.png is 40x80 pixels; give one of 64 and more on its shorter side"
    )
    assert found[4].startswith(f"the video {folder}/text.mp4 is not a readable video")
    assert "has one frame: there is no motion" in found[5]
    assert "tiny.mp4 is 32x32 pixels" in found[6]


def test_the_smallest_side_is_that_of_a_run() -> None:
    from tasks.ingest import SMALLEST_SIDE

    assert manifest.MIN_SIDE == SMALLEST_SIDE
