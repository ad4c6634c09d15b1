"""Probes of arrays, files, markers and failures of stores that come from somebody else."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

from tests.hostile import files_stores as stores
from tests.hostile.bench import MUCH_MB, Bench, Open, clean_text, in_order, samples, shown, small
from tests.hostile.capped import MEMORY
from tests.hostile.probes_stores import GOOD, clear, commands, innocent, placed
from tests.hostile.registry import probe


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
    placed(array / "zarr.json", text.encode())
    for number in range(16):
        stores.sparse(array / f"c.{number}.0", 6 << 30)
    return commands(bench, store, ["verify"])


@probe("store21", "medium")
def large_chunks_side_by_side(bench: Bench) -> str:
    """Sixteen sparse chunks of just the accepted size, a gigabyte each, read together."""
    store = bench.store()
    size = (1 << 30) - 16
    array = stores.stage(store, "fit") / "more"
    placed(array / "zarr.json", stores.document([16, size], "uint8", [stores.PLAIN, stores.CRC]).encode())
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
            placed(folder.parent / "failures" / f"{name}.parquet", table)
            (one / "done").rename(one / "gone")
        stores.change_record(store, "states", stores.unfinished)
        try:
            commands(bench, store, ["status"], ["verify"], ["clean", "--dry-run"])
        except Open as found:
            raise Open(f"frame {frame}: {found}") from None
        clear(store)
    return "left out"


@probe("store21", "medium")
def failures_bomb(bench: Bench) -> str:
    """A table of failures of a few kilobytes with a million long messages."""
    store = bench.store()
    key = stores.stage(store, "encode").name.partition(".")[2]
    data = stores.failures_of_one(2_000_000, "encode", key, "x" * 1000)
    placed(stores.stage(store, "encode").parent / "failures" / "a.parquet", data)
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
        placed(stores.stage(store, "encode").parent / "failures" / f"{number}.parquet", target.getvalue())
    sound = stores.failures([1], "encode", key)
    placed(stores.stage(store, "encode").parent / "failures" / "9.parquet", sound)
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
    odd: tuple[object, ...] = (
        5, [], {"a": 1}, {"held_frames": 5, "stages": 5, "losses": [], "motion": 5, "failures": 5},
    )  # fmt: skip
    for value in odd:
        store = bench.store()
        (stores.stage(store, "encode") / "notes" / "summary.json").write_text(json.dumps(value))
        ended = bench.portrait("reenact", *places, "--store", store, *flags, seconds=100.0)
        try:
            in_order(ended, 60.0)
        except Open as found:
            raise Open(f"{json.dumps(value)}: {found}") from None
        clear(store)
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
        ended = bench.portrait(*command, f"s3://{bucket}/s", seconds=60.0, memory=MEMORY, **keys)
        try:
            in_order(ended, 40.0)
            if command[0] != "clean" and GOOD not in ended.output:
                raise Open(f"the good clip is gone: {shown(ended.last_line)}")
            said = small(ended, innocent(bench, tuple(command)), MUCH_MB)
            clean_text(ended)
        except Open as found:
            raise Open(f"{command[0]}: {found}") from None
    return said
