"""Kinds of files by their first bytes: words and advice for the message that refuses one."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from portrait_core.media.binary import ffmpeg_binary
from portrait_core.runtime.regular_files import open_regular

Family = Literal[
    "picture", "video", "sound", "table", "document", "archive", "weights", "page", "pointer", "other"
]
"""What a kind of file is for; ``video`` is every file whose pictures move."""
Wanted = Literal["picture", "video"]

HEAD_BYTES = 4096
"""Number of first bytes that tell the kind of a file."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file; false where the bytes tell nothing."""

    family: Family = "other"
    words: str = ""
    """Words that follow "it is"."""

    def __bool__(self) -> bool:
        return bool(self.words)

    def __str__(self) -> str:
        return self.words


_KINDS: tuple[tuple[bytes, Family, str], ...] = (
    # lists and pages of text
    (rb"\s*#EXTM3U", "other", "a playlist, which names other files"),
    (rb"\s*<.*<MPD[\s>]|\s*<MPD[\s>]", "other", "a playlist, which names other files"),
    (rb"\s*ffconcat", "other", "a list of other files"),
    (rb"v=0\r?\n", "other", "a description of a stream, which names a host"),
    (rb"version https://git-lfs", "pointer", "a pointer of Git LFS instead of the file"),
    (rb"\s*<.*<svg[\s>]|\s*<svg[\s>]", "document", "a drawing (SVG)"),
    (rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype )?html", "page", "a web page"),
    # pictures
    (rb"\xff\xd8\xff", "picture", "a JPEG picture"),
    (rb"\x89PNG\r\n\x1a\n(?:(?!IDAT).)*acTL", "video", "an animated PNG"),
    (rb"\x89PNG\r\n\x1a\n", "picture", "a PNG picture"),
    (rb"GIF8[79]a", "picture", "a GIF picture"),
    (rb"RIFF.{4}WEBPVP8X.{4}[\x02\x03\x06\x07\x0a\x0b\x0e\x0f\x12\x13\x16\x17\x1a\x1b\x1e\x1f"
     rb"\x22\x23\x26\x27\x2a\x2b\x2e\x2f\x32\x33\x36\x37\x3a\x3b\x3e\x3f]", "video", "an animated WebP"),
    (rb"RIFF.{4}WEBP", "picture", "a WebP picture"),
    (rb".{4}ftypavis", "video", "an animated AVIF"),
    (rb".{4}ftyp.{0,40}avif", "picture", "an AVIF picture"),
    (rb".{4}ftyp(hei[cfxms]|he[v]c|mif1|msf1)", "picture", "a HEIC picture"),
    (rb"II[*+]\0|MM\0[*+]", "picture", "a TIFF picture or a camera's raw file"),
    (rb"BM.{4}\0{4}", "picture", "a BMP picture"),
    (rb"P[1-7]\s", "picture", "a PPM picture"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "picture", "a JPEG XL picture"),
    (rb"\0\0\0\x0cjP  ", "picture", "a JPEG 2000 picture"),
    (rb"v/1\x01|#\?R", "picture", "a picture of high dynamic range (EXR, HDR)"),
    (rb"\0\0\x01\0[^\0]\0", "picture", "an icon"),
    # sound before video, because the containers are the same
    (rb".{4}ftypM4[AB]", "sound", "an M4A sound file"),
    (rb"ID3|\xff[\xfb\xf3\xf2]", "sound", "an MP3 sound file"),
    (rb"fLaC|RIFF.{4}WAVE|FORM.{4}AIF|#!AMR|MThd|\xff[\xf1\xf9]", "sound", "a sound file"),
    (rb"OggS(?!.{0,200}(theora|video))", "sound", "an Ogg sound file"),
    (rb"OggS", "video", "an Ogg video"),
    (rb".{4}ftypqt|.{4}(moov|mdat|wide|free|skip)", "video", "a MOV video"),
    (rb".{4}ftyp3g", "video", "a 3GP video"),
    (rb".{4}ftyp", "video", "an MP4 video"),
    (rb"\x1aE\xdf\xa3.{0,60}webm", "video", "a WebM video"),
    (rb"\x1aE\xdf\xa3", "video", "a Matroska video"),
    (rb"RIFF.{4}AVI ", "video", "an AVI video"),
    (rb"(.{4})?G.{187}(.{4})?G.{187}", "video", "an MPEG-TS video"),
    (rb"\0\0\x01[\xba\xb3]", "video", "an MPEG video"),
    (rb"FLV\x01", "video", "an FLV video"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", "a WMV video"),
    (rb"YUV4MPEG2|\x06\x0e\x2b\x34|\.RMF", "video", "a video"),
    # documents and tables
    (rb"%!PS|\xc5\xd0\xd3\xc6", "document", "a PostScript drawing"),
    (rb"%PDF", "document", "a PDF document"),
    (rb"8BPS", "document", "a Photoshop document"),
    (rb"gimp xcf", "document", "a GIMP document"),
    (rb"PK\x03\x04.*(xl/|spreadsheet)", "table", "an Excel workbook or another spreadsheet"),
    (rb"PK\x03\x04.*(\[Content_Types\]|word/|ppt/|opendocument)", "document", "an Office document"),
    (rb"\xd0\xcf\x11\xe0", "document", "an Office document of the old kind (.xls, .doc)"),
    (rb"PAR1", "table", "a Parquet table"),
    # files of networks
    (rb"PK\x03\x04.{26}[^/]*/(data\.pkl|byteorder|version)", "weights", "a PyTorch file of weights"),
    (rb"\x80[\x02-\x05]", "weights", "a Python pickle, such as a file of weights"),
    (rb".{4}\0{4}\{", "weights", "a safetensors file of weights"),
    (rb"\x08[\x01-\x10][\x12\x3a\x42]", "weights", "a network (ONNX)"),
    (rb"\x89HDF|\x93NUMPY|GGUF|.{4}TFL3", "weights", "a file of numbers or weights"),
    # the rest
    (rb"PK[\x03\x05]|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd", "archive", "an archive"),
    (rb".{257}ustar", "archive", "an archive"),
    (rb"\0\x05\x16[\0\x07]", "pointer", "a Mac's companion file (._NAME) instead of the file NAME"),
    (rb"\0\0\0\x01Bud1", "other", "a Mac's note about a folder (.DS_Store)"),
    (rb"\x7fELF|MZ|#!", "other", "a program"),
)  # fmt: skip
_KNOWN = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE if text else re.DOTALL), FileKind(family, words))
    for pattern, family, words in _KINDS
    for text in [pattern.startswith((rb"\s", b"(\\xef"))]
)
_ADVICE: dict[Family, str] = {
    "page": "a page came instead of the file, perhaps one to log in: open the address in a browser and save "
    "the file itself",
    "archive": "unpack it, and give a file of it",
    "weights": "settings name such files, for example `--set generator.weights=FILE`",
    "pointer": "fetch or give the file itself (of Git LFS, with `git lfs pull`)",
}
_PICTURE = "save it as PNG or JPEG"
_VIDEO = "give a video, such as MP4, MOV, WebM or GIF"


