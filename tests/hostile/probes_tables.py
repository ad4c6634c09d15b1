"""Probes of manifests, profiles, tables of labels, edits and evaluation requests from a stranger."""

from __future__ import annotations

import io
import os

from tests.hostile import files_stores as stores
from tests.hostile.bench import LONG_S, MUCH_MB, Bench, Open, in_order, refused, samples, shown, small
from tests.hostile.capped import Ended
from tests.hostile.registry import probe
from tests.hostile.website import website

HEADER = "portrait,video,name,profile,overrides,edit,licence,consent\n"
LABELS = (
    "import sys; from portrait_core.attribute_editing.label_tables import read_labels\n"
    "print(len(read_labels(sys.argv[1])))"
)


def check(bench: Bench, manifest: object, *more: str, seconds: float = 60.0) -> Ended:
    """Check a manifest."""
    return bench.portrait("dataset", "check", manifest, *more, seconds=seconds)


def checked(bench: Bench, *rows: dict[str, str]) -> str:
    """Check a manifest of some rows: it is refused in little time and memory."""
    return refused_small(bench, check(bench, bench.manifest(rows)))


def refused_small(bench: Bench, ended: Ended, much_mb: float = MUCH_MB, seconds: float = LONG_S) -> str:
    small(ended, check(bench, bench.manifest([{}], "innocent.csv")), much_mb)
    if len(ended.output) > 200_000:
        raise Open(f"printed {len(ended.output):,} characters")
    return refused(ended, seconds)


# Rows of the table


@probe("process21", "critical", 2)
def runner_of_a_row(bench: Bench) -> str:
    """A row's overrides choose a runner, which loads code."""
    code = bench.place("evil.py", f"open({str(bench.folder / 'canary')!r}, 'w').close()\n")
    forms = (
        f"runner.kind=local_cluster; runner.cluster={{preload: [{code}]}}",
        f"runner={{kind: local_cluster, cluster: {{preload: [{code}]}}}}",
        f' "runner" . kind=local_cluster; runner .cluster={{preload: [{code}]}}',
    )
    said = ""
    for form in forms:
        manifest = bench.manifest([{"overrides": form}])
        ended = bench.portrait("dataset", "run", manifest, "--store", bench.folder / "s", seconds=60.0)
        if (bench.folder / "canary").exists():
            raise Open(f"the code ran: {form}")
        said = refused(ended)
    return said


@probe("process21", "critical", 2)
def runner_of_a_rows_profile(bench: Bench) -> str:
    """A profile that a row names chooses a runner at a foreign address."""
    profile = bench.place(
        "p.yaml", "extends: embedded\nrunner:\n  kind: address\n  address: tcp://127.0.0.1:9\ndevice: cuda\n"
        "limits: {picture_pixels: 1000000000000}\n",
    )  # fmt: skip
    code = (
        "import sys; from portrait_core.settings import load_settings\n"
        "from portrait_core.settings.trust import settings_of_row\n"
        "s = settings_of_row(sys.argv[1], (), (), load_settings('embedded'))\n"
        "print(s.runner.kind, s.device, getattr(getattr(s, 'limits', None), 'picture_pixels', ''))"
    )
    ended = bench.python(code, profile)
    if not ended.last_line.startswith("threads auto") or "1000000000000" in ended.last_line:
        raise Open(f"the row decided: {shown(ended.last_line)}")
    return ended.last_line


@probe("tables", "high", 3)
def reference_chain(bench: Bench) -> str:
    """A cell reference://...::http://... formats texts with what lies in memory."""
    spec = '{"version":1,"templates":{"u":"{{fsspec}}"},"refs":{"a":["{{u}}",0,1]}}'
    with website({"/spec.json": spec.encode()}) as (address, requests):
        for cell in (
            f"reference://a::{address}/spec.json", f"reference://a?fo={address}/spec.json",
            f"simplecache::{address}/spec.json", f"REFERENCE://a::{address}/spec.json",
        ):  # fmt: skip
            checked(bench, {"portrait": cell})
        if requests:
            raise Open(f"fetched {requests[:3]}")
    return "nothing is fetched"


