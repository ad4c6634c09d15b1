"""What Slurm and Kubernetes are asked for; ``tests/deployments/test_slurm.py`` asks a real Slurm."""

from __future__ import annotations

import copy
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed import Client
from distributed.security import Security

from flows.engine.clusters import dask_client, open_cluster
from flows.engine.queues import kubernetes_options, slurm_options
from portrait_core.errors import InputError
from portrait_core.settings import Settings, load_settings

KUBERNETES = "1.37.0"


def _settings(kind: str, *changes: str) -> Settings:
    return load_settings("embedded", [f"runner.kind={kind}", "runner.workers=2", *changes])


def _script(*changes: str) -> list[str]:
    """The batch script of a worker."""
    jobs = pytest.importorskip("dask_jobqueue.slurm", reason="the extra slurm is not installed")
    made = slurm_options(_settings("slurm", *changes))
    made.pop("scheduler_options")
    script: str = jobs.SLURMJob("tcp://host:8786", name="worker", **made).job_script()
    return script.splitlines()


def test_a_job_has_a_gpu_and_one_task_at_a_time() -> None:
    script = _script("runner.threads_per_worker=3")
    assert {"#SBATCH --gpus=1", "#SBATCH --cpus-per-task=3", "#SBATCH -t 24:00:00"} <= set(script)
    assert 'export OMP_NUM_THREADS="${OMP_NUM_THREADS-3}"' in script
    command = script[-1].split()
    for option, value in {"--nthreads": "1", "--memory-limit": "0"}.items():
        places = [i for i, word in enumerate(command) if word == option]
        assert command[places[-1] + 1] == value, "the last one counts"


def test_a_user_s_options_stand() -> None:
    lines = ["job_extra_directives=['--gres=gpu:a100:1']", "job_script_prologue=['module load x']", "cores=5"]
    script = _script(*(f"runner.cluster.{line}" for line in lines), 'runner.cluster.walltime="1:00"')
    assert {
        "#SBATCH --gres=gpu:a100:1",
        "module load x",
        "#SBATCH --cpus-per-task=5",
        "#SBATCH -t 1:00",
    } <= set(script)
    assert "#SBATCH --gpus=1" not in script


def test_a_time_that_yaml_takes_for_a_number_is_refused() -> None:
    with pytest.raises(InputError, match="43200 is a number; quote it"):
        slurm_options(_settings("slurm", "runner.cluster.walltime=12:00:00"))


def test_without_gpus_none_is_asked_for() -> None:
    assert not any("gpu" in line for line in _script("device=cpu"))


@pytest.mark.parametrize("kind", ["slurm", "kubernetes"])
def test_the_number_of_workers_must_be_said(kind: str) -> None:
    with (
        pytest.raises(InputError, match=r"runner\.workers=8"),
        open_cluster(_settings(kind, "runner.workers=0")),
    ):
        pass


_SBATCH = """#!/bin/bash
cp "$1" {folder}/job; chmod u+w {folder}/job
setsid bash {folder}/job > {folder}/log 2>&1 & echo $! > {folder}/pid
echo "Submitted batch job 7"
"""


