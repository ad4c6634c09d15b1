"""A small run, and servers that end with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FfmpegRunner
from tests.deployments.processes import Processes
from tests.flows.conftest import small, tiny_generator  # noqa: F401 - fixtures


@pytest.fixture(scope="session")
def clip(ffmpeg_to: FfmpegRunner, carphone: Path) -> Path:
    """Six frames of the sample video."""
    options = ("-frames:v", "6", "-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p")
    return ffmpeg_to("deployments-6.mp4", "-i", carphone, *options)


@pytest.fixture(scope="session")
def parameters(portrait: Path, clip: Path, small: list[str]) -> dict[str, Any]:  # noqa: F811
    """Parameters of the flow `reenact` for a run of seconds, without ``store`` and ``out``."""
    return {"portrait": str(portrait), "video": str(clip), "overrides": small}


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts programs."""
    started = Processes(tmp_path)
    yield started
    started.end()
