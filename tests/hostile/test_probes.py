"""The program holds against every probe, one test each; and the tools of the probes work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.bench import ROOT, Bench
from tests.hostile.capped import run_capped
from tests.hostile.probes import all_probes, verdict
from tests.hostile.registry import Probe


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the finished store that many probes tamper with."""
    before = os.umask(0o022)
    yield tmp_path_factory.mktemp("probes")
    os.umask(before)


@pytest.mark.slow
@pytest.mark.parametrize("probe", all_probes(), ids=lambda probe: probe.name)
def test_the_program_holds(probe: Probe, shared: Path) -> None:
    word, evidence = verdict(probe, ROOT, shared)
    assert word == "holds", f"{probe.title} {evidence}"


def test_every_row_of_the_first_attack_has_probes_and_names_are_unique() -> None:
    probes = all_probes()
    assert {probe.row for probe in probes} == set(range(23))
    assert len({probe.name for probe in probes}) == len(probes)


def test_a_child_is_capped_and_its_peak_is_its_own(tmp_path: Path) -> None:
    kept = bytearray(300 << 20)  # must not count for the child
    environment = {"PATH": os.environ["PATH"]}

    def run(code: str, seconds: float = 20.0) -> tuple[int | None, float]:
        ended = run_capped([sys.executable, "-c", code], environment, tmp_path, seconds, 1 << 30)
        return ended.code, ended.peak_mb

    assert run("print(1)")[1] < 100 < len(kept) / 1e6
    code, peak_mb = run("x = bytearray(200 << 20)")
    assert code == 0
    assert peak_mb > 200
    assert run("x = bytearray(2 << 30)")[0] == 1
    assert run("import time; time.sleep(60)", 0.3)[0] is None


def test_a_bench_runs_the_checkout_that_it_is_given(tmp_path: Path) -> None:
    ended = Bench(tmp_path, ROOT, tmp_path).python("import portrait_core; print(portrait_core.__file__)")
    assert ended.last_line.startswith(str(ROOT))
