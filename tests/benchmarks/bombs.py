"""What small files cost that announce much: ``python -m tests.benchmarks.bombs [--tree PATH] [--only TEXT]``.

Each file goes to the command that meets it, in a child process whose memory and time are capped. Printed as
Markdown: bytes of the file, what it announces, and for every checkout the exit code, seconds, the peak of
memory beyond that of the same command on an innocent file, and the last line of the message. Asserts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import torch

from tests.hostile import files_media as media
from tests.hostile import files_stores as stores
from tests.hostile import files_weights as weights
from tests.hostile.bench import ROOT, Bench, samples, shown
from tests.hostile.capped import Ended

Make = Callable[[Bench], Path]
_EMBEDDED_LANDMARKS = "face_landmarks_468.onnx"


@dataclass(frozen=True)
class Bomb:
    """A small file, and the command that meets it.

    Attributes:
        name: what it is.
        announced: what it asks for.
        command: name of one of ``COMMANDS``.
        make: writes it and returns its path; for a store, that of the hostile file in it.
    """

    name: str
    announced: str
    command: str
    make: Make


def _file(name: str, data: Callable[[], bytes]) -> Make:
    return lambda bench: bench.place(name, data())


def _gap(name: str, codec: str = "mpeg4", ticks: int = 10**10) -> Make:
    times = [i * 40 for i in range(30)] + [ticks]
    return lambda bench: media.video(bench.folder / name, times, codec=codec)


def _rate(bench: Bench) -> Path:
    return media.video(bench.folder / "a.mkv", [0, 1, 10**7], rate=Fraction(1000))


def _frames(name: str, codec: str, data: Callable[[], bytes], streams: int = 1) -> Make:
    return lambda bench: media.raw_packets(bench.folder / name, codec, [data()] * 2, streams=streams)


def _text(bench: Bench) -> Path:
    return bench.place("a.mp4", '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')


def _in_store(place: str, size: int) -> Make:
    """Put a sparse file into a store; ``fit/`` and ``encode/`` stand for those stages' folders."""

    def make(bench: Bench) -> Path:
        store = bench.store()
        top, _, rest = place.partition("/")
        folder = stores.stage(store, top) if top in ("fit", "encode") else store / top
        return stores.sparse(folder / rest if rest else store / place, size)

    return make


def _frames_in_store(bench: Bench) -> Path:
    folder = stores.stage(bench.store(), "fit") / "more"
    folder.mkdir()
    rows = (1 << 30) - 8
    (folder / "zarr.json").write_text(stores.document([rows], "uint8", [stores.PLAIN, stores.CRC], [rows]))
    path = folder / "c.0"
    path.write_bytes(b"xxxxx")
    return path


def _chunk(twice: bool) -> Make:
    """Put a chunk of six gigabytes into a store: compressed twice, or a frame behind a sound one."""

    def make(bench: Bench) -> Path:
        inner = stores.zstd_of_zeros(6 << 30)
        codecs = [stores.PLAIN, *[stores.ZSTD] * (2 if twice else 1), stores.CRC]
        shape = [2, len(inner), 1] if twice else [2, 8, 8]
        chunk = stores.zstd_of(inner) if twice else stores.zstd_of_zeros(64) + inner
        folder = stores.stage(bench.store(), "fit") / "more"
        folder.mkdir()
        (folder / "zarr.json").write_text(stores.document(shape, "uint8", codecs))
        for frame in range(2):
            (folder / f"c.{frame}.0.0").write_bytes(chunk + stores.crc32c(chunk))
        return folder / "c.0.0.0"

    return make


def _markers(bench: Bench) -> Path:
    done = stores.stage(bench.store(), "fit") / "done"
    for number in range(200):
        path = done / f"{number * 1_000_000:08d}-{number * 1_000_000 + 999_999:08d}"
        path.touch()
    stores.change_record(bench.folder / "store", "states", stores.unfinished)
    return path


def _job(bench: Bench) -> Path:
    store = bench.store()
    stores.add_job(store, lambda job: job.update(frames=10**11), stores.unfinished)
    return store / "jobs" / f"{stores.SECOND}.json"


def _failure(bench: Bench) -> Path:
    store = bench.store()
    one = stores.stage(store, "encode")
    path = one.parent / "failures" / "a.parquet"
    path.parent.mkdir()
    path.write_bytes(stores.failures([10**11], "encode", one.name.partition(".")[2]))
    (one / "done").rename(one / "gone")
    stores.change_record(store, "states", stores.unfinished)
    return path


