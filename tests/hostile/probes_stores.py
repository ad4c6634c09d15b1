"""Probes of stores that come from somebody else: what their records, arrays and names do to the commands."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile import files_stores as stores
from tests.hostile.bench import MUCH_MB, Bench, Open, clean_text, in_order, shown, small
from tests.hostile.capped import Ended
from tests.hostile.registry import probe

GOOD = "astronaut--carphone"
"""Beginning of the label of the clip that every store here holds."""
COMMANDS = (["status"], ["verify"], ["clean", "--dry-run"], ["clean", "--stale", "--dry-run"], ["retry"])
_innocent: dict[tuple[Path, tuple[str, ...]], Ended] = {}


def innocent(bench: Bench, command: tuple[str, ...]) -> Ended:
    """Return how a command ends on the store as it was made."""
    if (bench.tree, command) not in _innocent:
        _innocent[bench.tree, command] = bench.portrait(*command, bench.shared / "store")
    return _innocent[bench.tree, command]


def commands(bench: Bench, store: Path, *chosen: list[str], good: bool = True) -> str:
    """Run commands on a store: each ends in good order, in little memory, and knows the good clip."""
    said = ""
    for command in chosen or COMMANDS:
        ended = bench.portrait(*command, store, seconds=45.0)
        name = " ".join(command)
        try:
            in_order(ended)
            said = small(ended, innocent(bench, tuple(command)))
            if good and command[0] in ("status", "verify") and GOOD not in ended.output:
                raise Open(f"the good clip is gone: {shown(ended.last_line)}")
        except Open as found:
            raise Open(f"{name}: {found}") from None
    return said


# Rows of the table


def _preloading(bench: Bench) -> dict[str, Any]:
    code = bench.place("evil.py", f"open({str(bench.folder / 'canary')!r}, 'w').close()\n")
    return {"kind": "local_cluster", "cluster": {"preload": [str(code)]}, "workers": 1}


@probe("process21", "critical", 1)
def stored_runner(bench: Bench) -> str:
    """`portrait retry` on a store whose job names code that workers import."""
    store = bench.store()
    runner = _preloading(bench)
    stores.change_record(store, "jobs", lambda job: job["settings"].update(runner=runner))
    stores.change_record(store, "states", lambda state: state.update(state="failed"))
    (stores.stage(store, "encode") / "done").rename(bench.folder / "done")
    ended = bench.portrait("retry", store, seconds=120.0)
    if (bench.folder / "canary").exists():
        raise Open("the code ran")
    return f"exit {ended.code}: {shown(ended.last_line)}"


@probe("store21", "high", 4)
def clean_follows_links(bench: Bench) -> str:
    """An array's folder, and one of half-written files, that lead out of the store."""
    store = bench.store()
    outside = bench.folder / "outside"
    outside.mkdir()
    for name in ("c.0.0", "zarr.json", "x.partial"):
        (outside / name).write_bytes(b"mine")
        os.utime(outside / name, (0, 0))
    array = stores.stage(store, "template") / "template"
    array.rename(bench.folder / "old")
    array.symlink_to(outside)
    (store / "reenactment" / "more").symlink_to(outside)
    (store / "x.partial").symlink_to(outside / "x.partial")
    for command in (["clean"], ["clean", "--policy", "clip"], ["clean", "--stale"]):
        bench.portrait(*command, store)
        if sorted(path.name for path in outside.iterdir()) != ["c.0.0", "x.partial", "zarr.json"]:
            raise Open(f"{' '.join(command)} deleted outside the store")
    return "nothing outside is deleted"


