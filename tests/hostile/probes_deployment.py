"""Probes of the deployment files, by reading them as Docker, Compose and Kubernetes do."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.hostile.bench import Bench, Open
from tests.hostile.registry import probe


def _text(bench: Bench, *names: str) -> str:
    return "\n".join((bench.tree / "deployments" / name).read_text() for name in names)


def _documents(bench: Bench) -> list[dict[str, Any]]:
    folder = bench.tree / "deployments" / "kubernetes"
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        found += [one for one in yaml.safe_load_all(path.read_text()) if isinstance(one, dict)]
    return found


def _pods(bench: Bench) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and the specification of every pod."""
    pods = []
    for one in _documents(bench):
        spec = one.get("spec") or {}
        if one.get("kind") == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if isinstance(spec, dict) and "template" in spec:
            pods.append((f"{one['kind']} {one['metadata']['name']}", spec["template"]["spec"]))
    return pods


def _services(bench: Bench) -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(_text(bench, "compose.yaml"))["services"])


@probe("deploy21", "high", 5)
def prefect_without_a_password(bench: Bench) -> str:
    """Prefect's server asks for a password, answers one origin, and checks against forged requests."""
    places = [
        path for path in (bench.tree / "deployments").rglob("*") if path.suffix != ".md" and path.is_file()
    ]
    text = "".join(path.read_text(errors="replace") for path in places)
    missing = [
        name
        for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS",
                     "PREFECT_SERVER_CSRF_PROTECTION_ENABLED")
        if name not in text
    ]  # fmt: skip
    if missing:
        raise Open(f"not set anywhere: {', '.join(missing)}")
    return "all three are set"


@probe("deploy21", "high", 5)
def no_network_policy(bench: Bench) -> str:
    """Pods answer only those that need them."""
    policies = [one for one in _documents(bench) if one.get("kind") == "NetworkPolicy"]
    if not policies:
        raise Open("there is no NetworkPolicy")
    return f"{len(policies)} policies"