@pytest.fixture
def one_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm that starts a job at once, here; the folder of its script."""
    pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    commands = {
        "sbatch": _SBATCH.format(folder=tmp_path),
        "scancel": f"#!/bin/sh\nkill -- -$(cat {tmp_path}/pid)\n",
    }
    (tmp_path / "bin").mkdir()
    for name, script in commands.items():
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o700)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "of the node"))
    return tmp_path


def _address(client: Client) -> str:
    return str(client.scheduler_info()["address"])


def test_a_job_has_certificates_that_nobody_else_can_read(one_node: Path) -> None:
    shared = one_node / "shared"
    changes = ("device=cpu", "runner.workers=1", f"runner.cluster.shared_temp_directory={shared}")
    with dask_client(_settings("slurm", *changes)) as client:
        client.wait_for_workers(1, timeout=60)
        (folder,) = shared.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.glob("tls/*")} == {0o600}
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["services"] == {}, "no HTTP server"
        for address in (_address(client), worker["nanny"]):
            assert address.startswith("tls://")
            with pytest.raises(OSError, match=r"(?i)closed"):
                Client(address.replace("tls", "tcp"), timeout=1, security=Security(require_encryption=False))
        (scratch,) = client.run(lambda dask_worker: dask_worker.local_directory).values()
        private = Path(scratch).parent.parent
        assert (private.parent, stat.S_IMODE(private.stat().st_mode)) == (one_node / "of the node", 0o700)
    assert list(shared.iterdir()) == []


def test_where_slurm_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(InputError, match="No such file or directory: 'sbatch'"),
        open_cluster(_settings("slurm")),
    ):
        pass


def _cluster(*changes: str) -> dict[str, Any]:
    """The DaskCluster that Kubernetes is asked for."""
    pytest.importorskip("dask_kubernetes", reason="the extra kubernetes is not installed")
    made: dict[str, Any] = kubernetes_options(_settings("kubernetes", *changes))["custom_cluster_spec"]
    return made


CHANGES = (
    "runner.cluster.image=registry.example/portrait:1",
    "runner.cluster.env={AWS_ENDPOINT_URL: 'http://s3:8333'}",
    "runner.cluster.volumes=[{name: inputs, persistentVolumeClaim: {claimName: inputs, readOnly: true}}]",
    "runner.cluster.volume_mounts=[{name: inputs, mountPath: /inputs, readOnly: true}]",
)


def _schema_check() -> Any:
    """A validator of a DaskCluster: the operator's schema, with Kubernetes' own for pods and services."""
    operator = pytest.importorskip("dask_kubernetes.operator", reason="the extra kubernetes is not installed")
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    folder = Path(operator.__file__).parent / "customresources"
    schemas = Path(kubernetes.__file__).parent / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"
    known = json.loads((schemas / "_definitions.json").read_text())["$defs"]
    (version,) = yaml.safe_load((folder / "daskcluster.yaml").read_text())["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    template = yaml.safe_load((folder / "templates.yaml").read_text())
    pages = {
        schema["$ref"].partition("#")[0]: template,
        # the schemas of the newest Kubernetes in the place of those that the operator was made with
        "python://k8s_crd_resolver/schemata/k8s-1.21.1.json": {"definitions": known, "$defs": known},
    }
    resources = [(name, DRAFT202012.create_resource(page)) for name, page in pages.items()]
    return Draft202012Validator(schema, registry=Registry().with_resources(resources))


def _wrong(spec: dict[str, Any], change: str) -> None:
    container = spec["worker"]["spec"]["containers"][0]
    if change == "replicas":
        spec["worker"]["replicas"] = "two"
    elif change == "unknown field":
        container["gpus"] = 1
    elif change == "port":
        spec["scheduler"]["service"]["ports"][0]["port"] = "tcp"
    else:
        container["env"][0]["value"] = 0


def test_the_cluster_keeps_to_the_schemas() -> None:
    check, cluster = _schema_check(), _cluster(*CHANGES)
    check.validate(cluster)
    for change in ("replicas", "unknown field", "port", "a number in the environment"):
        wrong = copy.deepcopy(cluster)
        _wrong(wrong["spec"], change)
        assert not check.is_valid(wrong), change


def test_workers_have_gpus_and_the_scheduler_none() -> None:
    spec = _cluster(*CHANGES)["spec"]
    (worker,), (scheduler,) = (spec[name]["spec"]["containers"] for name in ("worker", "scheduler"))
    assert spec["worker"]["replicas"] == 2
    assert (worker["resources"], scheduler["resources"]) == ({"limits": {"nvidia.com/gpu": "1"}}, {})
    assert worker["args"][:6] == ["dask", "worker", "--nthreads", "1", "--memory-limit", "0"]
    assert worker["volumeMounts"][0]["name"] == spec["worker"]["spec"]["volumes"][0]["name"] == "inputs"
    assert scheduler["args"][:2] == ["dask", "scheduler"]
    for container in (worker, scheduler):
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        assert env["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "0"
        assert env["AWS_ENDPOINT_URL"] == "http://s3:8333"
        assert container["image"] == "registry.example/portrait:1"


def test_a_specification_of_the_user_s_own_is_left_alone() -> None:
    spec = {"metadata": {"name": "mine"}}
    settings = _settings("kubernetes", f"runner.cluster.custom_cluster_spec={spec}")
    assert kubernetes_options(settings) == {"custom_cluster_spec": spec}