@probe("store21", "medium", 7)
def retry_reads_my_files(bench: Bench) -> str:
    """A foreign store names one's own file as its portrait: it may not end up in the store."""
    store = bench.store()
    mine = bench.place("mine.png", (bench.shared / "out" / "contact_sheet.png").read_bytes())
    stores.change_record(store, "jobs", lambda job: job.update(portrait=str(mine)))
    stores.change_record(store, "states", lambda state: state.update(state="failed"))
    for name in ("portrait", "layers"):
        (stores.stage(store, name) / "done").rename(bench.folder / f"done-{name}")
    for name in ("measure", "encode", "render", "template", "inversion", "tuning", "pose", "retarget"):
        (stores.stage(store, name) / "done").rename(bench.folder / f"done-{name}")
    ended = bench.portrait("retry", store, seconds=120.0)
    if (stores.stage(store, "portrait") / "done").exists():
        raise Open("the store now holds what was made of it")
    return in_order(ended, 60.0)


@probe("store21", "medium", 11)
def frames_beyond_counting(bench: Bench) -> str:
    """An array's document of 10^12 frames."""
    store = bench.store()
    for path in stores.stage(store, "fit").glob("*/zarr.json"):
        text = json.loads(path.read_text())
        text["shape"][0] = 10**12
        grid = text["chunk_grid"]["configuration"]["chunk_shape"]
        grid[0] = 10**12 if grid[0] != 1 else 1
        path.write_text(json.dumps(text))
    return commands(bench, store, ["status"], ["verify"])


@probe("store21", "medium", 11)
def frames_without_bytes(bench: Bench) -> str:
    """One chunk of 10^9 rows of no bytes each."""
    store = bench.store()
    text = stores.document([10**9, 0], "float32", [stores.BYTES, stores.CRC], [10**9, 0])
    folder = stores.stage(store, "fit") / "empty"
    folder.mkdir()
    (folder / "zarr.json").write_text(text)
    (folder / "c.0.0").write_bytes(b"xxxx")
    return commands(bench, store, ["verify"])


@probe("store21", "medium", 11)
def chunk_in_a_chunk(bench: Bench) -> str:
    """A chunk compressed twice, whose inside is six gigabytes."""
    store = bench.store()
    codecs = [stores.PLAIN, stores.ZSTD, stores.ZSTD, stores.CRC]
    inner = stores.zstd_of_zeros(6 << 30)
    return _chunk_bomb(bench, store, [2, len(inner), 1], codecs, inner)


def _chunk_bomb(
    bench: Bench, store: Path, shape: list[int], codecs: list[dict[str, Any]], chunk: bytes
) -> str:
    folder = stores.stage(store, "fit") / "bomb"
    folder.mkdir()
    (folder / "zarr.json").write_text(stores.document(shape, "uint8", codecs))
    wrapped = stores.zstd_of(chunk) if codecs.count(stores.ZSTD) > 1 else chunk
    for frame in range(shape[0]):
        name = ".".join(["c", str(frame), *("0" for _ in shape[1:])])
        (folder / name).write_bytes(wrapped + stores.crc32c(wrapped))
    return commands(bench, store, ["verify"])


@probe("store21", "medium", 11)
def chunk_that_lies(bench: Bench) -> str:
    """A chunk whose head states little and whose frame goes on for six gigabytes."""
    chunk = stores.zstd_of_zeros(6 << 30, 64)
    return _chunk_bomb(bench, bench.store(), [4, 8, 8], [stores.PLAIN, stores.ZSTD, stores.CRC], chunk)


@probe("store21", "medium", 11)
def chunk_behind_a_chunk(bench: Bench) -> str:
    """A chunk whose first frame is as announced, and followed by frames of six gigabytes."""
    chunk = stores.zstd_of_zeros(64) + stores.zstd_of_zeros(6 << 30)
    return _chunk_bomb(bench, bench.store(), [4, 8, 8], [stores.PLAIN, stores.ZSTD, stores.CRC], chunk)


@probe("store21", "medium", 11)
def record_is_a_pipe(bench: Bench) -> str:
    """A pipe as a job's record, and as a state's."""
    store = bench.store()
    for kind in ("jobs", "states"):
        os.mkfifo(store / kind / f"{stores.SECOND}.json")
    return commands(bench, store)


