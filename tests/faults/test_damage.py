"""A bit flipped and a file cut short, in everything that the store keeps: noticed, and made again."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tests.faults.conftest import FRAMES, MakeBench, Whole
from tests.faults.content import different
from tests.faults.events import done_again
from tests.faults.runs import KILLED, Bench
from tests.faults.table import add_row, committed_count

FRAME = 2
"""The frame that is damaged, where frames have files of their own."""
Again = dict[tuple[str, int], int]

KILLS = {
    "first latent": "kill=*/files/first_latent.*:before",
    "tuning": "kill=tuning:before-data",
    "render": "kill=render:before-data",
    "encode": "kill=encode:before-data",
}
"""Where a run was killed before its store was damaged: what is damaged must still be read."""


def flip(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Lose the second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_name(path: Path) -> None:
    """Lose half of the marker's name."""
    path.rename(path.with_name(path.name[:4]))


def flip_digest(path: Path) -> None:
    """Flip one digit of the digest in a file's name."""
    stem, digest, suffix = path.name.rsplit(".", 2)
    path.rename(path.with_name(f"{stem}.{'1' if digest[0] != '1' else '3'}{digest[1:]}.{suffix}"))


def scribble(path: Path) -> None:
    """Put something into a file that should be empty."""
    path.write_bytes(b"\x04")


@dataclass(frozen=True)
class Case:
    """One damage: where the run stood, which file, how, and which committed frames it may cost."""

    killed_at: str
    target: str
    damage: Callable[[Path], None]
    again: Again


def _chunk(stage: str, array: str) -> tuple[str, Again]:
    return f"*/*/{stage}.*/{array}/c.{FRAME}.*", {(stage, FRAME): 1}


_NOTHING: Again = {}
_LATENTS = _chunk("inversion", "latents")
_TEMPLATE = _chunk("template", "face_mask")
_PICTURES = _chunk("render", "frames")
_LANDMARKS = _chunk("landmarks", "faces")
_MARKER = f"reenactment/*/inversion.*/done/{FRAME:08d}"
_TUNED = "reenactment/*/tuning.*/files/tuned_generator.*.safetensors"
_FIRST = "reenactment/*/inversion.*/files/first_latent.*.npz"
_LATENTS_DOCUMENT = "reenactment/*/inversion.*/latents/zarr.json"
_INVERTING = "*/*/inversion.*/files/inversion.*.checkpoint"
_TUNING = "*/*/tuning.*/files/tuning.*.checkpoint"
_RETUNED: Again = {("tuning", 0): 1}
_DOCUMENT: Again = {("inversion", frame): 1 for frame in range(FRAMES)}

QUICK = {
    "chunk flipped": Case("tuning", _LATENTS[0], flip, _LATENTS[1]),
    "tuning checkpoint flipped": Case("tuning", _TUNING, flip, _NOTHING),
}
SLOW = {
    "chunk cut": Case("tuning", _LATENTS[0], cut, _LATENTS[1]),
    "mask chunk flipped": Case("tuning", _TEMPLATE[0], flip, _TEMPLATE[1]),
    "landmarks chunk cut": Case("encode", _LANDMARKS[0], cut, _LANDMARKS[1]),
    "picture chunk flipped": Case("encode", _PICTURES[0], flip, _PICTURES[1]),
    "picture chunk cut": Case("encode", _PICTURES[0], cut, _PICTURES[1]),
    "array's document flipped": Case("tuning", _LATENTS_DOCUMENT, flip, _DOCUMENT),
    "array's document cut": Case("tuning", _LATENTS_DOCUMENT, cut, _DOCUMENT),
    "marker's name cut": Case("tuning", _MARKER, cut_name, _LATENTS[1]),
    "marker's file scribbled": Case("tuning", _MARKER, scribble, _NOTHING),
    "tuning checkpoint cut": Case("tuning", _TUNING, cut, _NOTHING),
    "inversion checkpoint flipped": Case("first latent", _INVERTING, flip, _NOTHING),
    "inversion checkpoint cut": Case("first latent", _INVERTING, cut, _NOTHING),
    "digest in a name flipped": Case("render", _TUNED, flip_digest, _RETUNED),
    "first latent cut": Case("tuning", _FIRST, cut, _DOCUMENT),
    "group's document cut": Case("tuning", "reenactment/*/inversion.*/zarr.json", cut, _NOTHING),
    "tuned generator flipped": Case("render", _TUNED, flip, _RETUNED),
    "tuned generator cut": Case("render", _TUNED, cut, _RETUNED),
    "cameras flipped": Case("render", "*/*/pose.*/files/output_cameras.*.npy", flip, {("pose", 0): 1}),
}


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Callable[[str], list[str]]]
) -> Callable[[str], Bench]:
    """``killed(where)``: a store whose run was killed there, made once."""
    known: dict[str, Bench] = {}

    def get(where: str) -> Bench:
        if where not in known:
            folder = tmp_path_factory.mktemp("killed")
            known[where] = Bench(folder, command(folder / "out", FRAMES))
            run = known[where].start(KILLS[where])
            assert run.wait() == KILLED, run.output[-3000:]
        return known[where]

    return get


