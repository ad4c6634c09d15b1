"""What a store of many clips costs: ``python -m tests.benchmarks.store_scale [--states 10000] [--s3]``.

Prints tables, asserts nothing:

- requests of a run on a finished clip, of ``status`` for a clip, and objects of a clip, counted where every
  access to the store passes (:class:`portrait_core.store.files.Files`);
- seconds of ``portrait status`` for so many clips, on a disk and on an S3-speaking server of this machine;
- milliseconds of committing a frame into an output of 100, 1,000 and 10,000 frames.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from flows.cli.main import app
from portrait_core.generators import save_generator
from portrait_core.runtime.package_files import sample_portrait, sample_video
from portrait_core.store import Store
from portrait_core.store.files import Files
from tests.portrait_core import tiny

FRAMES = 12
PAGE = 1000
"""Objects that one request of S3 lists."""


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count requests as an object store would get them."""
    counts: Counter[str] = Counter()
    kept = {name: getattr(Files, name) for name in ("put", "get", "get_range", "list", "sizes", "delete")}

    def wrap(name: str) -> Any:
        @functools.wraps(kept[name])
        def run(self: Files, *arguments: Any) -> Any:
            first = arguments[0] if arguments else ""
            if name in ("get", "delete") and not isinstance(first, str):
                arguments = (list(first), *arguments[1:])
            result = kept[name](self, *arguments)
            counts[name] += _requests(name, arguments[0] if arguments else "", result)
            return result

        return run

    for name in kept:
        setattr(Files, name, wrap(name))
    try:
        yield counts
    finally:
        for name, method in kept.items():
            setattr(Files, name, method)


def _requests(name: str, asked: str | Mapping[str, bytes] | Iterable[str], result: Any) -> int:
    if name in ("get", "put", "delete"):
        return len(list(asked))
    return 1 if name == "get_range" else max(1, -(-len(result) // PAGE))


def _reenact(folder: Path) -> list[str]:
    """The command line of a small clip of its own store."""
    generator = folder / "tiny.safetensors"
    if not generator.exists():
        save_generator(tiny.generator(), generator)
    small = [
        f"generator.weights={generator}",
        *("generator.samples=8", "generator.importance_samples=6", "template.size=64"),
        *("inversion.first_steps=3", "tuning.steps=4", "tuning.patch=16", "tuning.novel_view_rays=32"),
        *("render.samples=8", "render.importance_samples=4", "runner.prefect=never"),
        f"media.max_frames={FRAMES}",
    ]
    places = ["--portrait", sample_portrait(), "--video", sample_video(), "--store", folder / "store"]
    settings = [part for change in small for part in ("--set", change)]
    return ["reenact", *map(str, places), "--out", str(folder / "out"), *settings]


def clip_rows(folder: Path) -> list[list[object]]:
    """Requests and objects of one clip."""
    rows: list[list[object]] = []
    line = _reenact(folder)
    for name, arguments in (
        ("first run", line),
        ("the same command again", line),
        ("status of the clip", ["status", str(folder / "store")]),
    ):
        with counted() as counts:
            ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code in (0, 1), ended.output
        rows.append([name, sum(counts.values()), ", ".join(f"{n} {c}" for n, c in sorted(counts.items()))])
    objects = sum(path.is_file() for path in (folder / "store").rglob("*"))
    of_clip = sum(path.is_file() for path in (folder / "store" / "reenactment").rglob("*"))
    rows.append([f"objects of {FRAMES} frames: the clip, all", f"{of_clip}, {objects}", ""])
    return rows


def table(headings: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown."""
    lines: list[list[Any]] = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def fill_states(store: Store, count: int, like: Mapping[str, Any]) -> None:
    """Write so many states of finished clips, as a dataset of one day leaves them."""
    store.check_format(write=True)
    names = {f"states/{i:016x}.json": i for i in range(count)}
    for start in range(0, count, 512):
        part = list(names.items())[start : start + 512]
        said = {
            path: json.dumps({**like, "id": f"{i:016x}", "label": f"clip-{i:06d}"}).encode()
            for path, i in part
        }
        store._files.put(said)


def status_seconds(url: str, environment: Mapping[str, str]) -> float:
    """Seconds of ``portrait status`` as a process of its own."""
    begin = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", "status", url],
        env={**environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "clips:" in ended.stdout, ended.stdout + ended.stderr
    return time.perf_counter() - begin


def commit_rows(folder: Path) -> list[list[object]]:
    """Milliseconds of writing and committing a frame, of three sizes of output."""
    rows: list[list[object]] = []
    for frames in (100, 1000, 10_000):
        output = Store(folder / f"commits-{frames}").unit("video", "a").output("fit", "00aa")
        output.ensure_array("latents", (frames, 14), "float32")
        value = np.zeros((1, 14), np.float32)
        for frame in range(frames - 20):
            output.write("latents", frame, value)
            output.commit([frame])
        begin = time.perf_counter()
        for frame in range(frames - 20, frames):
            output.write("latents", frame, value)
            output.commit([frame])
        rows.append([frames, f"{1000 * (time.perf_counter() - begin) / 20:.2f}"])
    return rows


def _on_s3(count: int, state: Mapping[str, Any]) -> float:
    """Seconds of the status of so many clips in a bucket of a server on this machine."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    try:
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("many")
        fill_states(Store("s3://many/store"), count, state)
        return status_seconds("s3://many/store", os.environ)
    finally:
        server.stop()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=10_000, help="clips in the store whose status is asked")
    parser.add_argument("--s3", action="store_true", help="ask an S3-speaking server (moto) too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(table(["", "requests", "of which"], clip_rows(folder)))
        print(table(["frames", "ms per commit of a frame"], commit_rows(folder)))
        (state,) = Store(folder / "store").read_records("states").values()
        rows: list[list[object]] = []
        fill_states(Store(folder / "many"), chosen.states, state)
        rows.append(["disk", chosen.states, f"{status_seconds(str(folder / 'many'), os.environ):.1f}"])
        if chosen.s3:
            rows.append(["S3", chosen.states, f"{_on_s3(chosen.states, state):.1f}"])
        print(table(["store", "clips", "seconds of portrait status"], rows))


if __name__ == "__main__":
    main()
