"""A network file as its owners publish it, from import to clip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, PARTIAL
from tests import published_pickle
from tests.flows.conftest import FRAMES, Arguments

CHAIN = ["inversion.init=mean", "inversion.steps=2", "inversion.mouth=render", "tuning.novel_view=0"]
"""What a generator without a tracker's latents needs: start at the mean, and steps for every frame."""


@pytest.mark.slow
def test_an_imported_generator_makes_a_clip(tmp_path: Path, arguments: Arguments) -> None:
    runner = CliRunner()
    published_pickle.write_eg3d(tmp_path / "ffhq.pkl")
    made = runner.invoke(app, ["models", "import", str(tmp_path / "ffhq.pkl"), "--out", str(tmp_path)])
    assert made.exit_code == 0, made.output
    changes = [*CHAIN, f"generator.weights={tmp_path / 'ffhq.safetensors'}", "generator.precision=bf16"]
    result = runner.invoke(app, arguments(tmp_path / "store", tmp_path / "out", *changes))
    assert result.exit_code == BAD_INPUT
    assert "set template.size=128" in " ".join(result.output.split())
    changes.append("template.size=128")
    result = runner.invoke(app, arguments(tmp_path / "store", tmp_path / "out", *changes))
    assert result.exit_code == PARTIAL, result.output  # the driver's third frame shows no face
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    done = {stage["stage"]: stage["frames_done"] for stage in summary["stages"]}
    assert done["inversion"] == FRAMES
    assert done["render"] == FRAMES
    assert (tmp_path / "out" / "reenactment.mp4").stat().st_size > 0


def test_a_published_generator_needs_the_mean_latent(tmp_path: Path, arguments: Arguments) -> None:
    published_pickle.write_eg3d(tmp_path / "ffhq.pkl")
    CliRunner().invoke(app, ["models", "import", str(tmp_path / "ffhq.pkl"), "--out", str(tmp_path)])
    changes = [f"generator.weights={tmp_path / 'ffhq.safetensors'}", "template.size=128"]
    result = CliRunner().invoke(app, arguments(tmp_path / "store", tmp_path / "out", *changes))
    assert result.exit_code == BAD_INPUT
    assert "set inversion.init=mean" in " ".join(result.output.split())


def test_a_2d_generator_is_refused_in_words(tmp_path: Path, arguments: Arguments) -> None:
    published_pickle.write_stylegan2(tmp_path / "faces.pkl")
    CliRunner().invoke(app, ["models", "import", str(tmp_path / "faces.pkl"), "--out", str(tmp_path)])
    changes = [*CHAIN, f"generator.weights={tmp_path / 'faces.safetensors'}"]
    result = CliRunner().invoke(app, arguments(tmp_path / "store", tmp_path / "out", *changes))
    assert result.exit_code == BAD_INPUT
    assert "2D" in result.output