def _parameters() -> list[object]:
    marks = [pytest.mark.slow, pytest.mark.each_change]
    quick = [pytest.param(name, case, id=name, marks=marks) for name, case in QUICK.items()]
    return [*quick, *(pytest.param(n, case, id=n, marks=pytest.mark.slow) for n, case in SLOW.items())]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("name", "case"), _parameters())
def test_damage_is_noticed_and_made_good(
    bench: MakeBench,
    undisturbed: Whole,
    killed: Callable[[str], Bench],
    name: str,
    case: Case,
) -> None:
    clip, source = bench(), killed(case.killed_at)
    shutil.copytree(source.store, clip.store)
    shutil.copytree(source.folder / "faults", clip.folder / "faults", dirs_exist_ok=True)
    (target,) = Path(clip.store).glob(case.target)
    case.damage(target)
    before = committed_count(clip)
    run = clip.finish()
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, name, f"before {case.killed_at}", 1, before, wrong, run)
    assert wrong == [], run.output[-3000:]
    assert clip.is_finished
    assert done_again(clip.events) <= Counter(case.again)


def lose(path: Path) -> None:
    """Lose the file."""
    path.unlink()


FINISHED = {
    "clip lost": ("encode.*/files/reenactment.*.mp4", lose),
    "clip flipped": ("encode.*/files/reenactment.*.mp4", flip),
    "clip cut": ("encode.*/files/reenactment.*.mp4", cut),
    "sheet lost": ("encode.*/files/contact_sheet.*.png", lose),
    "sheet flipped": ("encode.*/files/contact_sheet.*.png", flip),
    "clip beside the driver cut": ("encode.*/files/side_by_side.*.mp4", cut),
    "curves lost": ("measure.*/files/expression.*.png", lose),
    "motion emptied": ("measure.*/notes/motion.json", lambda path: path.write_bytes(b"")),
    "motion lost": ("measure.*/notes/motion.json", lose),
    "packed pictures flipped": ("render.*/frames/c/0/0/0/0", flip),
    "packed latents cut": ("inversion.*/latents/c/0/0/0", cut),
    "packed masks lost": ("template.*/face_mask/c/0/0/0", lose),
    "packed array's document cut": ("render.*/frames/zarr.json", cut),
    "tuned generator cut": ("tuning.*/files/tuned_generator.*.safetensors", cut),
    "every marker of the clip lost": ("encode.*/done/00000000", lose),
}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Callable[[str], list[str]]]
) -> Bench:
    """A store whose clip is finished and packed."""
    folder = tmp_path_factory.mktemp("finished")
    made = Bench(folder, command(folder / "out", FRAMES))
    assert made.finish().wait() == 0
    return made


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(n, case, id=n, marks=[pytest.mark.slow, pytest.mark.each_change])
        for n, case in FINISHED.items()
    ],
)
def test_damage_to_a_finished_clip_is_found_and_made_good(
    bench: MakeBench,
    undisturbed: Whole,
    finished: Bench,
    name: str,
    case: tuple[str, Callable[[Path], object]],
) -> None:
    clip = bench()
    shutil.copytree(finished.store, clip.store)
    (target,) = Path(clip.store).glob(f"reenactment/*/{case[0]}")
    case[1](target)
    if case[1] is not lose:  # what is gone every run sees by itself
        verified = CliRunner().invoke(app, ["verify", clip.store, "--repair"])
        assert verified.exit_code == 1, verified.output
    run = clip.finish()
    wrong = different(clip.store, undisturbed().content)
    add_row(clip, f"finished: {name}", "", 1, committed_count(clip), wrong, run)
    assert wrong == [], run.output[-3000:]
    assert CliRunner().invoke(app, ["verify", clip.store]).exit_code == 0