@probe("store21", "medium-low", 15)
def record_is_a_number(bench: Bench) -> str:
    """A job's and a state's record that is 5."""
    store = bench.store()
    for kind in ("jobs", "states"):
        (store / kind / f"{stores.SECOND}.json").write_text("5")
    return commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"], ["retry"])


@probe("store21", "medium-low", 15)
def lease_with_markup(bench: Bench) -> str:
    """A lease whose host is [/nope], on a clip that is at work."""
    store = bench.store()
    from datetime import UTC, datetime

    lease = {
        "owner": "a", "host": "[/nope]", "pid": 1, "process_started": 1, "stage": "encode", "beat": 1,
        "time_utc": datetime.now(UTC).isoformat(),
    }  # fmt: skip
    for unit in store.glob("*/*/label.json"):
        unit.with_name("lease.json").write_text(json.dumps(lease))
    stores.change_record(store, "states", stores.unfinished)
    (stores.stage(store, "encode") / "done").rename(bench.folder / "done")
    return commands(bench, store, ["status"])


@probe("store21", "medium-low", 15)
def odd_names_everywhere(bench: Bench) -> str:
    """Folders lost+found and files .DS_Store, and names that are no text, in every folder."""
    store = bench.store()
    folders = [path for path in store.rglob("*") if path.is_dir()]
    for folder in [store, *folders]:
        for name in (b"lost+found", b"@eaDir", b"a.0123456789abcdef"):
            (folder / os.fsdecode(name)).mkdir(exist_ok=True)
        for name in (b".DS_Store", b"Thumbs.db", b"\xff\xfe.json", b"a\nb.json", b"DS_Store"):
            (folder / os.fsdecode(name)).write_bytes(b"\0\0\0\1Bud1")
    return commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"])


@probe("store21", "medium-low", 15)
def records_are_folders(bench: Bench) -> str:
    """Folders in the place of a state, a job, a note and a lease."""
    store = bench.store()
    for kind in ("jobs", "states", "plans"):
        (store / kind / f"{stores.SECOND}.json").mkdir(parents=True)
    (stores.stage(store, "fit") / "notes" / "more.json").mkdir()
    return commands(bench, store, ["status"], ["verify"])


# Others: records


