"""Settings are written down in several places, since each is read by another program: they say the same."""

from __future__ import annotations

import os
from pathlib import Path

import dask.config
import pytest
import yaml

from flows.engine.environment import DASK_CONFIG, QUIET, limit_threads, worker_variables
from tests.deployments.files import DEPLOYMENTS, IMAGES, MANIFESTS, documents, image_env, run, settings_env

LOGGED = {
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_LOGGING_TO_API_ENABLED": "true",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "portrait_core,flows,tasks",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""A run that a worker starts shows its log on its page."""


def test_settings_env_is_what_the_program_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    limit_threads(1)
    threads = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    said = settings_env()
    assert {name: said.get(name) for name in QUIET} == QUIET
    assert {name: said.get(name) for name in threads} == threads


def test_settings_env_has_dask_as_the_program_does() -> None:
    read = dask.config.collect(paths=[], env=settings_env())
    for name, value in DASK_CONFIG.items():
        assert dask.config.get(name, config=read) == value


def test_settings_env_has_nothing_else() -> None:
    program = {name: value for name, value in worker_variables(1).items() if name != "OMP_NUM_THREADS"}
    assert settings_env() == {**program, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "180"}


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_images_contain_settings_env(image: Path) -> None:
    said = image_env(image)
    assert {name: said.get(name) for name in settings_env()} == settings_env()


def test_a_flow_that_a_prefect_worker_starts_has_them() -> None:
    deployed = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    for deployment in deployed:
        environment = deployment["work_pool"]["job_variables"]["env"]
        logged = {n: v for n, v in environment.items() if n.startswith("PREFECT_LOGGING_")}
        same = {n: v for n, v in environment.items() if n in settings_env() and n not in logged}
        assert same.items() <= settings_env().items()
        assert "OMP_WAIT_POLICY" in same
        assert logged == LOGGED


def test_a_deployment_is_tagged_and_limited() -> None:
    deployed = yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
    automation = yaml.safe_load((DEPLOYMENTS / "automations" / "run-crashed-again.yaml").read_text())
    ours = automation["trigger"]["match_related"]["prefect.resource.id"].removeprefix("prefect.tag.")
    for deployment in deployed:
        assert ours in deployment["tags"]
        assert deployment["concurrency_limit"]["collision_strategy"] == "ENQUEUE"


def test_kubernetes_adds_nothing_else() -> None:
    for manifest in MANIFESTS:
        for document in documents(manifest):
            pod = document.get("spec", {}).get("template", {}).get("spec", {})
            for container in pod.get("containers", []):
                given = {e["name"]: e.get("value") for e in container.get("env", [])}
                known = {n: v for n, v in given.items() if n in settings_env()}
                assert known.items() <= settings_env().items()


def test_environment_sh_keeps_what_the_user_set() -> None:
    script = f"source {DEPLOYMENTS}/environment.sh; echo $OPENBLAS_NUM_THREADS $OMP_WAIT_POLICY"
    done = run("bash", "-euc", script, PATH=os.environ["PATH"], OPENBLAS_NUM_THREADS="3")
    assert done.stdout.split() == ["3", "PASSIVE"], done.stderr


def test_automation_waits_for_three_heartbeats() -> None:
    automation = yaml.safe_load((DEPLOYMENTS / "automations" / "crash-zombies.yaml").read_text())
    assert automation["trigger"]["within"] >= 3 * int(settings_env()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