def _ignored(patterns: list[str], name: str) -> bool:
    """Tell whether Docker leaves a file out of the context."""
    out = False
    for pattern in patterns:
        exception = pattern.startswith("!")
        body = pattern.lstrip("!").strip("/")
        regex = re.escape(body).replace(r"\*\*/", "(.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
        parts = name.split("/")
        if any(re.fullmatch(regex, "/".join(parts[:count])) for count in range(1, len(parts) + 1)):
            out = not exception
    return out


@probe("deploy21", "high", 6)
def images_take_what_lies_there(bench: Bench) -> str:
    """Inputs, weights, clips, secrets and stores of a user do not enter an image."""
    lines = (bench.tree / ".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    private = (
        "deployments/inputs/me.jpg", "deployments/weights/generic_model.pkl", "deployments/out/clip.mp4",
        "deployments/.env", "deployments/prod.env", "deployments/secret.yaml",
        "deployments/kubernetes/secret.yaml",
        "deployments/store/states/a.json", "data/weights/generic_model.pkl", "data/private.pkl",
        "data/out/a.mp4",
        "portrait_core/me.jpg", "flows/id_rsa", "tasks/store/a.mp4", "data/models/flame.pkl", "notes.txt",
        ".git/config",
        "deployments/profiles/mine.yaml.bak", "data/samples/me.png", "deployments/inputs.zip", "flows/.env",
    )  # fmt: skip
    taken = [name for name in private if not _ignored(patterns, name)]
    needed = ("portrait_core/errors.py", "flows/cli/main.py", "tasks/pages.py", "pyproject.toml",
              "deployments/profiles/embedded.yaml", "data/models/embedded_generator.safetensors")  # fmt: skip
    lost = [name for name in needed if _ignored(patterns, name)]
    if lost:
        raise Open(f"left out, but needed: {', '.join(lost)}")
    if taken:
        raise Open(f"{len(taken)} of {len(private)} private files are taken: {', '.join(taken[:5])}")
    return "none is taken"


@probe("deploy21", "medium")
def images_by_tag(bench: Bench) -> str:
    """Base images and services are named by digest."""
    found = []
    for path in (bench.tree / "deployments" / "images").glob("*Dockerfile"):
        found += [line for line in path.read_text().splitlines() if line.startswith("FROM")]
    found += [str(one["image"]) for one in _services(bench).values() if "image" in one]
    found += [str(c.get("image")) for _, pod in _pods(bench) for c in pod["containers"]]
    stages = {line.split()[-1] for line in found if " AS " in line.upper()}
    loose = [
        one for one in found
        if "@sha256:" not in one and "portrait-reenactment" not in one
        and one.split()[-1] not in stages | {"scratch"}
        and not (one.startswith("FROM") and one.split()[1] in stages)
    ]  # fmt: skip
    loose += [
        one
        for one in found
        if " AS " in one.upper() and "@sha256:" not in one and one.split()[1] not in stages
    ]
    if loose:
        raise Open(f"by tag: {', '.join(sorted(set(loose)))[:200]}")
    return f"{len(found)} images"


@probe("deploy21", "medium")
def pods_without_bounds(bench: Bench) -> str:
    """Every pod runs as a user without rights, and gets no token of the cluster."""
    wrong = []
    for name, pod in _pods(bench):
        whole = pod.get("securityContext") or {}
        if pod.get("automountServiceAccountToken") is not False:
            wrong.append(f"{name}: gets a token")
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            own = container.get("securityContext") or {}
            if not (own.get("runAsNonRoot") or whole.get("runAsNonRoot")):
                wrong.append(f"{name}/{container['name']}: may run as root")
            if own.get("allowPrivilegeEscalation") is not False:
                wrong.append(f"{name}/{container['name']}: may gain rights")
            if "ALL" not in ((own.get("capabilities") or {}).get("drop") or []):
                wrong.append(f"{name}/{container['name']}: keeps capabilities")
            if not (own.get("seccompProfile") or whole.get("seccompProfile")):
                wrong.append(f"{name}/{container['name']}: any system call")
    if wrong:
        raise Open(f"{len(wrong)}: {'; '.join(wrong[:4])}")
    return f"{len(_pods(bench))} pods"


@probe("deploy21", "medium")
def services_without_bounds(bench: Bench) -> str:
    """Every service of Compose drops its capabilities and gains no rights."""
    wrong = []
    for name, one in _services(bench).items():
        if "ALL" not in (one.get("cap_drop") or []):
            wrong.append(f"{name}: cap_drop")
        if not any("no-new-privileges" in str(option) for option in one.get("security_opt") or []):
            wrong.append(f"{name}: no-new-privileges")
        for port in one.get("ports") or []:
            if not str(port).startswith(("127.0.0.1:", "${")):
                wrong.append(f"{name}: port {port}")
    if wrong:
        raise Open(f"{len(wrong)}: {'; '.join(wrong[:5])}")
    return "all"


@probe("deploy21", "medium")
def passwords_that_are_left(bench: Bench) -> str:
    """The placeholders of passwords do not work as passwords."""
    examples = [path for path in (bench.tree / "deployments").rglob("*example*") if path.is_file()]
    text = "".join(path.read_text() for path in examples)
    found = [
        line.strip()
        for line in text.splitlines()
        if "change-me" in line and not line.lstrip().startswith("#")
    ]
    scripts = [*(bench.tree / "deployments").glob("*.py"), *(bench.tree / "deployments").glob("*.sh")]
    guards = [_text(bench, "compose.yaml"), *(path.read_text() for path in scripts)]
    guarded = any("change-me" in guard for guard in guards)
    if found and not guarded:
        raise Open(f"works as a password: {found[0]}")
    return f"{len(found)} placeholders"


@probe("deploy21", "medium")
def schedulers_without_tls(bench: Bench) -> str:
    """Schedulers on Slurm and Kubernetes and in Compose take work only from who has the key."""
    wrong = []
    for name in (
        "slurm/dask.sbatch",
        "kubernetes/dask-scheduler.yaml",
        "kubernetes/dask-workers.yaml",
        "compose.yaml",
    ):
        text = _text(bench, name)
        if "dask" in text and not re.search(r"tls|DASK_DISTRIBUTED__COMM", text, re.IGNORECASE):
            wrong.append(name)
    if wrong:
        raise Open(f"no TLS: {', '.join(wrong)}")
    return "all"


@probe("deploy21", "medium")
def shells_without_quotes(bench: Bench) -> str:
    """Scripts of Slurm and workers with hostile names in variables start nothing else."""
    from tests.hostile.capped import run_capped

    canary = bench.folder / "canary"
    evil = f"x; touch {canary}; $(touch {canary})`touch {canary}`"
    folder = bench.tree / "deployments"
    for script in (folder / "workers.sh", folder / "register.sh", folder / "slurm" / "common.sh"):
        names = set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", script.read_text()))
        environment = bench.environment(**dict.fromkeys(names - {"PATH", "HOME"}, evil))
        environment["PATH"] = str(bench.folder / "none")
        run_capped(["/bin/bash", str(script)], environment, bench.folder, 10.0)
        if canary.exists():
            raise Open(f"{script.name} ran a variable's text")
    return "nothing ran"
