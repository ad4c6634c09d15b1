"""Tables of labels: what is read, what is told row by row, and how they complete local labels."""

from pathlib import Path

import fsspec
import pytest

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Condition, Conditions
from portrait_core.attribute_editing.label_tables import (
    LabelsError,
    complete_labels,
    picture_key,
    read_labels,
)
from portrait_core.errors import InputError

FEW = PUBLISHED_CONDITIONS.without([*(f"light_{i}" for i in range(9)), "baldness"]).with_held(
    {"yaw": 0, "pitch": 0}
)


def write(folder: Path, text: str) -> str:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def told(folder: Path, text: str, conditions: Conditions = FEW) -> list[tuple[int, str]]:
    with pytest.raises(LabelsError) as caught:
        read_labels(write(folder, text), conditions)
    return [(problem.row, problem.text) for problem in caught.value.problems]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_reads_switches_numbers_and_gaps(tmp_path: Path, mark: str) -> None:
    rows = ["Picture,glasses,age,beard,light_0", "faces/a.png,on,31.5,,0.9", "", "0007,OFF,80,0.25,"]
    found = read_labels(write(tmp_path, "\n".join(rows).replace(",", mark)), FEW)
    assert found == {
        "a.png": {"glasses": 1.0, "age": 31.5},
        "7": {"glasses": 0.0, "age": 80.0, "beard": 0.25},
    }


def test_reads_from_elsewhere_and_any_schema() -> None:
    own = Conditions(attributes=(Condition(name="hairLength", unit="cm", high=100.0),))
    fsspec.filesystem("memory").pipe_file("/labels/l.csv", b"picture,hairlength\nx.jpg,-3\n")
    assert read_labels("memory://labels/l.csv", own) == {"x.jpg": {"hairLength": -3.0}}
    with pytest.raises(LabelsError, match="does not exist"):
        read_labels("memory://labels/none.csv", own)


def test_every_bad_row_is_told(tmp_path: Path) -> None:
    rows = [
        "picture,glasses,age,beard",
        "a.png,maybe,old,0.5",
        "b.png,on,nan,1.5",
        ",off,3,0",
        "x/a.png,off,3,0",
        "c.png,2,3,0,9",
        'd.png,off,"3,5",0',
        "e.png,off,3,0",
    ]
    assert told(tmp_path, "\n".join(rows)) == [
        (2, "age is 'old', expected a number in years, such as 65"),
        (2, "glasses is 'maybe', expected on, off or a number in 0..1"),
        (3, "age is 'nan', expected a number in years, such as 65; leave the cell empty for no label"),
        (3, "beard is 1.5, expected 0..1"),
        (4, "the cell 'picture' is empty; give the file's name or the sample's number"),
        (5, "the picture a.png is also in row 2; give each picture one row"),
        (6, "has more cells than the header has names; put a cell that holds a separator into quotes"),
        (7, "age is '3,5', expected a number in years, such as 65; write decimals with a point"),
    ]


def test_columns_are_told(tmp_path: Path) -> None:
    assert told(tmp_path, "file,colour\na.png,3") == [
        (1, "unknown column 'file'; delete it. Columns are picture, " + ", ".join(FEW.names)),
        (1, "unknown column 'colour'; delete it. Columns are picture, " + ", ".join(FEW.names)),
        (1, "there is no column 'picture' (each picture's file name or number); add it"),
        (1, "there is no column of an attribute; add some of " + ", ".join(FEW.names)),
    ]
    ((row, text),) = told(tmp_path, "picture,beard,glases\na.png,0,on")
    assert (row, text.split(".")[0]) == (
        1,
        "unknown column 'glases'; did you mean glasses? Columns are picture, " + ", ".join(FEW.names),
    )
    assert told(tmp_path, "picture,age,age\na.png,3,4") == [(1, "the column 'age' comes twice; delete one")]
    assert told(tmp_path, "picture,age\n") == [(0, "holds no row; give each picture a row below the header")]
    assert told(tmp_path, "\n")[0][1].startswith("is empty; its first row names the columns: picture, gender")


def test_the_table_wins_and_fills_gaps() -> None:
    local = {
        "in/a.png": {"age": 31.0, "gender": 0.1, "expression": 1.0, "yaw": 4.0},
        "in/b.png": {"age": 20.0},
    }
    table = {
        "a.png": {"age": 42.0, "glasses": 0.0, "beard": 0.0},
        "b.png": {"gender": 1.0, "glasses": 1.0, "beard": 0.5, "expression": 0.0},
        "other.png": {"age": 3.0},
    }
    whole = complete_labels(local, table, FEW)
    assert list(whole) == ["in/a.png", "in/b.png"]
    assert whole["in/a.png"] == {"gender": 0.1, "glasses": 0.0, "beard": 0.0, "age": 42.0, "expression": 1.0}
    assert whole["in/b.png"] == {"gender": 1.0, "glasses": 1.0, "beard": 0.5, "age": 20.0, "expression": 0.0}
    for values in whole.values():
        assert FEW.vector(values).shape == (len(FEW),)


def test_what_is_missing_is_named() -> None:
    local = {f"{i}.png": {"age": 31.0, "gender": 0.1, "expression": 1.0} for i in range(8)}
    local["3.png"] = {}
    with pytest.raises(InputError) as caught:
        complete_labels(local, {}, FEW)
    lines = str(caught.value).splitlines()
    assert lines[0] == "gender is missing for 1 of 8 pictures (3.png)"
    assert lines[1] == "glasses is missing for 8 of 8 pictures (0.png, 1.png, 2.png, 3.png, 4.png and 3 more)"
    assert [line.split()[0] for line in lines[2:5]] == ["beard", "age", "expression"]
    assert "CSV with a column 'picture'" in lines[-1]


def test_a_table_of_other_pictures_is_told() -> None:
    with pytest.raises(InputError, match=r"no row of the table .* names b\.jpg, the pictures are a\.png"):
        complete_labels({"a.png": {"age": 1.0}}, {"b.jpg": {"age": 2.0}}, FEW)
    with pytest.raises(InputError, match=r"several pictures are named a\.png"):
        complete_labels({"x/a.png": {}, "y/a.png": {}}, {"a.png": {"age": 2.0}}, FEW)


def test_keys() -> None:
    names = ("x/y/0012.png", " a b.jpg ", "00012", "s3://b/c.png", "c:\\d\\e.png")
    assert [picture_key(name) for name in names] == ["0012.png", "a b.jpg", "12", "c.png", "e.png"]
