"""The compose files, read by Docker Compose itself; no container is started."""

from __future__ import annotations

import re

import pytest

from tests.deployments.files import DEPLOYMENTS, compose, compose_tool, run

ONE_SHOT = {"setup", "portrait"}


def test_every_service_says_when_it_is_well() -> None:
    services = compose()["services"]
    assert {"postgres", "s3", "prefect-server", "dask-scheduler", "dask-worker", "prefect-worker"} < set(
        services
    )
    assert {name for name, service in services.items() if "healthcheck" not in service} == ONE_SHOT


def test_data_is_in_named_volumes() -> None:
    made = compose()
    assert set(made["volumes"]) == {"postgres", "store"}
    assert made["services"]["postgres"]["volumes"][0]["type"] == "volume"
    assert made["services"]["s3"]["volumes"][0]["type"] == "volume"


def test_ports_are_open_to_this_machine_alone() -> None:
    for service in compose()["services"].values():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", []))


def test_who_reads_the_store_knows_where_it_is() -> None:
    services = compose()["services"]
    for name in ("dask-worker", "prefect-worker", "portrait", "setup"):
        assert services[name]["environment"]["AWS_ENDPOINT_URL"] == "http://s3:8333"
    inside = compose()["configs"]["s3"]["content"]
    assert services["portrait"]["environment"]["AWS_SECRET_ACCESS_KEY"] in inside


def test_workers_are_scaled() -> None:
    assert compose()["services"]["dask-worker"]["deploy"]["replicas"] == 2


def test_gpus_are_added() -> None:
    worker = compose("compose.yaml", "compose.gpu.yaml")["services"]["dask-worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", -1)
    assert worker["deploy"]["replicas"] == 1
    assert worker["build"]["dockerfile"].endswith("cuda.Dockerfile")


def test_without_an_env_file_it_says_what_to_do() -> None:
    command = [compose_tool(), "--env-file", "/dev/null", "--file", DEPLOYMENTS / "compose.yaml"]
    done = run(*command, "config", "--quiet")
    assert done.returncode != 0
    assert "copy .env.example to .env" in done.stderr


def test_the_example_names_everything() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", (DEPLOYMENTS / "compose.yaml").read_text()))
    named = set(re.findall(r"^(\w+)=", (DEPLOYMENTS / ".env.example").read_text(), re.MULTILINE))
    assert wanted <= named


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_what_it_mounts_and_calls_exists(name: str) -> None:
    text = (DEPLOYMENTS / name).read_text()
    for path in re.findall(r"/app/deployments/([\w./-]+)", text):
        assert (DEPLOYMENTS / path).is_file()
