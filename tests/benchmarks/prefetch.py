"""How busy reading ahead and writing behind keep a worker: ``python -m tests.benchmarks.prefetch``.

The real tasks ``render``, ``inversion`` and ``landmarks`` run over the real store, on a local disk and on one
that answers every request late (requests made together wait together, as with an object store), and decode a
real video. Only the arithmetic sleeps instead: how long is given, for the landmarks it is measured first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import fsspec
import numpy as np
from fsspec.asyn import AsyncFileSystem
from numpy.typing import NDArray
from rich.console import Console

from portrait_core.media import read_frames
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import Settings, load_settings
from tasks.context import landmarker
from tasks.faces import FrameFaces, no_faces
from tests.benchmarks.tables import Grid
from tests.simulation.ready import ready_clip

SIZE = 512
VIDEO = (1280, 720)
FRAMES: dict[str, int] = {"render": 48, "inversion": 12, "landmarks": 96}
STORES = {"disk": 0.0, "20 ms": 0.02, "100 ms": 0.1}


class LateFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """Objects in memory behind a network: every request takes :attr:`latency_s`."""

    protocol = "late"
    latency_s: ClassVar[float] = 0.0
    objects: ClassVar[dict[str, bytes]] = {}

    async def _pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        await asyncio.sleep(self.latency_s)
        self.objects[path] = value

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        await asyncio.sleep(self.latency_s)
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path][start:end]

    async def _rm_file(self, path: str, **_: Any) -> None:
        await asyncio.sleep(self.latency_s)
        if self.objects.pop(path, None) is None:
            raise FileNotFoundError(path)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        await asyncio.sleep(self.latency_s)
        inside = f"{path.rstrip('/')}/"
        below = {inside + key[len(inside) :].split("/")[0] for key in self.objects if key.startswith(inside)}
        return sorted(below)

    async def _find(self, path: str, detail: bool = False, **_: Any) -> dict[str, dict[str, Any]]:
        await asyncio.sleep(self.latency_s)
        inside = f"{path.rstrip('/')}/"
        found = {key: len(value) for key, value in self.objects.items() if key.startswith(inside)}
        return {key: {"name": key, "size": size, "type": "file"} for key, size in sorted(found.items())}


class Card:
    """Sleeps instead of computing, and knows how much of the time it had something to do."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, time.perf_counter()
        self._spans: list[tuple[float, float]] = []

    def compute(self, frames: int = 1) -> None:
        """Compute so many frames."""
        begin = time.perf_counter()
        time.sleep(self._seconds * frames)
        self._spans.append((begin, time.perf_counter()))

    def share(self) -> float:
        """Busy share between its first moment and its last."""
        return sum(end - begin for begin, end in self._spans) / (self._spans[-1][1] - self._spans[0][0])

    def before(self) -> float:
        """Seconds until it had something to do."""
        return self._spans[0][0] - self._since


@contextlib.contextmanager
def _sleeping(stage: str, card: Card, picture: NDArray[np.uint8]) -> Iterator[None]:
    """The stage's arithmetic replaced by the card's sleep; what it reads and writes is of real size."""
    from portrait_core.rendering.pose_renderer import PosedFrame

    def render(*_: Any) -> PosedFrame:
        card.compute()
        return PosedFrame(picture, picture, picture[..., 0], picture[:128, :128, 0].astype(np.float16))

    def invert(inverter: Any, clip: Any, first: Any, *_: Any) -> Any:
        card.compute()
        return first.latent.ws

    def read(pictures: NDArray[np.uint8], first: int) -> FrameFaces:
        card.compute(len(pictures))
        found = no_faces(len(pictures))
        found.faces[:] = 0.0
        return found

    replaced: dict[str, dict[str, Any]] = {
        "render": {"tasks.stages.render.pose_renderer": lambda job: SimpleNamespace(render=render)},
        "inversion": {
            "tasks.stages.inversion._inverter": lambda *_: None,
            "tasks.stages.inversion._whole_picture": lambda *_: picture,
            "portrait_core.inversion.chain.invert_frame": invert,
            "portrait_core.inversion.pictures.face_picture": lambda *_: (picture, 0.0),
        },
        "landmarks": {
            "tasks.stages.landmarks.FaceReader": lambda *_: SimpleNamespace(read=read),
            "tasks.stages.landmarks.video_file": lambda job: Path(job.video),
        },
    }
    with contextlib.ExitStack() as stack:
        for name, stand_in in replaced[stage].items():
            stack.enter_context(patch(name, stand_in))
        yield


