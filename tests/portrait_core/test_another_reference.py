"""The parity tests on reference folders with other seeds and shapes, written by the plain implementations."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMS = (
    "deca_decode",
    "deca_encoder",
    "deep3dface",
    "eg3d",
    "eg3d_camera",
    "flame",
    "model_files",
    "plain",
    "plain_faces",
    "styleflow",
    "stylegan2",
)
"""Tests whose part of the folder ``tests.plain.folder`` writes."""


def run(*arguments: str, **variables: str) -> str:
    """The output of a Python command, which must succeed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_parity_holds_on_another_folder(tmp_path: Path, seed: int) -> None:
    """No test knows a seed, a size or a count of the published folder. The first folder's flow is narrow, the
    second's of the published size."""
    flow = ["--published-flow"] if seed == 2 else []
    run("-m", "tests.plain.folder", str(tmp_path), "--seed", str(seed), *flow)
    files = [f"tests/reference/test_{name}.py" for name in SYSTEMS]
    said = run("-m", "pytest", *files, "-rs", "-m", "slow or not slow", PORTRAIT_REFERENCE=str(tmp_path))
    assert "SKIPPED" not in said
