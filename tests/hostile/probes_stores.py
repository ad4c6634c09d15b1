"""Probes of stores that come from somebody else: what their records, arrays and names do to the commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile import files_stores as stores
from tests.hostile.bench import Bench, Open, in_order, shown, small
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
def rows_that_are_not_there(bench: Bench) -> str:
    """An array of one damaged chunk of 10^9 rows of a byte."""
    store = bench.store()
    rows = (1 << 30) - 8
    folder = stores.stage(store, "fit") / "more"
    folder.mkdir()
    (folder / "zarr.json").write_text(stores.document([rows], "uint8", [stores.PLAIN, stores.CRC], [rows]))
    (folder / "c.0").write_bytes(b"xxxxx")
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


def _second_state(name: str, title: str, change: Callable[[dict[str, Any]], object]) -> None:
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
        clear(store)
    return "none is read"


def clear(store: Path) -> None:
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
        placed(stores.stage(store, "encode").parent / "failures" / "a.parquet", table)
        (stores.stage(store, "encode") / "done").rename(bench.folder / "gone")
        try:
            commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"], good=False)
        except Open as found:
            raise Open(f"{json.dumps(value)}: {found}") from None
        clear(store)
        clear(bench.folder / "gone")
    return "every kind is read as absent"


def placed(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
