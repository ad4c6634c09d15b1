"""Benches for fault tests, results of undisturbed runs to compare with, and the table at the end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import FfmpegRunner
from tests.faults.content import content
from tests.faults.events import timeline
from tests.faults.runs import DONE, Bench
from tests.faults.table import ROWS, markdown
from tests.flows.conftest import small, tiny_generator  # noqa: F401 - fixtures

FRAMES, LONG = 6, 24
LONG_CHANGES = ("tuning.steps=60", "inversion.first_steps=24")
"""A run with more steps between which a kill can come."""
MakeBench = Callable[..., Bench]


@dataclass(frozen=True)
class Undisturbed:
    """A run without faults."""

    content: dict[str, str]
    timeline: dict[tuple[str, int], float]
    seconds: float


Whole = Callable[..., Undisturbed]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was injected and what happened; keep it as Markdown where ``PORTRAIT_FAULT_TABLE`` says."""
    if not ROWS:
        return
    terminalreporter.section("faults injected")
    terminalreporter.write(markdown(ROWS))
    if path := os.environ.get("PORTRAIT_FAULT_TABLE"):
        Path(path).write_text(markdown(ROWS), encoding="utf-8")


@pytest.fixture(scope="session")
def clip(ffmpeg_to: FfmpegRunner, carphone: Path) -> Callable[[int], Path]:
    """``clip(frames)``: the start of the sample video, with sound. Every frame shows a face, so a finished
    run ends with 0."""

    def make(frames: int) -> Path:
        sound = f"sine=frequency=440:sample_rate=44100:duration={frames * 1001 / 30000:.4f}"
        return ffmpeg_to(
            f"faults-{frames}.mp4",
            *("-i", carphone, "-f", "lavfi", "-i", sound, "-frames:v", str(frames), "-c:v", "libx264"),
            *("-crf", "10", "-pix_fmt", "yuv420p", "-c:a", "aac", "-map", "0:v", "-map", "1:a"),
        )

    return make


@pytest.fixture(scope="session")
def command(
    portrait: Path,
    small: list[str],  # noqa: F811
    clip: Callable[[int], Path],
) -> Callable[..., Callable[[str], list[str]]]:
    """``command(out, frames, *changes)``: the command line of a small run, given the store."""

    def make(out: Path, frames: int, *changes: str) -> Callable[[str], list[str]]:
        settings = [part for change in (*small, *changes) for part in ("--set", change)]
        places = ["--portrait", portrait, "--video", clip(frames), "--out", out]
        return lambda store: ["reenact", *map(str, places), "--store", store, *settings]

    return make


@pytest.fixture
def bench(tmp_path: Path, command: Callable[..., Callable[[str], list[str]]]) -> Iterator[MakeBench]:
    """``bench(*changes, frames=..., store=...)``: a fresh store to be disturbed."""
    made: list[Bench] = []

    def make(*changes: str, frames: int = FRAMES, store: str = "", **env: str) -> Bench:
        folder = tmp_path / f"bench-{len(made)}"
        made.append(Bench(folder, command(folder / "out", frames, *changes), store, env))
        return made[-1]

    yield make
    for each in made:
        each.clean_up()


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Callable[[str], list[str]]]
) -> Whole:
    """``undisturbed(*changes, frames=...)``: such a run without faults, made once."""
    known: dict[tuple[object, ...], Undisturbed] = {}

    def get(*changes: str, frames: int = FRAMES) -> Undisturbed:
        if (frames, *changes) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            whole = Bench(folder, command(folder / "out", frames, *changes))
            begin = time.monotonic()
            run = whole.start()
            assert run.wait() == DONE, run.output[-3000:]
            seconds = time.monotonic() - begin
            known[(frames, *changes)] = Undisturbed(content(whole.store), timeline(whole.events), seconds)
        return known[(frames, *changes)]

    return get
