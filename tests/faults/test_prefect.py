"""A Prefect server killed in the middle of a run: the store resumes it with or without."""

from __future__ import annotations

import pytest

from tests.faults.conftest import MakeBench, Whole
from tests.faults.content import different
from tests.faults.events import done_again
from tests.faults.runs import DONE
from tests.faults.servers import HOST, free_port, prefect_server
from tests.faults.table import add_row, committed_count


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("stage", ["landmarks", "inversion"])
def test_the_prefect_server_dies(bench: MakeBench, undisturbed: Whole, stage: str) -> None:
    port = free_port()
    clip = bench("runner.prefect=auto")
    server = prefect_server(clip, port)
    env = {"PREFECT_API_URL": f"http://{HOST}:{port}/api", "PREFECT_HOME": str(clip.folder / "prefect")}
    run = clip.start(warm=False, **env)
    assert run.watch(lambda: clip.reached(stage)), run.output
    assert "Prefect shows this run" in run.output
    server.destroy()
    before = committed_count(clip)
    code = run.wait(600)
    if code != DONE:
        clip.finish(1, warm=False, **env)
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, "SIGKILL of the Prefect server", stage, 1, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    assert code == DONE, f"the run did not go on without the server:\n{run.output[-3000:]}"
    assert done_again(clip.events) == {}
