"""Manifests as spreadsheets write them, and names of files as other systems spell them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from portrait_core.dataset.manifest import Manifest, check_manifest, read_manifest
from portrait_core.errors import InputError
from portrait_core.inputs.spelling import as_on_disk
from portrait_core.inputs.table import Table, read_table
from portrait_core.settings.limits import Limits, current_limits, use_limits
from tests.portrait_core.workbooks import cell, sheet, text_rows, workbook

ROWS = (("portrait", "video", "licence", "consent"), ("a.png", "v.mp4", "CC0", "form 7"))
COLUMNS = [*ROWS[0]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A portrait and something that is there under a video's name."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "v.mp4").write_bytes(b"video")
    return tmp_path


def read(folder: Path, data: bytes) -> Manifest:
    """The manifest of these bytes."""
    (folder / "m.csv").write_bytes(data)
    return read_manifest(str(folder / "m.csv"))


def lines(separator: str) -> str:
    """The rows as text."""
    return "".join(separator.join(row) + "\r\n" for row in ROWS)


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "SEP=;", "\ufeffsep=;", "sep=;;;"])
def test_a_first_line_that_names_the_separator_is_skipped(folder: Path, first: str) -> None:
    (row,) = read(folder, f"{first}\r\n{lines(';')}".encode()).rows
    assert (row.number, row.licence) == (2, "CC0"), "a spreadsheet does not count that line"


@pytest.mark.parametrize("mark", ["|", "\t", ",", "^"])
def test_any_separator_can_be_named(folder: Path, mark: str) -> None:
    assert read(folder, f"sep={mark}\n{lines(mark)}".encode()).rows[0].consent == "form 7"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_texts_of_excel_are_read(folder: Path, encoding: str) -> None:
    data = (lines("\t") + "\t\t\t\r\n").encode(encoding)
    assert read(folder, data).rows[0].portrait == f"{folder}/a.png"


def test_separators_at_the_end_of_each_line_are_no_columns(folder: Path) -> None:
    assert len(read(folder, lines(";").replace("\r\n", ";;\r\n").encode()).rows) == 1


@pytest.mark.parametrize("header", ["ID3", "P1 x", "BMI", "G" * 400])
def test_a_header_that_begins_as_another_kind_of_file_is_a_header(header: str) -> None:
    assert read_table(f"{header},portrait,video\nx,a.png,v.mp4\n".encode()).columns[1:] == [
        "portrait",
        "video",
    ]


# Excel


def table_of(*rows: list[str], formats: str = "", more: dict[str, str] | None = None) -> Table:
    """The table of a workbook with these rows of cells."""
    return read_table(workbook({"S": sheet(*rows)}, more, formats))


def test_a_workbook_is_a_manifest(folder: Path) -> None:
    found = read(folder, workbook({"pairs": text_rows(*ROWS), "notes": text_rows(("x",))}))
    assert found.rows[0].portrait == f"{folder}/a.png"
    assert found.notes == ("the first sheet, pairs, is read; others are not: notes",)
    assert found.digest == read(folder, lines(",").encode()).digest


def test_numbers_and_dates_are_what_a_person_sees() -> None:
    formats = (
        '<numFmts><numFmt numFmtId="164" formatCode="00000"/>'
        '<numFmt numFmtId="165" formatCode="dd/mm/yyyy hh:mm"/>'
        '<numFmt numFmtId="166" formatCode="&quot;day &quot;0"/></numFmts><cellStyleXfs><xf numFmtId="14"/>'
        "</cellStyleXfs><cellXfs>"
        + "".join(f'<xf numFmtId="{number}"/>' for number in (0, 14, 164, 165, 2, 166))
        + "</cellXfs>"
    )
    values = [(7.0, 0), (0.1 + 0.2, 0), (45992, 1), (42, 2), (45992.75, 3), (1.5, 4), (3, 5)]
    header = [cell(f"{chr(65 + i)}1", name) for i, name in enumerate("abcdefg")]
    cells = [cell(f"{chr(65 + i)}2", *value) for i, value in enumerate(values)]
    ((_, found),) = table_of(header, cells, formats=formats).records
    assert [*found.values()] == ["7", "0.3", "2025-12-01", "00042", "2025-12-01 18:00:00", "1.50", "3"]


def test_shared_texts_gaps_and_empty_rows_are_read() -> None:
    shared = "<sst><si><t>por</t><r><t>trait</t></r><rPh><t>ポ</t></rPh></si><si><t> a.png </t></si></sst>"
    rows = sheet(['<c r="A3" t="s"><v>0</v></c>', cell("C3", "video")], [], first=3)
    last = (
        '<row r="9"><c r="A9" t="s"><v>1</v></c><c r="C9" t="str"><f>X1</f><v>v.mp4</v></c></row></sheetData>'
    )
    data = workbook({"S": rows.replace("</sheetData>", last)}, {"xl/sharedStrings.xml": shared})
    found = read_table(data)
    assert (found.columns, found.header) == (["portrait", "", "video"], 3)
    assert found.records == [(9, {"portrait": "a.png", "video": "v.mp4"})]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><worksheet><sheetData>&a;</sheetData></worksheet>'
HOSTILE = {
    "document type": (workbook({"S": BOMB}), "declares a document type"),
    "large part": (
        workbook({"S": text_rows(ROWS[0])}, {"xl/sharedStrings.xml": "<sst>" + " " * 3_000_000 + "</sst>"}),
        "limits.table_bytes",
    ),
    "far column": (workbook({"S": sheet([cell("ZZZ1", "x")])}), "limits.table_columns"),
    "many rows": (workbook({"S": text_rows(*[("x",)] * 60)}), "limits.table_rows"),
    "sheet elsewhere": (
        workbook({"S": ""}, {"xl/_rels/workbook.xml.rels": "<Relationships/>"}),
        "is not a readable Excel workbook",
    ),
    "cut": (workbook({"S": text_rows(*ROWS)})[:-9], "is not a readable Excel workbook"),
    "no XML": (workbook({"S": "portrait,video"}), "is not a readable Excel workbook"),
    "no text of that number": (workbook({"S": sheet(['<c t="s"><v>7</v></c>'])}), "is not a readable Excel"),
    "empty": (workbook({"S": sheet()}), "has an empty first sheet"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_workbook_is_refused_in_bounds(name: str) -> None:
    data, words = HOSTILE[name]
    before = current_limits()
    use_limits(Limits(table_bytes=2_000_000, table_rows=50))
    try:
        with pytest.raises(InputError, match=words):
            read_table(data)
    finally:
        use_limits(before)


# Names of files


@pytest.mark.parametrize(("on_disk", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_found(folder: Path, on_disk: str, written: str) -> None:
    place = folder / unicodedata.normalize(on_disk, "Büro") / unicodedata.normalize(on_disk, "Zoë.png")  # type: ignore[arg-type]
    place.parent.mkdir()
    (folder / "a.png").rename(place)
    cells = unicodedata.normalize(written, "Büro/Zoë.png")  # type: ignore[arg-type]
    (row,) = read(folder, lines(",").replace("a.png", cells).encode()).rows
    assert row.portrait == str(place)


def test_separators_of_windows_are_understood_where_the_file_is_there(folder: Path) -> None:
    (folder / "A x").mkdir()
    (folder / "a.png").rename(folder / "A x" / "a.png")
    assert (
        read(folder, lines(",").replace("a.png", r"A x\a.png").encode()).rows[0].portrait
        == f"{folder}/A x/a.png"
    )
    (folder / "m.csv").write_text(lines(",").replace("a.png", r"C:\Users\me\a.png"))
    _, (problem,) = check_manifest(str(folder / "m.csv"))
    assert r"does not exist; check the path; paths are written with / here, not with \ " in problem.text


@pytest.mark.parametrize("cell", ["takes/one", r"takes\one", "takes/one/*.png", "takes/one/f_%04d.png"])
def test_a_folder_or_a_pattern_of_pictures_is_a_video(folder: Path, cell: str) -> None:
    (folder / "takes" / "one").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (64, 64), (i, i, i)).save(folder / "takes" / "one" / f"f_{i:04d}.png")
    (folder / "m.csv").write_text(lines(",").replace("v.mp4", cell))
    (row,) = read_manifest(str(folder / "m.csv"), deep=True, changes=["media.rate=3"]).rows
    assert row.video == str(folder / cell.replace("\\", "/"))
    assert row.frames == 3
    (folder / "m.csv").write_text(lines(",").replace("v.mp4", "takes"))
    _, (problem,) = check_manifest(str(folder / "m.csv"))
    assert "the video" in problem.text
    assert "is a folder without pictures" in problem.text


@pytest.mark.parametrize("given", ["B\u00fcro/a.png", "Bu\u0308ro\\a.png", "B\u00fcro/*.png"])
def test_options_are_spelled_as_on_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    place = folder / "Bu\u0308ro"
    place.mkdir()
    (folder / "a.png").rename(place / "a.png")
    monkeypatch.chdir(folder)
    assert as_on_disk(given) == str(place / given.replace("\\", "/").partition("/")[2])
    for kept in ("v.mp4", "nothing.mp4", r"C:\x.png", "s3://bucket/a.png", r"v*\mp4"):
        assert as_on_disk(kept) == kept


def test_a_name_that_holds_a_backslash_stays(folder: Path) -> None:
    (folder / "a.png").rename(folder / r"x\a.png")
    assert (
        read(folder, lines(",").replace("a.png", r"x\a.png").encode()).rows[0].portrait
        == rf"{folder}/x\a.png"
    )
