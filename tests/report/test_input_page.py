"""The page of a dataset's inputs shows a stranger's text as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from portrait_core.report.input_page import PAGE, InputEntry, write_page


def test_texts_are_escaped_and_pictures_are_files(tmp_path: Path) -> None:
    picture = np.full((20, 30, 3), 200, np.uint8)
    entries = [
        InputEntry(
            "portrait", "<script>alert(1)</script>\x1b[31m.png", (2, 3), "9x9", ("a & b",), "", picture
        ),
        InputEntry("video", "b.mp4", tuple(range(20)), "", refused='" onload="x'),
    ]
    text = write_page(tmp_path / "page", entries).read_text()
    assert "2 inputs, 1 refused, 1 with notes" in text
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "a &amp; b" in text
    assert '" onload' not in text.replace("&quot;", "")
    assert Image.open(tmp_path / "page" / "00000.jpg").size == (30, 20)
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == ["00000.jpg", PAGE]
