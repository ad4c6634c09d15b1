"""Small Excel workbooks, written part by part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def cell(place: str, value: str | float, style: int = 0) -> str:
    """A cell's XML: a text or a number."""
    if isinstance(value, str):
        return f'<c r="{place}" t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    return f'<c r="{place}" s="{style}"><v>{value}</v></c>'


def sheet(*rows: Sequence[str], first: int = 1) -> str:
    """A sheet's XML of rows of cells' XML."""
    made = "".join(f'<row r="{i}">{"".join(cells)}</row>' for i, cells in enumerate(rows, first))
    return f'<worksheet xmlns="{_MAIN}"><sheetData>{made}</sheetData></worksheet>'


def text_rows(*rows: Sequence[str]) -> str:
    """A sheet's XML of rows of texts, in columns A, B, C ..."""
    return sheet(
        *(
            [cell(f"{chr(65 + i)}{number}", text) for i, text in enumerate(row)]
            for number, row in enumerate(rows, 1)
        )
    )


def workbook(sheets: Mapping[str, str], more: Mapping[str, str] | None = None, formats: str = "") -> bytes:
    """A workbook of sheets by name.

    Args:
        sheets: XML of each.
        more: further parts by name.
        formats: XML of ``numFmts`` and ``cellXfs``.
    """
    names = "".join(
        f'<sheet name="{escape(name)}" sheetId="{i}" r:id="rId{i}"/>' for i, name in enumerate(sheets, 1)
    )
    links = "".join(
        f'<Relationship Id="rId{i}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{i}.xml"/>'
        for i in range(1, len(sheets) + 1)
    )
    parts = {
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{names}</sheets>'
        "</workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_PACKAGE}">{links}</Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}">{formats}</styleSheet>',
        **{f"xl/worksheets/sheet{i}.xml": xml for i, xml in enumerate(sheets.values(), 1)},
        **(more or {}),
    }
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, xml in parts.items():
            archive.writestr(name, xml)
    return target.getvalue()
