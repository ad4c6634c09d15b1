"""The Kubernetes manifests against Kubernetes' own schemas, and against each other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployments.files import DEPLOYMENTS, MANIFESTS, ROOT, compose, documents, run

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
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.yaml"}
    assert set(said["resources"]) == there


def test_everything_is_in_one_namespace() -> None:
    assert {d["metadata"].get("namespace", "portrait") for d in ALL} == {"portrait"}


MADE = {
    "Secret/portrait": {
        "POSTGRES_PASSWORD",
        "PREFECT_API_AUTH_STRING",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    },
    "Secret/dask-tls": {"ca.pem", "dask.pem", "dask-key.pem"},
}
"""Secrets that an installation makes (passwords.py, certificates.py), and their keys."""


def test_what_pods_refer_to_exists() -> None:
    names = {_name(document) for document in ALL} | set(MADE)
    for _, pod in _pods():
        for volume in pod.get("volumes", []):
            if "persistentVolumeClaim" in volume:
                assert f"PersistentVolumeClaim/{volume['persistentVolumeClaim']['claimName']}" in names
            elif "secret" in volume:
                assert f"Secret/{volume['secret']['secretName']}" in names
            else:
                assert "emptyDir" in volume
        for container in pod["containers"]:
            for source in container.get("envFrom", []):
                assert f"ConfigMap/{source['configMapRef']['name']}" in names
            for entry in container.get("env", []):
                if "valueFrom" in entry:
                    wanted = entry["valueFrom"]["secretKeyRef"]
                    assert wanted["key"] in MADE[f"Secret/{wanted['name']}"]
            for word in container.get("command", []):
                if word.startswith("/app/"):
                    assert (ROOT / word.removeprefix("/app/")).is_file()


def test_services_find_their_pods() -> None:
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in ALL if "template" in d.get("spec", {})]
    for service in (d for d in ALL if d["kind"] == "Service"):
        assert service["spec"]["selector"] in labels


def test_no_pod_has_rights() -> None:
    """As Pod Security's level "restricted" asks, and more: nothing can be written but volumes."""
    for name, pod in _pods():
        assert pod["automountServiceAccountToken"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        mine = pod["securityContext"]
        assert mine["runAsNonRoot"] is True, name
        assert mine["runAsUser"] > 0, name
        assert mine["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any("hostPath" in volume for volume in pod.get("volumes", [])), name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], name


def test_the_namespace_refuses_others() -> None:
    (namespace,) = [d for d in ALL if d["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_images_are_named_by_digest_or_are_the_program() -> None:
    for name, pod in _pods():
        for container in pod["containers"]:
            assert "@sha256:" in container["image"] or container["image"] == "portrait-reenactment:cuda", name


def test_dask_is_encrypted_wherever_it_runs() -> None:
    (tls,) = [d["data"] for d in ALL if _name(d) == "ConfigMap/dask-tls"]
    service = compose()["services"]["dask-scheduler"]
    assert tls == {
        n: v for n, v in service["environment"].items() if n.startswith("DASK_DISTRIBUTED__COMM__")
    }
    for name in ("dask-scheduler", "dask-worker", "prefect-worker"):
        (pod,) = [pod for found, pod in _pods() if found == f"Deployment/{name}"]
        (container,) = pod["containers"]
        assert {"configMapRef": {"name": "dask-tls"}} in container["envFrom"], name
        assert "/tls" in [
            mount["mountPath"] for mount in container["volumeMounts"] if mount.get("readOnly")
        ], name
    commands = [
        container["command"]
        for _, pod in _pods()
        for container in pod["containers"]
        if "command" in container
    ]
    assert not any("tcp://" in word for command in commands for word in command)
    assert [command for command in commands if "tls" in command] == [service["command"]]


def test_those_who_know_the_server_know_its_password() -> None:
    for name, pod in _pods():
        (container,) = pod["containers"]
        known = {entry["name"] for entry in container.get("env", [])}
        client = {"configMapRef": {"name": "prefect"}} in container.get("envFrom", [])
        assert ("PREFECT_API_AUTH_STRING" in known) == (client or name == "Deployment/prefect-server"), name


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector is true of a pod."""
    for one in selector.get("matchExpressions", []):
        found = labels.get(one["key"])
        if found is None or (one["operator"] == "In" and found not in one["values"]):
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _allowed(source: dict[str, str], target: dict[str, str], port: int, way: str) -> bool:
    """Whether the policies of one end allow a connection: of its source (egress) or its target (ingress)."""
    here, there = (source, target) if way == "egress" else (target, source)
    for policy in (d["spec"] for d in ALL if d["kind"] == "NetworkPolicy"):
        if not _selects(policy["podSelector"], here):
            continue
        for rule in policy.get(way, []):
            ends = [
                end for end in rule["to" if way == "egress" else "from"] if "namespaceSelector" not in end
            ]
            ports = [one["port"] for one in rule.get("ports", [])]
            if any(_selects(end["podSelector"], there) for end in ends) and (not ports or port in ports):
                return True
    return False


CLIENTS = ("prefect-worker", "setup", "dataset")
CONNECTIONS = {
    ("prefect-server", "postgres", 5432),
    *((client, "prefect-server", 4200) for client in CLIENTS),
    ("prefect-worker", "dask-scheduler", 8786),
    ("dask-worker", "dask-scheduler", 8786),
}
"""Who connects to whose port; between Dask's own pods every port is open."""


def test_the_policies_let_through_who_must_talk_and_no_one_else() -> None:
    pods = {
        d["spec"]["template"]["metadata"]["labels"]["app"]: d for d in ALL if "template" in d.get("spec", {})
    }
    strangers = {"stranger": {"app": "stranger"}, "nameless": {}}
    labels = {name: d["spec"]["template"]["metadata"]["labels"] for name, d in pods.items()} | strangers
    ports = {d["metadata"]["name"]: d["spec"]["ports"][0]["port"] for d in ALL if d["kind"] == "Service"}
    assert ports == {"postgres": 5432, "prefect-server": 4200, "dask-scheduler": 8786}
    dask = {"dask-scheduler", "dask-worker"}
    for a, source in labels.items():
        for b, target in labels.items():
            for port in (*ports.values(), 8787, 40000):
                through = all(_allowed(source, target, port, way) for way in ("egress", "ingress"))
                wanted = (a, b, port) in CONNECTIONS or {a, b} <= dask
                assert through == wanted, (a, b, port)


def test_everything_not_named_is_denied() -> None:
    policies = {d["metadata"]["name"]: d["spec"] for d in ALL if d["kind"] == "NetworkPolicy"}
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for way, ends in (("ingress", "from"), ("egress", "to")):
            for rule in policy.get(way, []):
                assert rule.get(ends), f"{name}: a rule without ends lets everyone through"


def test_who_needs_the_store_reaches_it_where_it_is() -> None:
    (settings,) = [d["data"] for d in ALL if _name(d) == "ConfigMap/portrait"]
    (policy,) = [d["spec"] for d in ALL if _name(d) == "NetworkPolicy/store"]
    (rule,) = policy["egress"]
    (end,) = rule["to"]
    space = end["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert f".{space}.svc.cluster.local:{rule['ports'][0]['port']}" in settings["AWS_ENDPOINT_URL"]
    for name, pod in _pods():
        (container,) = pod["containers"]
        keys = "AWS_SECRET_ACCESS_KEY" in {entry["name"] for entry in container.get("env", [])}
        labels = next(d["spec"]["template"]["metadata"]["labels"] for d in ALL if _name(d) == name)
        assert _selects(policy["podSelector"], labels) == keys, name


def test_kubectl_puts_it_together() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = run(kubectl, "kustomize", KUBERNETES)
    assert done.returncode == 0, done.stderr
    made = {_name(document) for document in yaml.safe_load_all(done.stdout)}
    assert made == {
        _name(d) for path in KUBERNETES.glob("*.yaml") if path in MANIFESTS for d in documents(path)
    }


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


def test_the_pods_of_the_operator_have_no_rights_either() -> None:
    """The namespace would refuse them."""
    pytest.importorskip("dask_kubernetes", reason="dask-kubernetes is not installed")
    from flows.engine.queues import kubernetes_options
    from portrait_core.settings import load_settings

    settings = load_settings("embedded", ["runner.kind=kubernetes", "runner.workers=2"])
    spec = kubernetes_options(settings)["custom_cluster_spec"]["spec"]
    for role in ("worker", "scheduler"):
        pod = spec[role]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        (container,) = pod["containers"]
        context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == context