@probe("tables", "medium", 8)
def other_schemes(bench: Bench) -> str:
    """Cells of schemes and chains of fsspec that fetch or unpack (ftp, webhdfs, zip, tar, data, ssh ...)."""
    with website({"/a.zip": b"PK"}) as (address, requests):
        host = address.partition("//")[2]
        cells = (
            f"webhdfs://{host}/a.png", f"zip://a.png::{address}/a.zip", f"tar://a.png::{address}/a.zip",
            f"filecache::{address}/a.zip", f"blockcache::{address}/a.zip", f"ftp://{host}/a.png",
            f"libarchive://a.png::{address}/a.zip", f"jupyter://{host}/a.png", f"http+unix://{host}/a",
            "data:image/png;base64,AAAA", "data:,x.png", "local:/etc/passwd", "arrow_hdfs://x/a.png",
            "git:///a.png", "sftp://127.0.0.1/a.png", "smb://127.0.0.1/a.png", "dbfs://x/a.png",
            "dir://x::file:///etc", "root://x/a", "file:///etc/passwd::zip://a",
            "HTTP://127.0.0.1:1/a::zip://x",
            "async_wrapper://x", "tosfs://x", "hf://datasets/a/b/c.png", "github://a:b@main/c.png",
        )  # fmt: skip
        rows = [{"portrait": cell, "name": f"r{i}"} for i, cell in enumerate(cells)]
        ended = check(bench, bench.manifest(rows), "--deep", seconds=100.0)
        if requests:
            raise Open(f"fetched {requests[:3]}")
        missing = [str(i + 2) for i in range(len(cells)) if f"row {i + 2}:" not in ended.output]
        if missing:
            raise Open(f"rows {', '.join(missing)} are taken")
    return refused(ended)


@probe("text21", "medium", 8)
def secrets_of_urls(bench: Bench) -> str:
    """Passwords and signatures of URLs are printed."""
    cells = (
        "https://user:s3cr3tpw@127.0.0.1:1/a.png?X-Amz-Signature=s1gn4ture",
        "s3://key:s3cr3tpw@bucket/a.png", "https://127.0.0.1:1/a.png#token=s1gn4ture",
        "https://127.0.0.1:1/a.png;jsessionid=s1gn4ture?sig=s1gn4ture", "https://user:s3cr3tpw@[::1/a.png",
        "ftp://user:s3cr3tpw@127.0.0.1/a?sig=s1gn4ture", "https://s3cr3tpw@127.0.0.1:1/a.png",
        "HTTPS://user:s3cr3tpw@127.0.0.1:1/a?sig=s1gn4ture",
        "zip://a::https://user:s3cr3tpw@127.0.0.1:1/a.zip?sig=s1gn4ture",
    )  # fmt: skip
    said = ""
    for cell in cells:
        for arguments in (
            ("dataset", "check", "--deep", bench.manifest([{"portrait": cell}]), *bench.private_hosts),
            ("dataset", "check", cell), ("status", cell),
        ):  # fmt: skip
            ended = bench.portrait(*arguments, seconds=20.0, memory=4 << 30)
            text = ended.output.replace("\n", "")
            if "s3cr3tpw" in text or "s1gn4ture" in text:
                raise Open(f"{' '.join(map(str, arguments[:2]))} prints the secret of {cell}")
            said = ended.last_line
    return shown(said)


@probe("tables", "medium-low", 13)
def yaml_aliases(bench: Bench) -> str:
    """A cell of 300 bytes whose aliases grow."""
    lines = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{n}: &{n} [" + ",".join([f"*{b}"] * 9) + "]\n" for b, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    profile = bench.place("p.yaml", lines)
    inline = "{a: &a [x,x,x,x,x,x,x,x], b: &b [*a,*a,*a,*a,*a,*a,*a], c: &c [*b,*b,*b,*b,*b,*b]}"
    manifest = bench.manifest([{"overrides": f"generator.weights={inline}"}], "inline.csv")
    in_order(check(bench, manifest))
    return checked(bench, {"profile": str(profile)})


