"""``portrait doctor``: installed packages, device and weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.engine.environment import prefect_server, prefect_server_answers, prefect_server_refuses
from portrait_core.report import package_versions
from portrait_core.runtime.caches import cache_folder
from portrait_core.runtime.package_files import data_folder, sample_portrait, sample_video
from portrait_core.settings import Settings
from portrait_core.settings.threads import cpu_count
from portrait_core.weights.sidecars import read_sidecar


class Finding(NamedTuple):
    """One line of the report; ``good`` is None for plain information."""

    what: str
    value: str
    good: bool | None


def examine(settings: Settings, console: Console) -> bool:
    """Print the findings, and tell whether everything that the profile needs is there."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column()
    healthy = True
    marks = {True: Text("ok", "green"), False: Text("missing", "red"), None: Text()}
    for section, check in _SECTIONS.items():
        table.add_row(Text(section, "bold"), "", "")
        for finding in check(settings):
            healthy &= finding.good is not False
            table.add_row(f"  {finding.what}", finding.value, marks[finding.good])
    console.print(table)
    verdict = "everything that it needs is here." if healthy else "something that it needs is missing."
    console.print(f"profile {settings.profile}: {verdict}")
    return healthy


def _packages(settings: Settings) -> Iterator[Finding]:
    for name, version in package_versions().items():
        yield Finding(name, version, None)


def _machine(settings: Settings) -> Iterator[Finding]:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    yield Finding("processor", f"{cpu_count()} cores for this process, {memory:.0f} GiB of memory", None)
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        yield Finding("GPU", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}", True)
    else:
        required = settings.device == "cuda"
        yield Finding("GPU", "none visible to PyTorch: runs on the CPU", False if required else None)


def _media(settings: Settings) -> Iterator[Finding]:
    from portrait_core.media.binary import ffmpeg_binary

    yield _tried("ffmpeg", ffmpeg_binary)


def _weights(settings: Settings) -> Iterator[Finding]:
    from portrait_core.model_files.needs import weight_paths
    from portrait_core.store import file_digest

    for name, path in weight_paths(settings).items():
        if not path.is_file():
            yield Finding(name, f"{path} does not exist", False)
            continue
        digest = file_digest(path)
        about = _about(path)
        changed = about.get("sha256") not in (None, digest)
        note = "; DIFFERS from the digest beside it" if changed else ""
        size = f"{path.stat().st_size / 2**20:.1f} MiB"
        licence = about.get("licence", "licence not stated beside it")
        yield Finding(name, f"{path} ({size}, sha256 {digest[:16]}, {licence}{note})", not changed)


def _models(settings: Settings) -> Iterator[Finding]:
    """Report registered models that are neither where a setting points nor inside a package."""
    from portrait_core.model_files.needs import needed_models
    from portrait_core.weights.locate import find

    for name, path in needed_models(settings).items():
        if path is not None and path.is_file():
            continue
        located = find(name)
        absent = f"{located.model.file} from {located.model.source}; licence: {located.model.licence}"
        yield Finding(name, located.where or absent, located.where is not None)


def _about(path: Path) -> dict[str, str]:
    beside = path.with_suffix(".json")
    try:
        return read_sidecar(beside)
    except (OSError, ValueError):
        return {}


def _samples(settings: Settings) -> Iterator[Finding]:
    yield _tried("data folder", data_folder)
    yield _tried("sample portrait", sample_portrait)
    yield _tried("sample video", sample_video)


def _services(settings: Settings) -> Iterator[Finding]:
    server = prefect_server()
    if server is None:
        yield Finding("Prefect", "no server is named (PREFECT_API_URL): runs are not shown in a UI", None)
    elif not prefect_server_answers(server):
        yield Finding("Prefect", f"server {server} does not answer: runs work without it", None)
    elif refused := prefect_server_refuses(server):
        yield Finding("Prefect", f"{refused}; runs work without it", None)
    else:
        yield Finding("Prefect", f"server {server} answers", None)
    runner = settings.runner
    where = {
        "threads": "threads of one process",
        "local_cluster": "Dask workers on this host",
        "local_gpus": "Dask workers on this host, one per GPU",
        "address": f"the Dask cluster at {runner.address}",
        "slurm": f"{runner.workers} Dask workers that are Slurm jobs",
        "kubernetes": f"{runner.workers} Dask workers in Kubernetes",
    }
    yield Finding("tasks run in", where[runner.kind], None)
    yield Finding("caches", str(cache_folder()), None)


def _tried(what: str, find: Callable[[], object]) -> Finding:
    try:
        return Finding(what, str(find()), True)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        return Finding(what, str(error), False)


_SECTIONS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "packages": _packages,
    "machine": _machine,
    "video": _media,
    "weights": _weights,
    "models": _models,
    "samples": _samples,
    "services": _services,
}
