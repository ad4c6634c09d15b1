"""What a user's table of labels adds to the key of an edit."""

from __future__ import annotations

from pathlib import Path

from tasks.ingest import _row_digest


def test_a_portrait_under_another_name_has_another_row(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("picture,age\na.png,30\nb.png,60\n")
    first = _row_digest(str(table), "/photos/a.png")
    assert first == _row_digest(str(table), "s3://photos/a.png?signature=x")
    assert first != _row_digest(str(table), "/photos/b.png")
    table.write_text("picture,age\na.png,31\nb.png,60\n")
    assert first != _row_digest(str(table), "/photos/a.png")
    assert _row_digest("photograph", "/photos/a.png") == ""