def _lists(bench: Bench) -> Path:
    path = bench.store() / "states" / "00.json"
    path.write_text("[" + "[],{}," * 10_000_000 + "0]")
    return path


def _aliases(bench: Bench) -> Path:
    names = "abcdefghi"
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]" for before, after in pairwise(names)]
    return bench.place("p.yaml", "\n".join(lines))


def _duplicates(bench: Bench) -> Path:
    portrait, video = samples()
    head = "portrait,video,licence,consent\n"
    return bench.place("m.csv", head + f"{portrait},{video},CC0,x\n" * 400_000)


def _announcing(**changes: object) -> Make:
    return lambda bench: weights.generator_announcing(bench.folder / "g.safetensors", **changes)


BOMBS = (
    Bomb("png, RGBA", "88 megapixels", "check", _file("a.png", lambda: media.png(9400, 9400, 8, 6))),
    Bomb("png, 16 bits", "88 megapixels", "check", _file("a.png", lambda: media.png(9400, 9400, 16, 0))),
    Bomb("png, palette of 1 bit", "88 megapixels", "check", _file("a.png", lambda: media.png(9400, 9400, 1,
    3))),
    Bomb("webp, alpha", "88 megapixels", "check",
         _file("a.webp", lambda: media.pillow(9400, 9400, "WEBP", "RGBA", lossless=True))),
    Bomb("tiff, fax", "88 megapixels", "check", _file("a.tif", lambda: media.tiff(9400, 9400, "1",
    "group4"))),
    Bomb("jpeg 2000, alpha", "88 megapixels", "check",
         _file("a.jp2", lambda: media.pillow(9400, 9400, "JPEG2000", "RGBA"))),
    Bomb("mkv, time gap", "250,000,001 frames", "check", _gap("a.mkv")),
    Bomb("webm, time gap", "250,000,001 frames", "check", _gap("a.webm", "libvpx-vp9")),
    Bomb("flv, time gap", "50,000,001 frames", "check", _gap("a.flv", "flv1", 2 * 10**9)),
    Bomb("mkv, rate of 1/0", "no rate", "check", _rate),
    Bomb("mp4, tables of frames", "60,000,000 frames", "check",
         _file("a.mp4", lambda: media.mp4_of_many_samples(60_000_000))),
    Bomb("mov, size in the frames", "16,000 x 16,000", "check", _frames("a.mov", "png",
    lambda: media.png(16000, 16000))),
    Bomb("avi, size in the frames", "16,000 x 16,000", "check",
         _frames("a.avi", "mjpeg", lambda: media.pillow(16000, 16000, "JPEG", "L", quality=1))),
    Bomb("mov, eight tracks", "8 x 16,000 x 16,000", "check",
         _frames("a.mov", "png", lambda: media.png(16000, 16000), 8)),
    Bomb("gif, screen", "16,000 x 16,000", "check",
         _file("a.mov", lambda: media.gif(64, 64, 3, (16000, 16000)))),
    Bomb("svg named mp4", "nothing", "check", _text),
    Bomb("store, rows that are not there", "10^9 rows", "verify", _frames_in_store),
    Bomb("store, chunk in a chunk", "6 GB", "verify", _chunk(True)),
    Bomb("store, chunk behind a chunk", "6 GB", "verify", _chunk(False)),
    Bomb("store, markers", "200,000,000 frames", "status", _markers),
    Bomb("store, job", "10^11 frames", "status", _job),
    Bomb("store, failure", "frame 10^11", "status", _failure),
    Bomb("store, JSON of lists", "20,000,000 values", "status", _lists),
    Bomb("store, sparse state", "20 GB", "status", _in_store("states/00.json", 20 << 30)),
    Bomb("store, sparse file", "20 GB", "verify", _in_store(f"encode/files/x.{'0' * 32}.mp4", 20 << 30)),
    Bomb("torch, repeated number", "4 GB", "models", _file(
        "modellarge10k.pt", lambda: weights.saved({"a": torch.zeros(1).expand(10**9)}))),
    Bomb("torch, views of one storage", "4 GB", "models", _file(
        "modellarge10k.pt",
        lambda: weights.saved({f"a{i}": one for i, one in enumerate([torch.zeros(1 << 18)] * 4000)}))),
    Bomb("torch, compressed archive", "1 GB", "models", _file(
        "vgg16-397923af.pth",
        lambda: weights.deflated(weights.saved({"features.0.weight": torch.zeros(1 << 28)})))),
    Bomb("zip of a pack", "1 GB", "models", _file(
        "buffalo_l.zip", lambda: weights.zip_of_zeros("det_10g.onnx", (1 << 30) - (1 << 24)))),
    Bomb("mat, compressed", "1 GB", "models", _file(
        "similarity_Lm3D_all.mat", lambda: weights.mat_of_zeros("lm", 16384, 8191))),
    Bomb("safetensors, settings", "w of 200,000 numbers", "models", _announcing(w_dim=200_000)),
    Bomb("npy, header", "8 TB", "models", _file(
        "landmark_embedding.npy",
        lambda: b"\x93NUMPY\1\0" + (66).to_bytes(2, "little")
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (10**12,), }".ljust(66))),
    Bomb("onnx, external data", "another file", "models",
         _file(_EMBEDDED_LANDMARKS, lambda: weights.onnx_asking_for("/etc/hostname", "function"))),
    Bomb("Parquet manifest", "2 x 900 MB of cells", "manifest",
         _file("m.parquet", lambda: stores.parquet_of_equal_cells(3_000_000, "x" * 300))),
    Bomb("CSV manifest, duplicates", "400,000 rows", "manifest", _duplicates),
    Bomb("YAML profile, aliases", "9^9 values", "profile", _aliases),
)  # fmt: skip
"""All of them."""


def run(bench: Bench, bomb: Bomb, path: Path) -> Ended:
    """Give a file to its command."""
    if bomb.command == "check":
        role = "portrait" if path.suffix in (".png", ".webp", ".tif", ".jp2", ".jpg") else "video"
        return bench.portrait("dataset", "check", "--deep", bench.manifest([{role: str(path)}]))
    if bomb.command == "profile":
        return bench.portrait("dataset", "check", bench.manifest([{"profile": str(path)}]))
    if bomb.command == "manifest":
        return bench.portrait("dataset", "check", "--no-consent", path)
    if bomb.command == "models":
        return bench.portrait("models", "check", path)
    return bench.portrait(bomb.command, bench.folder / "store")


def innocent(bench: Bench, command: str) -> Ended:
    """Run the same command on a file in which nothing is wrong, or for weights on one that is too short."""
    if command == "models":
        return bench.portrait("models", "check", bench.place("vgg.pth", b"x"))
    if command in ("status", "verify"):
        return bench.portrait(command, bench.shared / "store")
    more = ["--deep"] if command == "check" else []
    return bench.portrait("dataset", "check", *more, bench.manifest([{}], "innocent.csv"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tree", type=Path, action="append", help="checkout; can be repeated, default: this one"
    )
    parser.add_argument("--only", default="", help="files whose name contains this text")
    parser.add_argument("--shared", type=Path, help="folder that keeps the finished store between runs")
    chosen = parser.parse_args()
    trees = [tree.absolute() for tree in chosen.tree or [ROOT]]
    shared = chosen.shared or Path(tempfile.mkdtemp(prefix="bombs-"))
    shared.mkdir(parents=True, exist_ok=True)
    heads = [f"{tree.name}: exit | s | MB | message" for tree in trees]
    print(f"| file | bytes | announces | command | {' | '.join(heads)} |\n|{'---|' * (4 + 4 * len(trees))}")
    quiet: dict[tuple[Path, str], Ended] = {}
    for bomb in (one for one in BOMBS if chosen.only in one.name):
        cells = []
        for tree in trees:
            bench = Bench(Path(tempfile.mkdtemp(prefix="bomb-")), tree, shared)
            try:
                path = bomb.make(bench)
                size = path.stat().st_blocks * 512 if path.stat().st_size > 1 << 30 else path.stat().st_size
                if (tree, bomb.command) not in quiet:
                    quiet[tree, bomb.command] = innocent(bench, bomb.command)
                ended = run(bench, bomb, path)
            finally:
                shutil.rmtree(bench.folder)
            more = ended.peak_mb - quiet[tree, bomb.command].peak_mb
            code = "killed" if ended.code is None else ended.code
            line = shown(ended.last_line).replace("|", "\\|").replace(str(bench.folder), "...")
            cells.append(f"{code} | {ended.seconds:.1f} | {more:+,.0f} | {line[:110]}")
        print(
            f"| {bomb.name} | {size:,} | {bomb.announced} | {bomb.command} | {' | '.join(cells)} |",
            flush=True,
        )
    if chosen.shared is None:
        shutil.rmtree(shared)


if __name__ == "__main__":
    main()