def one(job: Job, stage: str, seconds: float, picture: NDArray[np.uint8], ahead: int) -> Card:
    """One task over all frames of a stage."""
    from tasks.stages.inversion import invert_range
    from tasks.stages.landmarks import landmarks
    from tasks.stages.render import render

    task = {"render": render, "inversion": invert_range, "landmarks": landmarks}[stage]
    job.output(stage).uncommit()
    card = Card(seconds)
    with patch("tasks.frames._AHEAD", ahead), _sleeping(stage, card, picture):
        done = task(job=job, start=0, stop=FRAMES[stage]).frames_done
    if done != FRAMES[stage]:
        raise RuntimeError(f"{stage}: {done} frames done")
    return card


def film(folder: Path) -> Path:
    """The sample video at full size, long enough."""
    import subprocess

    from portrait_core.media.binary import ffmpeg_binary
    from portrait_core.runtime.package_files import sample_video

    path = folder / "film.mp4"
    shape = f"scale={VIDEO[0]}:{VIDEO[1]}"
    command = [ffmpeg_binary(), "-loglevel", "error", "-i", str(sample_video()), "-vf", shape]
    subprocess.run([*command, "-c:v", "libx264", "-preset", "veryfast", str(path)], check=True)
    return path


def clip(store: str, video: Path, settings: Settings, picture: NDArray[np.uint8]) -> Job:
    """A clip whose frames can be inverted, rendered and looked at."""
    frames = max(FRAMES.values())
    return ready_clip(store, "clip", frames, settings, crop=picture).model_copy(update={"video": str(video)})


def landmark_seconds(job: Job) -> float:
    """Measured seconds of the landmark models for a frame, on one thread."""
    batch = np.stack(list(read_frames(job.video, 0, job.settings.tracking.batch)))
    model = landmarker(job, 1)
    model.detect(batch)
    begin = time.perf_counter()
    model.detect(batch)
    return (time.perf_counter() - begin) / len(batch)


def table(seconds: dict[str, float], picture: NDArray[np.uint8], tell: Callable[[str], None]) -> Grid:
    """Busy shares without reading ahead and with it."""
    fsspec.register_implementation("late", LateFileSystem, clobber=True)
    settings = load_settings("embedded", [f"template.size={SIZE}", "inversion.init=mean", "device=cpu"])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        video = film(Path(folder))
        for name, latency in STORES.items():
            LateFileSystem.latency_s = 0.0
            job = clip("late://store" if latency else f"{folder}/store", video, settings, picture)
            seconds = {"landmarks": landmark_seconds(job), **seconds}
            LateFileSystem.latency_s = latency
            for stage in FRAMES:
                cards = []
                for ahead in (0, 1):
                    forget_models()  # and with them the masks that are in memory
                    cards.append(one(job, stage, seconds[stage], picture, ahead))
                again = one(job, stage, 0.0, picture, 1)
                shares = [f"{100 * card.share():.1f} %" for card in cards]
                before = [f"{card.before():.2f}" for card in (cards[1], again)]
                row = [stage, name, f"{1000 * seconds[stage]:.0f}", *shares, *before]
                rows.append(row)
                tell(" ".join(row))
    rows.sort(key=lambda row: [*map(str, FRAMES)].index(row[0]))
    headings = ["stage", "store", "ms a frame", "busy without", "with", "s before", "next range"]
    caption = (
        f"Frames of {SIZE} pixels from the store; a video of {VIDEO[0]}x{VIDEO[1]}, in batches of "
        f"{settings.tracking.batch}. Busy: from the first frame's computing to the last one's, writing "
        "behind in both columns. s before: from the task's call to its first frame's computing, in a process "
        "that knows nothing of the clip, and in one that did a range of it before; models load in no time."
    )
    return Grid("What waits for a store or a decoder", headings, rows, caption, n_text=2)


def main() -> None:
    """Print the table."""
    from tests.simulation.stub import StubSettings, _value

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--render", type=float, default=0.1, help="seconds of a card for a rendered frame")
    parser.add_argument("--inversion", type=float, default=1.0, help="seconds of a card for a frame's latent")
    asked = parser.parse_args()
    picture = np.asarray(_value("crop", StubSettings(size=SIZE)), np.uint8)
    seconds = {"render": asked.render, "inversion": asked.inversion}
    Console().print(table(seconds, picture, lambda line: print(line, flush=True)).for_terminal())


if __name__ == "__main__":
    main()
