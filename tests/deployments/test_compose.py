"""The compose files, read by Docker Compose itself; no container is started."""

from __future__ import annotations

import re
from pathlib import Path

import dask.config
import pytest
from distributed.security import Security

from tests.deployments.files import DEPLOYMENTS, compose, compose_tool, filled_env, run

ONE_SHOT = {"setup", "portrait"}


def test_every_service_says_when_it_is_well() -> None:
    services = compose()["services"]
    assert {"postgres", "s3", "prefect-server", "dask-scheduler", "dask-worker", "prefect-worker"} < set(
        services
    )
    assert {name for name, service in services.items() if "healthcheck" not in service} == ONE_SHOT


def test_data_is_in_named_volumes() -> None:
    made = compose()
    assert set(made["volumes"]) == {"postgres", "store", "cache"}
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
    assert "run deployments/passwords.py" in done.stderr


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING", "AWS_SECRET_ACCESS_KEY"])
def test_without_one_of_its_passwords_nothing_starts(name: str, tmp_path: Path) -> None:
    made = Path(filled_env()).read_text()
    (tmp_path / ".env").write_text(re.sub(rf"^{name}=.*$", f"{name}=", made, flags=re.MULTILINE))
    command = [compose_tool(), "--env-file", tmp_path / ".env", "--file", DEPLOYMENTS / "compose.yaml"]
    done = run(*command, "config", "--quiet")
    assert done.returncode != 0
    assert f"{name} is missing a value: run deployments/passwords.py" in done.stderr


def test_there_is_no_password_in_the_example() -> None:
    for line in (DEPLOYMENTS / ".env.example").read_text().splitlines():
        name, _, value = line.partition("=")
        if re.search("PASSWORD|AUTH_STRING|ACCESS_KEY", name) and not line.startswith("#"):
            assert value == "", name


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_containers_can_do_nothing_but_their_work(files: tuple[str, ...]) -> None:
    for name, service in compose(*files)["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service), name
        for volume in service.get("volumes", []):
            assert "docker.sock" not in volume["source"], name


TALK = {
    ("prefect-server", "postgres"),
    *((client, "prefect-server") for client in ("setup", "prefect-worker", "portrait")),
    *((client, "dask-scheduler") for client in ("dask-worker", "prefect-worker", "portrait")),
    *((client, "s3") for client in ("setup", "dask-worker", "prefect-worker", "portrait")),
}
"""Who has to reach which server."""


def test_who_must_talk_can_and_no_one_else_reaches_a_server() -> None:
    made = compose()
    joined = {name: set(service["networks"]) for name, service in made["services"].items()}
    servers = {server for _, server in TALK}
    reach = {frozenset((a, b)) for a in joined for b in servers if a != b and joined[a] & joined[b]}
    assert reach == {frozenset(pair) for pair in TALK}
    assert made["networks"]["database"]["internal"] is True


def test_all_who_talk_to_prefect_know_the_password() -> None:
    services = compose()["services"]
    given = {name: (service.get("environment") or {}) for name, service in services.items()}
    knows = {name for name, env in given.items() if ":" in env.get("PREFECT_API_AUTH_STRING", "")}
    assert knows == {"prefect-server", "setup", "prefect-worker", "portrait"}
    assert services["prefect-server"]["command"][0] == "/app/deployments/server.sh"


def test_all_who_talk_to_dask_have_its_certificates() -> None:
    services = compose()["services"]
    for name in ("dask-scheduler", "dask-worker", "prefect-worker", "portrait"):
        read = dask.config.collect(paths=[], env=services[name]["environment"])
        known = dask.config.merge(dask.config.config, read)["distributed"]["comm"]
        with dask.config.set({"distributed.comm": known}):
            security = Security()
        assert security.require_encryption, name
        for role in ("scheduler", "worker", "client"):
            found = security.get_tls_config_for_role(role)
            assert (found["cert"], found["key"]) == ("/tls/dask.pem", "/tls/dask-key.pem"), (name, role)
            assert found["ca_file"] == "/tls/ca.pem", (name, role)
        (folder,) = [v for v in services[name]["volumes"] if v["target"] == "/tls"]
        assert (folder["read_only"], folder["bind"].get("create_host_path", False)) == (True, False)
    assert {"--protocol", "tls"} < set(services["dask-scheduler"]["command"])
    assert "tls://dask-scheduler:8786" in services["dask-worker"]["command"]


def test_pages_without_a_password_are_open_to_their_container_alone() -> None:
    services = compose()["services"]
    for name in ("dask-scheduler", "dask-worker"):
        command = services[name]["command"]
        assert command[command.index("--dashboard-address") + 1].startswith("127.0.0.1:")
    assert services["prefect-worker"]["environment"]["PREFECT_WORKER_WEBSERVER_HOST"] == "127.0.0.1"
    store = services["s3"]["command"]
    assert {"-ip.bind=127.0.0.1", "-s3.ip.bind=0.0.0.0"} < set(store)


def test_images_are_named_by_digest_or_built_here() -> None:
    for name, service in compose()["services"].items():
        assert "build" in service or "@sha256:" in service["image"], name


def test_the_example_names_everything() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", (DEPLOYMENTS / "compose.yaml").read_text()))
    named = set(re.findall(r"^(\w+)=", (DEPLOYMENTS / ".env.example").read_text(), re.MULTILINE))
    assert wanted <= named


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_what_it_mounts_and_calls_exists(name: str) -> None:
    text = (DEPLOYMENTS / name).read_text()
    for path in re.findall(r"/app/deployments/([\w./-]+)", text):
        assert (DEPLOYMENTS / path).is_file()