@probe("tables", "medium-low", 13)
def parquet_bomb(bench: Bench) -> str:
    """28 kB of Parquet of two gigabytes."""
    data = stores.parquet_of_equal_cells(3_000_000, "x" * 300)
    return refused_small(bench, check(bench, bench.place("m.parquet", data), "--no-consent"))


@probe("tables", "medium-low", 13)
def a_million_duplicates(bench: Bench) -> str:
    """A manifest of a million equal rows."""
    portrait, video = samples()
    row = f"{portrait},{video},,,,,CC0,x\n"
    path = bench.place("m.csv", HEADER + row * 400_000)
    return refused_small(bench, check(bench, path, seconds=90.0), 1500.0, 60.0)


@probe("tables", "low", 22)
def formulas_in_a_manifest(bench: Bench) -> str:
    """`dataset init` writes a file named =1+1 as a formula."""
    for name in ("=1+1.png", "@SUM(A1).png", "+1.png"):
        bench.place(f"faces/{name}", samples()[0].read_bytes())
    out = bench.folder / "faces" / "m.csv"
    ended = bench.portrait(
        "dataset", "init", out, "--portraits", bench.folder / "faces", "--videos", samples()[1],
        "--licence", "=cmd()", "--consent", "@x",
    )  # fmt: skip
    text = out.read_text() if out.exists() else ""
    starts = [
        cell for line in text.splitlines()[1:] for cell in line.split(",") if cell[:1] in "=@+-" and cell
    ]
    if starts and "formula" not in ended.output.lower() and "spreadsheet" not in ended.output.lower():
        raise Open(f"cells that begin as formulas: {starts[:3]}")
    return f"exit {ended.code}: {shown(ended.last_line)}"


# Others: manifests


@probe("tables", "medium")
def parquet_of_wide_rows(bench: Bench) -> str:
    """Parquet of 100,000 columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = io.BytesIO()
    columns = {f"c{i}": pa.array(["x"]) for i in range(20_000)}
    pq.write_table(pa.table({"portrait": pa.array(["a"]), "video": pa.array(["b"]), **columns}), target)
    return refused_small(bench, check(bench, bench.place("m.parquet", target.getvalue()), "--no-consent"))


@probe("tables", "medium")
def parquet_of_other_types(bench: Bench) -> str:
    """Parquet of nested lists, maps and binary columns, small and deflated, that decode to gigabytes."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    zeros = pa.array(np.zeros(100_000_000, np.int8))
    lists = pa.ListArray.from_arrays(pa.array([0, 100_000_000], pa.int32()), zeros)
    target = io.BytesIO()
    pq.write_table(
        pa.table({"portrait": pa.array(["a"]), "video": pa.array(["b"]), "name": lists}),
        target,
        compression="zstd",
    )
    return refused_small(bench, check(bench, bench.place("m.parquet", target.getvalue()), "--no-consent"))


@probe("tables", "medium")
def parquet_that_lies(bench: Bench) -> str:
    """Parquet files whose numbers of rows, sizes of pages and offsets are changed."""
    import random

    data = bytearray(stores.parquet_of_equal_cells(1000, "a.png"))
    rng = random.Random(0)
    for number in range(6):
        changed = bytearray(data)
        for _ in range(6):
            at = rng.randrange(max(4, len(data) - 700), len(data) - 8)
            changed[at] = rng.choice((0x7F, 0xFF, 0x80, 0))
        path = bench.place(f"m{number}.parquet", bytes(changed))
        ended = check(bench, path, "--no-consent")
        in_order(ended)
        if ended.peak_mb > 1500:
            raise Open(f"{ended.peak_mb:.0f} MB, exit {ended.code}")
    return in_order(ended)


@probe("tables", "medium")
def cell_of_a_hundred_megabytes(bench: Bench) -> str:
    """A cell of 100 MB in a CSV, and a header of as many columns."""
    portrait, video = samples()
    one = bench.place("a.csv", HEADER + f'{portrait},{video},"{"x" * 100_000_000}",,,,CC0,x\n')
    two = bench.place("b.csv", "portrait,video," + "," * 20_000_000 + "\n")
    said = ""
    for path in (one, two):
        said = refused_small(bench, check(bench, path), 1500.0)
    return said


