"""Readers of what a user or a stranger writes: manifests, tables of labels, overrides, profiles, edits."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from portrait_core.attribute_editing.edit_requests import as_override, parse_requests
from portrait_core.attribute_editing.label_tables import LabelsError, read_labels
from portrait_core.dataset.manifest import check_manifest
from portrait_core.errors import InputError
from portrait_core.inputs.table import ManifestError
from portrait_core.settings import load_settings
from portrait_core.settings.trust import settings_of_row
from portrait_core.store.places import (
    folder_of,
    local_path,
    place_problem,
    redact_message,
    redact_place,
    resolve_place,
)
from tests.fuzz.harness import Target, from_file

_COLUMNS = ("portrait", "video", "name", "profile", "overrides", "edit", "licence", "consent", "row")
_ROWS = (
    (
        "a.png",
        "b.mp4",
        "one",
        "embedded",
        "media.max_frames=8; tuning.steps=40",
        "age=+20; beard=0.8",
        "CC0",
        "x",
        "2",
    ),
    ("/c/d.png", "s3://bucket/e.mp4", "", "fast", "", "", "CC BY", "form 7", "5"),
    ('"quoted, cell"', "https://host/a.mp4?sig=1", "two", "", "seed=3", "age=60", "x", "y", ""),
)
_WORDS = (
    b"portrait", b"overrides", b"runner.kind=threads", b"limits.picture_pixels=9", b"::", b"reference://",
    b"zip://", b"file://", b"http://", b"~root/", b"/dev/zero", b"../", b"\0", b"\xff\xfe", b'"', b"\r\n",
    b"\r",
    b";", b"\t", b"=", b"&a [", b"*a", b"<<: ", b"!!python/object/apply:os.system", b"!!timestamp ",
    b"!!int ",
    b"!!float ", b"!!binary ", b"!!set ", b"!!omap ", b"!!pairs ", b"!!bool ", b"{", b"[[[[", b"- ",
    b"? ",
    b"0x", b"1:1:1", b".inf", b"nan", b"1e999", b"99999999999999999999", b"extends: ", b"embedded",
    b"\x1b[2J",
    b"null", b"true", b"off", b"|\n ", b">\n ", b"%YAML 9.9\n", b"--- ", b"2001-99-99", b"\xe2\x80\xae",
    b"PAR1",
)  # fmt: skip


def _csv() -> Sequence[bytes]:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',;"') else text

    lines = [",".join(_COLUMNS), *(",".join(map(cell, row)) for row in _ROWS)]
    text = "\n".join(lines) + "\n"
    return text.encode(), text.replace(",", ";").encode(), b"\xef\xbb\xbfportrait\tvideo\na.png\tb.mp4\n"


def _parquet_of(columns: dict[str, list[str | None]], **options: object) -> bytes:
    target = io.BytesIO()
    pq.write_table(
        pa.table({name: pa.array(cells, pa.string()) for name, cells in columns.items()}), target, **options
    )
    return target.getvalue()


def _parquet() -> Sequence[bytes]:
    columns: dict[str, list[str | None]] = {
        name: [row[i] or None for row in _ROWS] for i, name in enumerate(_COLUMNS)
    }
    return (
        _parquet_of(columns),
        _parquet_of(columns, compression="zstd", use_dictionary=False),
        _parquet_of({"portrait": ["a.png"] * 40, "video": ["b.mp4"] * 40}, compression="gzip"),
    )


def _labels() -> Sequence[bytes]:
    return b"picture,age,glasses\na.png,30,on\nb.png,,0.5\n", b"picture;age\n0001;31\n2;29.5\n"


def _label_parquet() -> Sequence[bytes]:
    return (_parquet_of({"picture": ["a.png", "b.png"], "age": ["30", None]}),)


def _overrides() -> Sequence[bytes]:
    return (
        b"media.max_frames=8", b"tuning.steps=400", b"template.neutral_frame=null", b"render.motion=camera",
        b"edit.attributes=[age=+20]", b"inversion={steps: 4}", b"output.alpha=false", b"seed=12",
        b"evaluation.views=[[0, 0.1, 0.2, 1]]", b"generator.weights='a b'",
    )  # fmt: skip


def _read_override(data: bytes) -> object:
    text = data.decode("utf-8", "replace")
    return settings_of_row("embedded", (), text.split("; "), _COMMAND)


def _profiles() -> Sequence[bytes]:
    return (
        b"extends: embedded\nmedia:\n  max_frames: 8\ntuning: {steps: 40}\n",
        b"extends: fast\nseed: 3\nedit:\n  attributes: [age=+20]\n",
        b"# nothing\n",
        b"extends: paper\nrender:\n  motion: camera\nrunner:\n  workers: 2\n",
    )


def _read_profile(path: Path) -> object:
    return settings_of_row(path, (), (), _COMMAND)


def _edits() -> Sequence[bytes]:
    return b"age=+20; beard=0.8", b"glasses=on, smile=-1", b"age=60"


def _read_edit(data: bytes) -> object:
    requests = parse_requests([data.decode("utf-8", "replace")])
    return as_override(requests), [request.slug for request in requests]


def _places() -> Sequence[bytes]:
    return (
        b"https://user:password@host:80/a/b.png?X-Amz-Signature=1#x", b"s3://bucket/a/b.mp4", b"/a/b c.png",
        b"~/a.png", b"file:///a/b.png", b"memory://a/b", b"az://container@account/a.png",
    )  # fmt: skip


def _read_place(data: bytes) -> object:
    text = data.decode("utf-8", "surrogateescape")
    if place_problem(text):
        return redact_place(text), redact_message(f"cannot read {text}: no", text)
    return (
        local_path(text),
        folder_of(text),
        resolve_place("/a", text),
        resolve_place("s3://b/c", text),
        redact_place(text),
    )


_COMMAND = load_settings("embedded")

TARGETS = (
    Target(
        "manifest-csv", _csv, from_file("m.csv", lambda path: check_manifest(str(path))), (ManifestError,),
        _WORDS,
        examples=40,
    ),
    Target(
        "manifest-parquet", _parquet, from_file("m.parquet", lambda path: check_manifest(str(path))),
        (ManifestError,), _WORDS, examples=40,
    ),
    Target("labels-csv", _labels, from_file("l.csv", lambda path: read_labels(str(path))), (LabelsError,),
    _WORDS),
    Target("labels-parquet", _label_parquet, from_file("l.parquet", lambda path: read_labels(str(path))),
    (LabelsError,), _WORDS, examples=50),
    Target("overrides", _overrides, _read_override, (ValueError,), _WORDS, examples=40),
    Target("profile", _profiles, from_file("p.yaml", _read_profile), (ValueError,), _WORDS, examples=40),
    Target("edits", _edits, _read_edit, (InputError,), _WORDS),
    Target("places", _places, _read_place, (), _WORDS),
)  # fmt: skip
"""Targets of this module."""
