"""The Kubernetes manifests against Kubernetes' own schemas, and against each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployments.files import DEPLOYMENTS, MANIFESTS, ROOT, documents

KUBERNETES = DEPLOYMENTS / "kubernetes"
ALL = [document for path in MANIFESTS for document in documents(path)]


def _name(document: dict[str, Any]) -> str:
    return f"{document['kind']}/{document['metadata']['name']}"


def _pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for document in ALL:
        if "template" in document.get("spec", {}):
            yield _name(document), document["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_keep_to_the_schemas(path: Path) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for document in documents(path):
        schemas.validate(document, "1.37", strict=True)


def test_the_kustomization_names_every_file() -> None:
    said = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(said["resources"]) == there


def test_everything_is_in_one_namespace() -> None:
    assert {d["metadata"].get("namespace", "portrait") for d in ALL} == {"portrait"}


def test_what_pods_refer_to_exists() -> None:
    names = {_name(document) for document in ALL}
    keys = {key for d in ALL if d["kind"] == "Secret" for key in d["stringData"]}
    for _, pod in _pods():
        for volume in pod.get("volumes", []):
            assert f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}" in names
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                assert f"ConfigMap/{source['configMapRef']['name']}" in names
            for entry in container.get("env", []):
                if "valueFrom" in entry:
                    assert entry["valueFrom"]["secretKeyRef"]["key"] in keys
            for word in container.get("command", []):
                if word.startswith("/app/"):
                    assert (ROOT / word.removeprefix("/app/")).is_file()


def test_services_find_their_pods() -> None:
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in ALL if "template" in d.get("spec", {})]
    for service in (d for d in ALL if d["kind"] == "Service"):
        assert service["spec"]["selector"] in labels


def test_our_pods_have_no_rights() -> None:
    for name, pod in _pods():
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            if container["image"].startswith("portrait-reenactment"):
                assert pod["securityContext"]["runAsNonRoot"], name
                assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], name


def test_what_computes_has_one_gpu() -> None:
    for name, pod in _pods():
        wanted = name in ("Deployment/dask-worker", "Deployment/prefect-worker", "Job/dataset")
        limits = pod["containers"][0]["resources"]["limits"]
        assert limits.get("nvidia.com/gpu") == ("1" if wanted else None), name


def test_the_job_has_as_many_shards_as_completions() -> None:
    (job,) = [d for d in ALL if _name(d) == "Job/dataset"]
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert f"--shard=$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}" in arguments


def test_the_job_s_command_is_one_of_portrait() -> None:
    import typer.main
    from typer import Typer

    from flows.cli.main import app

    assert isinstance(app, Typer)
    (job,) = [d for d in ALL if _name(d) == "Job/dataset"]
    container = job["spec"]["template"]["spec"]["containers"][0]
    command: Any = typer.main.get_command(app)
    for word in container["command"][1:]:
        command = command.commands[word]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {argument.split("=")[0] for argument in container["args"][1:]} <= options
