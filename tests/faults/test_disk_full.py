"""A disk that is really full in the middle of a write, and has space again."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import MakeBench, Whole
from tests.faults.content import broken, different
from tests.faults.events import done_again
from tests.faults.injected import FILL
from tests.faults.runs import STOPPED
from tests.faults.table import add_row, committed_count

SIZE = "64m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own: a tmpfs in a mount namespace, or a plain mount for root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)]
    script = f"mount {' '.join(options)} && echo mounted && exec sleep 3600"
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert holder.stdout is not None
    said = holder.stdout.readline().strip()
    try:
        if said == "mounted":
            # The namespace's files are seen from outside through its process; no need to enter it.
            yield Path(f"/proc/{holder.pid}/root{folder}")
            return
        plain = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if plain.returncode:
            pytest.skip(f"no disk of limited size can be mounted: {said}; {plain.stderr.strip()}")
        yield folder
        subprocess.run(["umount", str(folder)], check=False)
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("template", marks=[pytest.mark.slow, pytest.mark.each_change]),
        pytest.param("tuning", marks=pytest.mark.slow),
        pytest.param("render", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_stops_the_run_and_space_lets_it_go_on(
    bench: MakeBench, undisturbed: Whole, disk: Path, stage: str
) -> None:
    clip = bench(store=str(disk / "store"))
    run = clip.start(f"fill={stage}:before-data", warm=True, **{FILL: str(disk)})
    code = run.wait()
    assert (disk / "filler").exists(), "the disk was not filled"
    assert broken(Path(clip.store)) == []
    before = committed_count(clip)
    (disk / "filler").unlink()
    clip.finish()
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, "disk full (ENOSPC)", stage, 1, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    assert done_again(clip.events) == {}
    assert not list(Path(clip.store).rglob("*.partial")), "half-written files were left behind"
    said = run.output[-600:]
    assert code == STOPPED, said
    assert "Traceback" not in run.output, run.output[-3000:]
    assert re.search(r"no space left|disk( is)? full|full disk", said, re.IGNORECASE), said
