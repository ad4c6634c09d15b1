"""What a stranger's job, row or profile may not say: where the work is done, and with which code."""

from __future__ import annotations

from pathlib import Path

import pytest

from portrait_core.dataset.manifest import check_manifest
from portrait_core.errors import InputError
from portrait_core.settings import Settings, load_settings
from portrait_core.settings.cluster_options import CLUSTER_OPTIONS
from portrait_core.settings.trust import settings_of_row, with_runner_of

CODE = (
    "preload", "preload_argv", "preload_nanny", "worker_class", "worker_kwargs", "scheduler_kwargs",
    "scheduler_cls", "job_cls", "plugins", "extensions", "executor", "data", "config", "services",
    "worker_services", "blocked_handlers", "jupyter", "loop", "start",
)  # fmt: skip
"""Arguments of clusters, workers and schedulers that name code, carry it, or replace parts."""


@pytest.mark.parametrize("kind", CLUSTER_OPTIONS)
@pytest.mark.parametrize("option", CODE)
def test_no_cluster_takes_options_that_load_code(kind: str, option: str) -> None:
    with pytest.raises(ValueError, match=rf"runner\.cluster\.{option} is no option that runner\.kind={kind}"):
        load_settings("embedded", [f"runner.kind={kind}", f"runner.cluster.{option}=[os]"])


def test_a_refused_option_is_told_with_those_that_are_taken(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: embedded\nrunner: {kind: local_cluster, cluster: {preload: [code]}}\n")
    with pytest.raises(ValueError, match=r"it takes .*local_directory, memory_limit, name, processes"):
        load_settings(mine)
    for kind in ("slurm", "threads"):
        with pytest.raises(ValueError, match=r"scheduler_options\.preload is no option"):
            load_settings("embedded", [f"runner.kind={kind}", "runner.cluster.scheduler_options.preload=a"])
    with pytest.raises(ValueError, match="should hold options, got 'a'"):
        load_settings("embedded", ["runner.kind=slurm", "runner.cluster.scheduler_options=a"])


def test_what_the_operator_needs_is_taken() -> None:
    for kind, option in (
        ("slurm", "job_script_prologue=['module load x']"),
        ("slurm", "job_extra_directives=['--gpus=1']"),
        ("slurm", "scheduler_options.port=8786"),
        ("kubernetes", "custom_cluster_spec={metadata: {name: mine}}"),
        ("local_cluster", "processes=false"),
        ("local_gpus", "local_directory=/scratch"),
        ("threads", "queue=gpu"),
    ):
        load_settings("embedded", [f"runner.kind={kind}", f"runner.cluster.{option}"])


def test_options_exist_in_the_classes_that_take_them() -> None:
    from inspect import signature

    from distributed import LocalCluster, Nanny, Worker

    dask = {*signature(LocalCluster).parameters, *signature(Worker).parameters, *signature(Nanny).parameters}
    assert set(CLUSTER_OPTIONS["local_cluster"]) <= dask
    assert set(CLUSTER_OPTIONS["local_gpus"]) <= dask
    jobs = pytest.importorskip("dask_jobqueue.slurm", reason="the extra slurm is not installed")
    from dask_jobqueue.core import Job, JobQueueCluster

    taken = {name for made in (Job, JobQueueCluster, jobs.SLURMJob) for name in signature(made).parameters}
    assert set(CLUSTER_OPTIONS["slurm"]) <= taken
    operator = pytest.importorskip("dask_kubernetes.operator", reason="the extra kubernetes is not installed")
    ours = {"volumes", "volume_mounts"}
    assert set(CLUSTER_OPTIONS["kubernetes"]) - ours <= {*signature(operator.KubeCluster).parameters}


def test_a_stored_job_runs_where_the_command_says() -> None:
    command = load_settings("embedded", ["runner.workers=3", "device=cpu"])
    theirs = ["runner.kind=address", "runner.address=tcp://evil:1", "device=cuda", "seed=4"]
    job = load_settings("fast", theirs)
    for given in (job, job.model_dump(mode="json")):
        found = with_runner_of(given, command)
        assert (found.runner, found.device) == (command.runner, "cpu")
        assert (found.profile, found.seed, found.tuning) == ("fast", 4, job.tuning)
    assert not with_runner_of(job, command).commercial
    assert with_runner_of(job, command.model_copy(update={"commercial": True})).commercial
    assert with_runner_of(job.model_copy(update={"commercial": True}), command).commercial


def test_the_runner_of_a_stored_job_is_not_even_looked_at() -> None:
    stored = Settings(seed=5).model_dump(mode="json")
    stored["runner"] = {"kind": "local_cluster", "cluster": {"preload": ["import os"]}, "of": "later"}
    stored["device"] = "somewhere"
    found = with_runner_of(stored, Settings())
    assert (found.runner, found.device, found.seed) == (Settings().runner, "auto", 5)
    with pytest.raises(ValueError, match=r"setting tuning\.steps"):
        with_runner_of(stored | {"tuning": {"steps": "many"}}, Settings())


STEERING = (
    "runner.kind=local_cluster", "runner.cluster.preload=[code]", "runner={kind: address}", " runner . x = 1",
    "device=cuda", "limits.picture_pixels=9", "commercial=false",
    "runner.address=tcp://evil:1", "runner.prefect=never",
)  # fmt: skip


@pytest.mark.parametrize("override", STEERING)
def test_a_row_that_says_where_it_runs_is_refused(tmp_path: Path, override: str) -> None:
    for name in ("a.png", "v.mp4"):
        (tmp_path / name).write_bytes(b"x")
    lines = ["portrait,video,licence,consent,overrides", "a.png,v.mp4,x,y,", f'a.png,v.mp4,x,y,"{override}"']
    (tmp_path / "m.csv").write_text("\n".join(lines))
    found, problems = check_manifest(str(tmp_path / "m.csv"))
    assert [row.number for row in found.rows] == [2]
    assert [problem.row for problem in problems] == [3]
    assert (
        "may not stand in a row: runner, device, limits, commercial are those of the command"
        in problems[0].text
    )
    with pytest.raises(InputError, match="may not stand in a row"):
        settings_of_row("embedded", (), [override], Settings())


def test_a_row_s_profile_does_not_say_where_it_runs(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(
        "extends: paper\nrunner: {kind: address, address: 'tcp://evil:1'}\n"
        "device: second\ncommercial: false\ntuning: {steps: 7}\n"
    )
    command = load_settings("embedded", ["commercial=true", "runner.workers=3"])
    found = settings_of_row(theirs, ["runner.workers=3", "seed=2"], ["seed=9"], command)
    assert (found.runner, found.device, found.commercial) == (command.runner, "auto", True)
    assert (found.tuning.steps, found.seed, found.profile) == (7, 9, "theirs")
    assert settings_of_row("paper", (), (), command).runner == command.runner