@probe("tables", "medium")
def manifest_is_a_pipe(bench: Bench) -> str:
    """A pipe, a device and a folder as a manifest and as a row's profile."""
    os.mkfifo(bench.folder / "m.csv")
    os.mkfifo(bench.folder / "p.yaml")
    for path in (bench.folder / "m.csv", "/dev/zero", bench.folder):
        refused(check(bench, path, seconds=30.0))
    (bench.folder / "zero.yaml").symlink_to("/dev/zero")
    for path in (bench.folder / "p.yaml", bench.folder / "zero.yaml"):
        refused(check(bench, bench.manifest([{"profile": str(path)}], "n.csv"), seconds=30.0))
    return "refused"


@probe("tables", "medium")
def sparse_manifest(bench: Bench) -> str:
    """A manifest, a profile and a table of labels of 20 GB that take no room."""
    stores.sparse(bench.folder / "m.csv", 20 << 30)
    stores.sparse(bench.folder / "p.yaml", 20 << 30)
    refused_small(bench, check(bench, bench.folder / "m.csv"))
    ours_small(bench, bench.python(LABELS, bench.folder / "m.csv"))
    return checked(bench, {"profile": str(bench.folder / "p.yaml")})


def ours_small(bench: Bench, ended: Ended) -> str:
    ours = any(word in ended.output for word in ("InputError", "LabelsError", "ManifestError"))
    if not ours and ended.code != 0 and (ended.code != 1 or "portrait_core." not in ended.last_line):
        raise Open(f"no error of ours, exit {ended.code}, {ended.peak_mb:.0f} MB: {shown(ended.last_line)}")
    if ended.peak_mb > 1000 or ended.cpu_s > LONG_S:
        raise Open(f"{ended.peak_mb:.0f} MB, {ended.cpu_s:.0f} s")
    return shown(ended.last_line)


@probe("tables", "medium")
def profiles_that_read_files(bench: Bench) -> str:
    """A row's profile that is a secret file of this machine: its content is not printed."""
    secret = bench.place("credentials.yaml", "aws_secret: topsecretvalue\n- broken: [\n")
    plain = bench.place("key.yaml", "topsecretvalue\n")
    extended = bench.place("x.yaml", f"extends: {secret}\n")
    for profile in (secret, plain, extended):
        ended = check(bench, bench.manifest([{"profile": str(profile)}]))
        refused(ended)
        if "topsecretvalue" in ended.output.replace("\n", ""):
            raise Open(f"printed the content of {profile.name}: {shown(ended.last_line)}")
    return "not printed"


@probe("tables", "medium")
def profiles_from_elsewhere(bench: Bench) -> str:
    """A row's profile as a URL, as a chain, and one that extends itself through links and long chains."""
    with website({"/p.yaml": b"extends: embedded\n"}) as (address, requests):
        cells = [f"{address}/p.yaml", f"simplecache::{address}/p.yaml", f"file://{address}/p.yaml"]
        for number in range(400):
            bench.place(f"c{number}.yaml", f"extends: {bench.folder}/c{number + 1}.yaml\n")
        bench.place("c400.yaml", "extends: embedded\n")
        loop = bench.place("d/loop.yaml", f"extends: {bench.folder}/d/./loop.yaml\n")
        cells += [str(bench.folder / "c0.yaml"), str(loop)]
        for cell in cells:
            in_order(check(bench, bench.manifest([{"profile": cell}])))
        if requests:
            raise Open(f"fetched {requests}")
    return "in order"


def _override(name: str, title: str, *texts: str) -> None:
    def attack(bench: Bench) -> str:
        rows = [{"overrides": text, "name": f"r{i}"} for i, text in enumerate(texts)]
        ended = check(bench, bench.manifest(rows))
        taken = [text[:60] for i, text in enumerate(texts) if f"row {i + 2}:" not in ended.output]
        said = refused_small(bench, ended)
        if taken:
            raise Open(f"taken: {taken[0]}")
        return said

    attack.__name__, attack.__doc__ = name, title
    probe("tables", "medium")(attack)


