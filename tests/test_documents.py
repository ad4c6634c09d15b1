"""What the documents name exists: files, commands with their options, and links."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from tests.conftest import FfmpegRunner

ROOT = Path(__file__).resolve().parent.parent
_ELSEWHERE = (
    "SECURITY.md",
    "data/README.md",
    "deployments/README.md",
    "portrait_core/store/README.md",
    "tests/faults/README.md",
)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in _ELSEWHERE)]
_PATHS = re.compile(r"`((?:portrait_core|tasks|flows|tests|deployments)/[\w./]+)`")
_COMMAND = re.compile(r"(?:^\s*|&& )(?:uv run (?:--extra \w+ )?)?portrait\s+(.*)")
_LINKS = re.compile(r"\]\((?!https?:|#)([^)#]+)")
_ids = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_files_and_links_exist(document: Path) -> None:
    text = document.read_text()
    named = [ROOT / match for match in _PATHS.findall(text)]
    linked = [document.parent / match for match in _LINKS.findall(text)]
    assert [str(path) for path in named + linked if not path.exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_ids)
def test_commands_are_understood(document: Path) -> None:
    """Every ``portrait`` command names a command that there is, with options that it takes."""
    for line in _commands(document.read_text()):
        _parse(line)


@pytest.mark.parametrize("line", ["settings", "doctor", "models where"])
def test_commands_that_need_no_files_run(line: str) -> None:
    named = [command for document in DOCUMENTS for command in _commands(document.read_text())]
    assert f"portrait {line}" in [command.strip() for command in named]
    ended = CliRunner().invoke(app, line.split())
    assert ended.exit_code == 0, ended.output


def test_an_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(Exception, match="--speed"):
        _parse("portrait reenact --portrait a.png --video b.mp4 --speed 3")


def test_the_notebook_runs() -> None:
    cells = json.loads((ROOT / "docs" / "first_steps.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "first_steps.ipynb", "exec"), names)
    template = names["template"]
    assert template.image.shape == (2, 256, 256, 3)
    closed, opened = template.mouth_mask.sum(axis=(1, 2))
    assert opened > 5 * closed


@pytest.mark.slow
def test_the_lines_of_python_animate_a_portrait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: Path, carphone: Path, ffmpeg_to: FfmpegRunner
) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    Image.open(portrait).save(tmp_path / "face.jpg")
    shutil.copy(ffmpeg_to("six.mp4", "-i", carphone, "-frames:v", 6), tmp_path / "driver.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert len(names["latents"]) == 6
    assert (tmp_path / "runs" / "face" / "reenactment.mp4").stat().st_size > 1000


def _commands(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = (_COMMAND.search(line.split(" #")[0]) for line in lines)
    return [f"portrait {match[1]}" for match in found if match]


def _parse(line: str) -> None:
    """Raise what the command line raises where it does not understand ``line``."""
    words = [word for word in shlex.split(line)[1:] if word != "..."]
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="portrait")
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        context = command.context_class(command, info_name=name, parent=context)
        context.resilient_parsing = "..." in line  # options that the document leaves out are not missed
    command.parse_args(context, words)
