"""One measurement in this process: ``python -m tests.benchmarks.step.measure '{"kind": ...}'``.

Prints a line of JSON: ``rows``, or what a card said.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from portrait_core.runtime.allocator import keep_freed_memory
from tests.benchmarks.measure import resident_peak_mib
from tests.benchmarks.step import card, counting, host
from tests.benchmarks.step.workloads import Workload, work_folder
from tests.second_device import register_early, require


@dataclass(frozen=True)
class StepJob:
    """What a process measures.

    Attributes:
        kind: ``count``, ``prepare``, ``cpu`` or ``card``.
        profile: of :data:`tests.benchmarks.step.workloads.PROFILES`.
        loop: ``inversion`` or ``tuning``, of the first two kinds.
        precision, graphs: of a card.
        steps: measured steps, of ``cpu``.
    """

    kind: str
    profile: str
    loop: str = ""
    precision: str = "auto"
    graphs: bool = False
    steps: int = 6

    @property
    def name(self) -> str:
        """For a line of progress."""
        captured = "captured" if self.graphs else "plain"
        about = {
            "count": f"operations of {self.loop}",
            "prepare": f"preparation of {self.loop}",
            "cpu": "CPU seconds",
            "card": f"on the card, {self.precision}, {captured}",
        }
        return f"{self.profile}: {about[self.kind]}"


_COUNTED_FRAMES, _PREPARED_FRAMES = 2, 100


def measure(job: StepJob, folder: Path) -> dict[str, Any]:
    """Do what a job says."""
    torch.set_num_threads(1)
    if job.kind == "card":
        return card.card_times(Workload(job.profile, "cuda", folder, card.FRAMES, job.precision, job.graphs))
    if job.kind == "count":
        register_early()
        require()
        work = Workload(job.profile, "second", folder, _COUNTED_FRAMES)
        count = counting.inversion_counts if job.loop == "inversion" else counting.tuning_counts
        rows = count(work)
    else:
        keep_freed_memory()  # as every stage of a run does
        work = Workload(job.profile, "cpu", folder, _PREPARED_FRAMES if job.kind == "prepare" else 4)
        prepare = {"inversion": host.inversion_preparation, "tuning": host.tuning_preparation}
        rows = host.cpu_seconds(work, job.steps) if job.kind == "cpu" else prepare[job.loop](work)
    return {"rows": rows, "peak_mib": resident_peak_mib()}


def main(argument: str) -> None:
    """Measure, and print what was found."""
    with work_folder() as folder:
        print(json.dumps(measure(StepJob(**json.loads(argument)), Path(folder))))


if __name__ == "__main__":
    main(sys.argv[1])