def kind_of(head: bytes) -> FileKind:
    """Return the kind of a file.

    Args:
        head: its first :data:`HEAD_BYTES` bytes, or all of a shorter file.
    """
    for pattern, kind in _KNOWN:
        if pattern.match(head):
            return kind
    try:
        text = head.decode("utf-8", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return FileKind()
    plain = sum(char.isprintable() or char.isspace() for char in text)
    if not head or plain < len(text) or len(text) <= len(head) // 4:
        return FileKind()
    return FileKind("other", "a JSON file" if text.lstrip()[:1] in ("{", "[") else "a text file")


def kind_at(path: Path) -> FileKind:
    """Return the kind of a file of this machine; of one that cannot be read, a false one."""
    try:
        with open_regular(path) as file:
            return kind_of(file.read(HEAD_BYTES))
    except OSError:
        return FileKind()


def advice(kind: FileKind, wanted: Wanted, path: str) -> str:
    """Return the next step for a file that cannot be read as what is wanted.

    Args:
        kind: what the file is.
        wanted: what it was to be.
        path: its path, for a command.
    """
    if wanted == "picture" and kind.family == "video":
        return f"a portrait is one picture, such as a frame of it: `{first_frame_command(path)}`"
    if wanted == "video" and kind.family == "sound":
        return f"it holds no video, though perhaps a cover picture; {_VIDEO}"
    if wanted == "video" and kind.family == "picture":
        return f"a picture is what a portrait takes; {_VIDEO}"
    if kind.family == wanted:
        return "copy it again from its source" + (f", or {_PICTURE}" if wanted == "picture" else "")
    if kind.family == "document" and wanted == "picture":
        return "export its picture as PNG or JPEG"
    return _ADVICE.get(kind.family) or (_PICTURE if wanted == "picture" else _VIDEO)


def first_frame_command(path: str) -> str:
    """Return a command that works here and writes a video's first frame as a picture."""
    program = "ffmpeg" if shutil.which("ffmpeg") else shlex.quote(ffmpeg_binary())
    given = f"file:{path}" if ":" in path and "://" not in path else path
    return f"{program} -i {shlex.quote(given)} -frames:v 1 portrait.png"
