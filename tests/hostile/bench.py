"""The place of one probe: a folder of its own, and the program of a checkout, run in capped children."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.capped import MEMORY, SECONDS, Ended, run_capped

ROOT = Path(__file__).parents[2]
"""The checkout of this file."""
MUCH_MB = 700.0
"""Megabytes that a command may take beyond the same command on an innocent file: what the largest ordinary
picture or frame takes while it is decoded."""
LONG_S = 20.0
"""Seconds of processor time that a small hostile file may cost."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Open(Exception):  # noqa: N818 - a verdict
    """The program does not hold; the message says what happened, in one line."""


@dataclass
class Bench:
    """Tools of a probe.

    Attributes:
        folder: an empty folder.
        tree: the checkout that is probed.
        shared: folder of what several probes use, such as a finished store.
    """

    folder: Path
    tree: Path
    shared: Path
    innocent: dict[str, float] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a child: this checkout's code, caches in the probe's folder."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TERM", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(self.tree),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PREFECT_HOME": str(self.shared / "prefect"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "COLUMNS": "100",
            **more,
        }

    def portrait(
        self, *arguments: object, seconds: float = SECONDS, memory: int = MEMORY, **more: str
    ) -> Ended:
        """Run ``portrait ARGUMENTS``."""
        command = [sys.executable, "-m", "flows.cli.main", *map(str, arguments)]
        return run_capped(command, self.environment(**more), self.tree, seconds, memory)

    def python(
        self, code: str, *arguments: object, seconds: float = SECONDS, memory: int = MEMORY, **more: str
    ) -> Ended:
        """Run a piece of Python with the checkout's packages; its arguments are in ``sys.argv[1:]``."""
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return run_capped(command, self.environment(**more), self.tree, seconds, memory)

    @property
    def private_hosts(self) -> list[str]:
        """Flags that allow a manifest's rows to name this machine, where the program asks for that."""
        asks = (self.tree / "portrait_core" / "runtime" / "addresses.py").exists()
        return ["--set", 'runner.private_hosts=["127.0.0.1"]'] if asks else []

    def place(self, name: str, data: bytes | str) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def store(self) -> Path:
        """Return a copy of a finished store of a small clip."""
        made = self.shared / "store"
        if not made.exists():
            _make_store(self, made)
        copy = self.folder / "store"
        shutil.copytree(made, copy)
        return copy

    def manifest(self, rows: Sequence[dict[str, str]], name: str = "manifest.csv") -> Path:
        """Write a manifest whose rows are the sample pair with other cells."""
        portrait, video = samples()
        columns = ["portrait", "video", "name", "profile", "overrides", "edit", "licence", "consent"]
        lines = [",".join(columns)]
        for i, row in enumerate(rows):
            cells = {
                "portrait": str(portrait), "video": str(video), "name": f"row{i}", "licence": "CC0",
                "consent": "x", **row,
            }  # fmt: skip
            lines.append(",".join('"' + cells.get(name, "").replace('"', '""') + '"' for name in columns))
        return self.place(name, "\n".join(lines) + "\n")


def samples() -> tuple[Path, Path]:
    """Return the paths of the sample portrait and the sample video."""
    from portrait_core.runtime.package_files import sample_portrait, sample_video

    return sample_portrait(), sample_video()


def _make_store(bench: Bench, target: Path) -> None:
    from portrait_core.generators import save_generator
    from tests.portrait_core import tiny

    weights = bench.shared / "tiny.safetensors"
    save_generator(tiny.generator(), weights)
    portrait, video = samples()
    changes = [
        f"generator.weights={weights}", "generator.samples=8", "generator.importance_samples=6",
        "template.size=64", "output.frame=crop", "output.size=64", "template.supersample=1",
        "inversion.first_steps=3", "tuning.steps=4", "tuning.patch=16", "tuning.novel_view_rays=32",
        "render.samples=8", "render.importance_samples=4", "runner.workers=2", "runner.prefect=never",
        "media.max_frames=4", "device=cpu",
    ]  # fmt: skip
    settings = [part for change in changes for part in ("--set", change)]
    places = ["--portrait", portrait, "--video", video, "--store", target, "--out", bench.shared / "out"]
    ended = bench.portrait("reenact", *places, *settings, seconds=300.0)
    if ended.code not in (0, 1) or not (target / "jobs").is_dir():
        raise RuntimeError(f"the small clip was not made: {ended.output[-2000:]}")


# Verdicts


def refused(ended: Ended, seconds: float = LONG_S) -> str:
    """Return one line of evidence that a command refused in good order.

    Raises:
        Open: it crashed, hung, took long, or did not refuse.
    """
    in_order(ended, seconds)
    if ended.code == 0:
        raise Open(f"accepted: {ended.last_line:.160}")
    return f"exit {ended.code}, {ended.peak_mb:.0f} MB, {ended.cpu_s:.1f} s: {shown(ended.last_line)}"


def in_order(ended: Ended, seconds: float = LONG_S) -> str:
    """Return one line of evidence that a command ended in good order, whatever it said.

    Raises:
        Open: it crashed, hung or took long.
    """
    if ended.code is None:
        raise Open(f"still running after {ended.seconds:.0f} s, {ended.peak_mb:.0f} MB")
    if ended.crashed:
        raise Open(f"exit {ended.code}, {ended.peak_mb:.0f} MB: {shown(ended.last_line)}")
    if ended.cpu_s > seconds:
        raise Open(f"took {ended.cpu_s:.0f} s of processor time, {ended.peak_mb:.0f} MB")
    return f"exit {ended.code}, {ended.peak_mb:.0f} MB, {ended.cpu_s:.1f} s: {shown(ended.last_line)}"


def small(ended: Ended, than: Ended, much_mb: float = MUCH_MB) -> str:
    """Return one line of evidence that a command took little more memory than another one.

    Raises:
        Open: it took much more.
    """
    more = ended.peak_mb - than.peak_mb
    if more > much_mb:
        raise Open(f"{more:.0f} MB more than an innocent file, exit {ended.code}: {shown(ended.last_line)}")
    return f"{more:+.0f} MB, exit {ended.code}: {shown(ended.last_line)}"


def clean_text(ended: Ended) -> str:
    """Return one line of evidence that a command printed no control characters.

    Raises:
        Open: it did.
    """
    if found := _CONTROL.search(ended.output):
        at = found.start()
        raise Open(f"control character in the output: {ended.output[max(0, at - 30) : at + 40]!r}")
    return f"exit {ended.code}, no control characters: {shown(ended.last_line)}"


def shown(text: str) -> str:
    """Return a text for a line of evidence: printable and short."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)[:170]