_override(
    "overrides_of_many_kinds", "Overrides with tags, keys that are no text, huge numbers, odd names.",
    "media.max_frames=!!python/object/apply:os.system [id]", "media.max_frames={? [a] : b}",
    f"media.max_frames={'9' * 5000}", f"tuning.steps={':'.join(['59'] * 3000)}", "tuning.steps=!!binary AAAA",
    "media.max_frames=2001-99-99", "a" * 3000 + "=1", "media.=1", ".max_frames=1", "media..max_frames=1",
    "media.__class__=1", "profile={a: 1}", "media=[[[[1]]]]", "template=!!set {a, b}", "seed=0x" + "f" * 4000,
    "media.max_frames=" + "[" * 3000, "media.max_frames=!!timestamp 1", "tuning.steps=.inf",
    "limits.picture_pixels=1000000000000", "limits={picture_pixels: 1000000000000}",
)  # fmt: skip


@probe("tables", "medium")
def a_row_of_huge_settings(bench: Bench) -> str:
    """A row asks for pictures, batches and frames beyond any memory; `dataset plan` and `check` hold."""
    texts = (
        "output.size=1000000000", "template.size=1000000000", "template.supersample=100000",
        "tuning.steps=99999999999999", "evaluation.views=[[1,2,3]]", "render.samples=1000000000",
    )  # fmt: skip
    rows = [{"overrides": text, "name": f"r{i}"} for i, text in enumerate(texts)]
    manifest = bench.manifest(rows)
    in_order(check(bench, manifest))
    ended = bench.portrait("dataset", "plan", manifest, "--store", bench.folder / "s", seconds=80.0)
    in_order(ended, 60.0)
    return small(ended, check(bench, bench.manifest([{}], "i.csv")), 1500.0)


@probe("tables", "medium")
def edits_of_many_kinds(bench: Bench) -> str:
    """Cells `edit` with a million requests, huge numbers and slow patterns."""
    cells = (
        "age=1," * 100_000, "age=" + "9" * 400_000, " " * 300_000 + "x", "age=1e999", "a=" + "=" * 100_000,
        ",".join(f"a{i}=1" for i in range(30_000)), "age=٣", "age=nan;beard=-inf",
    )  # fmt: skip
    for cell in cells:
        ended = check(bench, bench.manifest([{"edit": cell}]), seconds=60.0)
        in_order(ended)
        if len(ended.output) > 200_000:
            raise Open(f"printed {len(ended.output):,} characters")
    return in_order(ended)


@probe("tables", "medium")
def names_that_climb(bench: Bench) -> str:
    """Row names with paths, devices, dots, unicode and control characters."""
    names = (
        "../x",
        "a/b",
        "con",
        "..",
        ".x",
        "a\x00b",
        "a\nb",
        "ａ",
        "x" * 300,
        "a:b",
        "aux.txt",
        "a.",
        "-x",
    )
    rows = [{"name": name} for name in names]
    ended = check(bench, bench.manifest(rows))
    taken = [name for i, name in enumerate(names) if f"row {i + 2}:" not in ended.output]
    if taken and "cannot be read" not in ended.output and "NUL" not in ended.output:
        raise Open(f"taken: {taken!r}")
    return refused(ended)


@probe("tables", "medium")
def zeros_in_cells(bench: Bench) -> str:
    """Cells with a zero byte, a user that does not exist and a path that is too long: the check goes on."""
    cells = (
        "~\0/a.png",
        "/a\0.png",
        "~nobody-of-this-name/a.png",
        "/" + "a" * 30_000,
        "~",
        "\ud83d.png",
        "file://",
    )
    for cell in cells:
        rows = [
            {"portrait": cell.encode("utf-8", "surrogatepass").decode("utf-8", "replace")},
            {"portrait": "/no.png"},
        ]
        ended = check(bench, bench.manifest(rows))
        refused(ended)
        if "row 3:" not in ended.output:
            raise Open(f"{cell!r:.30} ends the check: {shown(ended.last_line)}")
    return shown(ended.last_line)