def _second_state(name: str, title: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Add a probe of a store with a second state that is odd in some way."""

    def attack(bench: Bench) -> str:
        store = bench.store()
        stores.add_job(store, lambda job: None, change)
        return commands(bench, store, ["status"], ["verify"])

    attack.__name__, attack.__doc__ = name, title
    probe("store21", "medium-low")(attack)


_second_state(
    "state_of_a_strange_goal", "A state whose goal is no pipeline.", lambda s: s.update(goal="[/x]")
)
_second_state(
    "state_of_a_strange_stage", "A state with a stage that no pipeline has.",
    lambda s: s["stages"][0].update(stage="../nope"),
)  # fmt: skip
_second_state("label_with_markup", "A label of unbalanced markup.", lambda s: s.update(label="[/nope][bold"))
_second_state("bytes_beyond_floats", "Bytes of 400 digits.", lambda s: s["stages"][0].update(bytes=10**400))
_second_state(
    "seconds_without_end", "Seconds that are infinite, and none.",
    lambda s: (s["stages"][0].update(seconds=float("inf")), s["stages"][1].update(seconds=float("nan"))),
)  # fmt: skip
_second_state("a_million_stages", "A state of 200,000 stages.",
              lambda s: s.update(stages=s["stages"][:1] * 200_000))  # fmt: skip


def _second_job(name: str, title: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Add a probe of a store with a second, unfinished job that is odd in some way."""

    def attack(bench: Bench) -> str:
        store = bench.store()
        stores.add_job(store, change, stores.unfinished)
        return commands(bench, store, ["status"], ["verify"])

    attack.__name__, attack.__doc__ = name, title
    probe("store21", "medium")(attack)


_second_job("job_of_many_frames", "A job of 10^11 frames.", lambda job: job.update(frames=10**11))
_second_job("job_of_no_frames", "A job of -1 frames.", lambda job: job.update(frames=-1))
_second_job("job_without_digests", "A job without inputs and keys.", lambda job: job.update(inputs={}))
_second_job("job_with_foreign_keys", "A job whose keys are paths.",
            lambda job: job["stage_keys"].update(fit="../../..", encode="."))  # fmt: skip
_second_job("job_of_a_strange_goal", "A job whose goal is no pipeline.", lambda job: job.update(goal="../x"))


def _nested(job: dict[str, Any], depth: int = 250) -> None:
    inner = json.loads(json.dumps(job))
    for _ in range(depth):
        inner = {**json.loads(json.dumps({**job, "edited": None})), "edited": inner}
    job["edited"] = inner


_second_job("job_in_a_job", "A job edited by a job, 250 times.", _nested)


@probe("store21", "medium")
def rate_of_a_billion_digits(bench: Bench) -> str:
    """A job's frame rate of 1e1000000000, when the clip is encoded again."""
    store = bench.store()
    stores.change_record(store, "jobs", lambda job: job.update(frame_rate="1e1000000000"))
    stores.change_record(store, "states", lambda state: state.update(state="failed"))
    (stores.stage(store, "encode") / "done").rename(bench.folder / "done")
    return commands(bench, store, ["status"], ["retry"], good=False)


@probe("store21", "medium")
def rate_of_nothing(bench: Bench) -> str:
    """A job's frame rate of 1/0."""
    store = bench.store()
    stores.change_record(store, "jobs", lambda job: job.update(frame_rate="1/0"))
    stores.change_record(store, "states", lambda state: state.update(state="failed"))
    (stores.stage(store, "encode") / "done").rename(bench.folder / "done")
    return commands(bench, store, ["status"], ["retry"], good=False)


@probe("store21", "medium")
def sparse_records(bench: Bench) -> str:
    """Records of 20 GB that take no room: a state, a label, a lease, a note, store.json."""
    for place in ("states/0123456789abcdef.json", "store.json", "label.json", "cost.json"):
        store = bench.store()
        unit = stores.stage(store, "fit").parent
        folder = {"label.json": unit, "lease.json": unit, "cost.json": stores.stage(store, "fit") / "notes"}
        stores.sparse(folder.get(place, store) / place, 20 << 30)
        stores.change_record(store, "states", stores.unfinished)
        try:
            command = ["verify"] if place == "label.json" else ["status"]
            commands(bench, store, command, good=place != "store.json")
        except Open as found:
            raise Open(f"{place}: {found}") from None
        _clear(store)
    return "none is read"


def _clear(store: Path) -> None:
    import shutil

    shutil.rmtree(store)


@probe("store21", "medium")
def many_large_records(bench: Bench) -> str:
    """Two hundred states of 60 MB each."""
    store = bench.store()
    first = stores.sparse(store / "states" / "00.json", 60_000_000)
    for number in range(1, 200):
        os.link(first, store / "states" / f"{number:02x}a.json")
    return commands(bench, store, ["status"])


@probe("store21", "medium")
def record_of_empty_lists(bench: Bench) -> str:
    """A state of 60 MB of empty lists, which takes a hundred times as much when it is parsed."""
    store = bench.store()
    (store / "states" / "00.json").write_text("[" + "[],{}," * 10_000_000 + "0]")
    return commands(bench, store, ["status"])


@probe("store21", "medium")
def notes_of_other_kinds(bench: Bench) -> str:
    """Notes that are numbers, lists and texts where mappings are expected."""
    for value in (5, [1, 2], "x", {"frames": {"a": 1}}, None, {"step": "many"}):
        store = bench.store()
        stores.change_record(store, "states", stores.unfinished)
        for folder in [path.parent for path in store.glob("*/*/*/zarr.json")]:
            (folder / "notes").mkdir(exist_ok=True)
            for name in (
                "dropped",
                "pardoned",
                "cost",
                "progress",
                "steps",
                "summary",
                "aim",
                "motion",
                "person",
            ):
                (folder / "notes" / f"{name}.json").write_text(json.dumps(value))
        for unit in store.glob("*/*/label.json"):
            unit.write_text(json.dumps(value))
        key = stores.stage(store, "encode").name.partition(".")[2]
        table = stores.failures([1, None], "encode", key)
        _place(stores.stage(store, "encode").parent / "failures" / "a.parquet", table)
        (stores.stage(store, "encode") / "done").rename(bench.folder / "gone")
        try:
            commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"], good=False)
        except Open as found:
            raise Open(f"{json.dumps(value)}: {found}") from None
        _clear(store)
        _clear(bench.folder / "gone")
    return "every kind is read as absent"


def _place(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Others: arrays, files, markers, failures


@probe("store21", "medium")
def marker_of_a_far_frame(bench: Bench) -> str:
    """One empty file named 999999999999 in done/."""
    store = bench.store()
    (stores.stage(store, "fit") / "done" / "999999999999").touch()
    stores.change_record(store, "states", stores.unfinished)
    return commands(bench, store, ["status"], ["verify"])


@probe("store21", "medium")
def markers_of_many_frames(bench: Bench) -> str:
    """Two hundred empty files, each of which marks a million frames."""
    store = bench.store()
    for number in range(200):
        first = number * 1_000_000
        (stores.stage(store, "fit") / "done" / f"{first:08d}-{first + 999_999:08d}").touch()
    stores.change_record(store, "states", stores.unfinished)
    return commands(bench, store, ["status"], ["verify"])


@probe("store21", "medium")
def chunk_of_a_far_frame(bench: Bench) -> str:
    """An empty chunk of a frame beyond counting, of a stage that a job names."""
    store = bench.store()
    array = stores.stage(store, "fit") / "ok"
    for number in (4_000_000_000, 10**30):
        (array / f"c.{number}").write_bytes(b"")
    return commands(bench, store, ["verify"])


@probe("store21", "medium")
def far_chunk_of_a_long_array(bench: Bench) -> str:
    """An array of four million frames of one byte, of which three are there."""
    store = bench.store()
    folder = stores.stage(store, "fit") / "long"
    folder.mkdir()
    (folder / "zarr.json").write_text(stores.document([4_000_000], "uint8", [stores.PLAIN, stores.CRC], [1]))
    for number in (0, 2_000_000, 3_999_999):
        (folder / f"c.{number}").write_bytes(b"x" + stores.crc32c(b"x"))
    return commands(bench, store, ["verify"])


@probe("store21", "medium")
def sparse_file_in_a_store(bench: Bench) -> str:
    """A file of 20 GB that takes no room, named as the clip with another digest."""
    store = bench.store()
    stores.sparse(stores.stage(store, "encode") / "files" / f"reenactment.{'0' * 32}.mp4", 20 << 30)
    return commands(bench, store, ["verify"])


@probe("store21", "medium")
def sparse_chunks(bench: Bench) -> str:
    """Sixteen chunks of 6 GB that take no room."""
    store = bench.store()
    array = stores.stage(store, "fit") / "more"
    text = stores.document([16, 4], "uint8", [stores.PLAIN, stores.CRC])
    _place(array / "zarr.json", text.encode())
    for number in range(16):
        stores.sparse(array / f"c.{number}.0", 6 << 30)
    return commands(bench, store, ["verify"])


@probe("store21", "medium")
def large_chunks_side_by_side(bench: Bench) -> str:
    """Sixteen sparse chunks of just the accepted size, a gigabyte each, read together."""
    store = bench.store()
    size = (1 << 30) - 16
    array = stores.stage(store, "fit") / "more"
    _place(array / "zarr.json", stores.document([16, size], "uint8", [stores.PLAIN, stores.CRC]).encode())
    for number in range(16):
        stores.sparse(array / f"c.{number}.0", size + 4)
    ended = bench.portrait("verify", store, seconds=100.0)
    in_order(ended, 90.0)
    return small(ended, innocent(bench, ("verify",)), 4500.0)


@probe("store21", "medium")
def failure_of_a_far_frame(bench: Bench) -> str:
    """A failure of frame 10^11, and one of frame -10^11, of an unfinished clip."""
    for frame in (10**11, -(10**11)):
        store = bench.store()
        folder = stores.stage(store, "encode")
        for name in ("encode", "render"):
            one = stores.stage(store, name)
            table = stores.failures([frame], name, one.name.partition(".")[2])
            _place(folder.parent / "failures" / f"{name}.parquet", table)
            (one / "done").rename(one / "gone")
        stores.change_record(store, "states", stores.unfinished)
        try:
            commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"])
        except Open as found:
            raise Open(f"frame {frame}: {found}") from None
        _clear(store)
    return "left out"


@probe("store21", "medium")
def failures_bomb(bench: Bench) -> str:
    """A table of failures of 30 kB with a million long messages."""
    store = bench.store()
    names = ("stage", "cls", "message", "host", "key")
    data = stores.parquet_of_equal_cells(2_000_000, "x" * 1000, names)
    _place(stores.stage(store, "encode").parent / "failures" / "a.parquet", data)
    stores.change_record(store, "states", stores.unfinished)
    (stores.stage(store, "encode") / "done").rename(bench.folder / "done")
    return commands(bench, store, ["status"], ["verify"])


@probe("store21", "medium-low")
def failures_of_other_types(bench: Bench) -> str:
    """Tables of failures with lists, dates and numbers where texts are expected, and of no columns."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    store = bench.store()
    key = stores.stage(store, "encode").name.partition(".")[2]
    odd = {
        "stage": ["encode"], "frame": ["x"], "cls": [["input"]], "message": [None], "attempt": [1.5],
        "host": [{"a": 1}], "time_utc": ["yesterday"], "key": [key],
    }  # fmt: skip
    for number, columns in enumerate((odd, {"a": [1]}, {**odd, "frame": [1], "time_utc": [None]})):
        target = io.BytesIO()
        pq.write_table(pa.table(columns), target)
        _place(stores.stage(store, "encode").parent / "failures" / f"{number}.parquet", target.getvalue())
    sound = stores.failures([1], "encode", key)
    _place(stores.stage(store, "encode").parent / "failures" / "9.parquet", sound)
    stores.change_record(store, "states", stores.unfinished)
    (stores.stage(store, "encode") / "done").rename(bench.folder / "done")
    return commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"])


@probe("store21", "medium-low")
def folders_in_place_of_files(bench: Bench) -> str:
    """Pipes, folders and links in the place of chunks, markers, files and tables of failures."""
    store = bench.store()
    fit = stores.stage(store, "fit")
    os.mkfifo(fit / "ok" / "c.3x")
    os.mkfifo(fit / "notes" / "pipe.json")
    os.mkfifo(fit / "done" / "00000009")
    (fit.parent / "failures").mkdir()
    os.mkfifo(fit.parent / "failures" / "a.parquet")
    (stores.stage(store, "encode") / "files" / f"x.{'0' * 32}.mp4").mkdir()
    os.mkfifo(stores.stage(store, "encode") / "files" / f"y.{'0' * 32}.mp4")
    (fit / "jaw" / "c.1.0").unlink(missing_ok=True)
    os.mkfifo(fit / "jaw" / "c.1.0")
    return commands(bench, store, ["status"], ["verify"])


@probe("store21", "medium")
def summary_of_other_kinds(bench: Bench) -> str:
    """The same `reenact` again on a foreign store whose summary is odd: the clip is delivered."""
    from tests.hostile.bench import samples

    job = json.loads(stores.record(bench.shared / "store", "jobs").read_text())
    settings = job["settings"]
    portrait, video = samples()
    changes = [
        f"generator.weights={settings['generator']['weights']}", "generator.samples=8",
        "generator.importance_samples=6", "template.size=64", "output.frame=crop", "output.size=64",
        "template.supersample=1", "inversion.first_steps=3", "tuning.steps=4", "tuning.patch=16",
        "tuning.novel_view_rays=32", "render.samples=8", "render.importance_samples=4", "runner.workers=2",
        "runner.prefect=never", "media.max_frames=4", "device=cpu",
    ]  # fmt: skip
    flags = [part for change in changes for part in ("--set", change)]
    places = ["--portrait", portrait, "--video", video, "--out", bench.folder / "out"]
    for value in (5, [], {"a": 1}, {"held_frames": 5, "stages": 5, "losses": [], "motion": 5, "failures": 5}):
        store = bench.store()
        (stores.stage(store, "encode") / "notes" / "summary.json").write_text(json.dumps(value))
        ended = bench.portrait("reenact", *places, "--store", store, *flags, seconds=100.0)
        try:
            in_order(ended, 60.0)
        except Open as found:
            raise Open(f"{json.dumps(value)}: {found}") from None
        _clear(store)
    return "each is delivered"


@probe("store21", "medium")
def facts_about_my_inputs(bench: Bench) -> str:
    """A record of facts that fits the sample video's version, and says that it has 10^11 frames."""
    code = (
        "import sys, json\n"
        "from portrait_core.inputs.known import gather_facts\n"
        "facts = gather_facts(sys.argv[1], 'video').as_dict()\n"
        "facts.update(frame_count=10**11, width=10**9, height=10**9)\n"
        "print(gather_facts(sys.argv[1], 'video', facts).frame_count)"
    )
    from tests.hostile.bench import samples

    ended = bench.python(code, samples()[1])
    if ended.last_line != "120":
        raise Open(f"believed: {shown(ended.last_line)}")
    return "read again: 120 frames"


@probe("store21", "low")
def store_is_no_folder(bench: Bench) -> str:
    """A pipe, a device and a file in the place of a store."""
    os.mkfifo(bench.folder / "pipe")
    bench.place("file", b"x")
    for store in (bench.folder / "pipe", Path("/dev/zero"), bench.folder / "file", Path("/proc/self")):
        in_order(bench.portrait("status", store, seconds=20.0))
    return "refused"


@functools.cache
def _moto(bench_shared: Path) -> dict[str, str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return {
        "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip


@probe("store21", "medium")
def odd_names_in_a_bucket(bench: Bench) -> str:
    """A bucket with keys that climb, double slashes, a 200 MB record and a state that is 5."""
    import s3fs

    keys = _moto(bench.shared)
    bucket = f"probe-{os.getpid()}-{abs(hash(bench.folder)) % 10**6}"
    fs = s3fs.S3FileSystem(
        key="none", secret="none", endpoint_url=keys["AWS_ENDPOINT_URL"], skip_instance_cache=True
    )
    fs.mkdir(bucket)
    store = bench.store()
    for path in store.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"{bucket}/s/{path.relative_to(store)}", path.read_bytes())
    fs.pipe_file(f"{bucket}/s/states/00.json", b"5")
    fs.pipe_file(f"{bucket}/s/states/01.json", b'"' + bytes(b"a" * 200_000_000) + b'"')
    unit = stores.stage(store, "fit").relative_to(store)
    s3 = fs.s3
    for key in (f"s/{unit}/../../x", f"s/{unit}//y", f"s/{unit}/files/a\x1b[31m.mp4", "s/states/..json"):
        fs.call_s3("put_object", Bucket=bucket, Key=key, Body=b"x")
    del s3
    said = ""
    for command in (["status"], ["verify"], ["clean", "--dry-run"]):
        ended = bench.portrait(*command, f"s3://{bucket}/s", seconds=60.0, **keys)
        try:
            in_order(ended, 40.0)
            if command[0] != "clean" and GOOD not in ended.output:
                raise Open(f"the good clip is gone: {shown(ended.last_line)}")
            said = small(ended, innocent(bench, tuple(command)), MUCH_MB)
            clean_text(ended)
        except Open as found:
            raise Open(f"{command[0]}: {found}") from None
    return said
