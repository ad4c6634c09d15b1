"""Probes of text that reaches terminals, logs, reports and pages."""

from __future__ import annotations

import json
import os

import torch

from tests.hostile import files_stores as stores
from tests.hostile import files_weights as weights
from tests.hostile.bench import Bench, Open, clean_text, in_order, samples, shown
from tests.hostile.capped import Ended
from tests.hostile.registry import probe

ESCAPE = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m\x08\x7f"
"""A text that writes into the clipboard, clears the screen, and colours and deletes."""
TURNED = "\u202egpj.\u2066x\u200b\u2028y"
"""A text that is shown in another order, and has lines and spaces that are not seen."""
FORGED = "x\rrow 99: fine\nrow 98: all is well"


def hidden(ended: Ended) -> str:
    """Return one line of evidence that nothing printed is invisible or turns the text.

    Raises:
        Open: something is.
    """
    clean_text(ended)
    for sign in "\u202a\u202b\u202d\u202e\u2066\u2067\u2028\u2029":
        if sign in ended.output:
            at = ended.output.index(sign)
            raise Open(f"U+{ord(sign):04X} in the output: {ended.output[max(0, at - 30) : at + 20]!r}")
    return f"exit {ended.code}: {shown(ended.last_line)}"


@probe("text21", "low", 16)
def escapes_in_a_manifest(bench: Bench) -> str:
    """Terminal escapes in every cell of a manifest."""
    rows = [
        {name: f"{ESCAPE}x"}
        for name in ("portrait", "video", "name", "profile", "overrides", "edit", "licence", "consent")
    ]
    ended = bench.portrait("dataset", "check", bench.manifest(rows))
    in_order(ended)
    return hidden(ended)


@probe("text21", "low", 16)
def escapes_in_a_store(bench: Bench) -> str:
    """Terminal escapes in labels, messages, failures and leases of a store."""
    store = bench.store()
    text = f"a{ESCAPE}b"
    stores.change_record(store, "states", lambda s: s.update(label=text, message=text, state="unfinished"))
    stores.change_record(store, "jobs", lambda j: j.update(label=text))
    encode = stores.stage(store, "encode")
    (encode / "done").rename(bench.folder / "done")
    table = stores.failures([1, None], "encode", encode.name.partition(".")[2], f"no {ESCAPE}")
    (encode.parent / "failures").mkdir()
    (encode.parent / "failures" / "a.parquet").write_bytes(table)
    (encode.parent / "label.json").write_text(json.dumps({"label": text}))
    for command in (["status"], ["status", "--json"], ["verify"], ["clean", "--dry-run"], ["retry"]):
        ended = bench.portrait(*command, store, seconds=40.0)
        try:
            in_order(ended)
            hidden(ended)
        except Open as found:
            raise Open(f"{' '.join(command)}: {found}") from None
    return f"exit {ended.code}: {shown(ended.last_line)}"


@probe("text21", "low")
def escapes_in_headers(bench: Bench) -> str:
    """Escapes, turned text and forged lines in a manifest's column names and in a broken CSV."""
    for text in (
        f"portrait,video,\x1b[31mname{TURNED}\na,b,c\n", f'portrait,video\n"{ESCAPE}\n',
        f"{ESCAPE}\n{ESCAPE}\n", f"portrait,video,portrait\x1b[2J\na,b,{TURNED}\n",
    ):  # fmt: skip
        hidden(bench.portrait("dataset", "check", bench.place("m.csv", text)))
    return "clean"


@probe("text21", "low")
def turned_text_in_cells(bench: Bench) -> str:
    """Text that turns its direction, and line separators, in a manifest's cells and in labels."""
    rows = [{"portrait": f"/x/{TURNED}.png"}, {"name": TURNED}, {"overrides": f"media.{TURNED}=1"}]
    hidden(bench.portrait("dataset", "check", bench.manifest(rows)))
    store = bench.store()
    stores.change_record(store, "states", lambda s: s.update(label=TURNED))
    return hidden(bench.portrait("status", store))


@probe("text21", "low")
def forged_lines(bench: Bench) -> str:
    """Cells and labels with line breaks that forge lines of a report."""
    ended = bench.portrait(
        "dataset", "check", bench.manifest([{"portrait": f"/x/{FORGED}"}, {"name": FORGED}])
    )
    if any(line.startswith(("row 99", "row 98")) for line in ended.output.splitlines()):
        raise Open("a forged line stands in the report of a manifest")
    store = bench.store()
    stores.change_record(store, "states", lambda s: s.update(label=FORGED))
    ended = bench.portrait("status", store)
    if any(line.startswith(("row 99", "row 98")) for line in ended.output.splitlines()):
        raise Open("a forged line stands in the status")
    return hidden(ended)


@probe("text21", "low")
def markup_is_text(bench: Bench) -> str:
    """Labels with rich's markup, links and emoji codes are shown as they are."""
    store = bench.store()
    label = "[bold red]A[/bold red] [link=https://evil.example]B[/link] :skull:"
    stores.change_record(store, "states", lambda s: s.update(label=label))
    stores.change_record(store, "jobs", lambda j: j.update(label=label))
    for command in (["status"], ["verify"], ["clean", "--dry-run"], ["clean"]):
        ended = bench.portrait(*command, store, COLUMNS="300")
        if "[link=https://evil.example]B[/link] :skull:" not in ended.output.replace("\n", " "):
            raise Open(f"{' '.join(command)} takes the label's markup: {shown(ended.output)}")
    stores.add_job(store, lambda job: None, lambda state: None)
    ended = bench.portrait("status", store, COLUMNS="300")
    if ended.output.count("[link=https://evil.example]") != 2:
        raise Open("the list of clips takes the label's markup")
    return "shown as it is"


@probe("text21", "low")
def escapes_in_file_names(bench: Bench) -> str:
    """Files of a store, and inputs of a folder, whose names have escapes and are no text."""
    store = bench.store()
    fit = stores.stage(store, "fit")
    for folder in (fit, fit / "files", fit / "done", fit / "notes", fit.parent / "failures", fit / "jaw"):
        folder.mkdir(exist_ok=True)
        for name in (f"a{ESCAPE}".encode(), b"\xff\xfe.json", "\u202ex.parquet".encode()):
            (folder / os.fsdecode(name)).write_bytes(b"x")
    (fit / f"arr{ESCAPE}").mkdir()
    (fit / f"arr{ESCAPE}" / "c.0").write_bytes(b"x")
    ended = bench.portrait("verify", store)
    in_order(ended)
    hidden(ended)
    faces = bench.folder / "faces"
    faces.mkdir()
    for name in (f"a{ESCAPE}.png".encode(), b"\xff.png", "\u202eb.png".encode()):
        (faces / os.fsdecode(name)).write_bytes(samples()[0].read_bytes())
    out = bench.folder / "m.csv"
    ended = bench.portrait("dataset", "init", out, "--portraits", faces, "--videos", samples()[1])
    in_order(ended)
    hidden(ended)
    if out.exists():
        ended = bench.portrait("dataset", "check", "--no-consent", out)
        in_order(ended)
        hidden(ended)
    return f"exit {ended.code}: {shown(ended.last_line)}"


@probe("text21", "low")
def names_that_are_no_text(bench: Bench) -> str:
    """A portrait and a video whose names are no UTF-8, as arguments and in a table of a folder."""
    path = bench.folder / os.fsdecode(b"\xff\xfe.png")
    path.write_bytes(samples()[0].read_bytes())
    ended = bench.portrait(
        "reenact", "--dry-run", "--portrait", path, "--video", samples()[1], "--store", bench.folder / "s",
        "--out", bench.folder / "o",
    )  # fmt: skip
    in_order(ended)
    return hidden(ended)


@probe("text21", "low")
def escapes_in_weights(bench: Bench) -> str:
    """Escapes in the names of tensors, in licences and in settings of safetensors."""
    conditions = json.dumps({"attributes": [{"name": f"a{ESCAPE}"}]})
    about = {"settings": json.dumps({"width": 4, "context": 1}), "solver": "{}", "conditions": conditions,
             "licence": f"CC{ESCAPE}"}  # fmt: skip
    files: dict[str, bytes | str] = {
        "f.safetensors": weights.safetensors({}, {"attribute_flow": json.dumps(about)}),
        "g.safetensors": weights.safetensors(
            {}, {"generator": json.dumps({"kind": ESCAPE, "settings": "{}"})}
        ),
        "modellarge10k.pt": weights.saved({f"a{ESCAPE}": torch.zeros(3)}),
        "vgg16-397923af.pth": weights.saved({f"a{ESCAPE}": torch.zeros(3)}),
        "pt_inception-2015-12-05-6726825d.pth": weights.saved({f"a{ESCAPE}": torch.zeros(3)}),
        "head_template.obj": f"vt 0 0\nf {ESCAPE} 1 1\n",
    }
    for name, data in files.items():
        ended = bench.portrait("models", "check", bench.place(name, data))
        try:
            in_order(ended)
            hidden(ended)
        except Open as found:
            raise Open(f"{name}: {found}") from None
    path = weights.generator_announcing(bench.folder / "h.safetensors")
    path.with_suffix(".json").write_text(json.dumps({"sha256": ESCAPE, "licence": ESCAPE, "class": ESCAPE}))
    ended = bench.portrait("models", "check", path)
    in_order(ended)
    return hidden(ended)


@probe("text21", "low")
def escapes_in_profiles(bench: Bench) -> str:
    """Escapes in the names and values of a row's profile."""
    for text in (
        f'"a{ESCAPE}": 1\n'.replace("\x1b", "\\e").replace("\x07", "\\a").replace("\x9b", "\\x9b")
        .replace("\x08", "\\b").replace("\x7f", "\\x7f"),
        'media: {max_frames: "a\\e[2Jb\\u202e"}\n', 'extends: "a\\e[2Jb"\n',
        'profile: "a\\e[2J"\nmedia: {x: 1}\n',
    ):  # fmt: skip
        ended = bench.portrait(
            "dataset", "check", bench.manifest([{"profile": str(bench.place("p.yaml", text))}])
        )
        in_order(ended)
        hidden(ended)
    return f"exit {ended.code}: {shown(ended.last_line)}"


@probe("text21", "low")
def escapes_while_running(bench: Bench) -> str:
    """`dataset run` and `plan` print names of inputs and messages of decoders with escapes."""
    bad = bench.place(f"a{ESCAPE}.mp4", b"no video")
    manifest = bench.manifest([{"video": str(bad)}])
    said = ""
    for command in ("plan", "run"):
        ended = bench.portrait(
            "dataset", command, manifest, "--store", bench.folder / "s", "--set", "runner.prefect=never"
        )
        in_order(ended)
        said = hidden(ended)
    return said


@probe("text21", "low")
def log_lines(bench: Bench) -> str:
    """What the program logs of a store (damaged tables, arrays, files) has no escapes."""
    code = (
        "import sys, logging; logging.basicConfig(level=logging.DEBUG)\n"
        "from flows.engine.environment import quiet_orchestrators; quiet_orchestrators()\n"
        "from portrait_core.text.process_output import guard_output; guard_output()\n"  # as all do
        "from portrait_core.store import Store\n"
        "unit = Store(sys.argv[1]).unit('reenactment', sys.argv[2]); unit.failures()\n"
        "for output in unit.outputs(): output.get_bytes('x.mp4')"
    )
    store = bench.store()
    unit = stores.stage(store, "encode").parent
    (unit / "failures").mkdir(exist_ok=True)
    (unit / "failures" / f"a{ESCAPE}.parquet").write_bytes(b"PAR1" + ESCAPE.encode())
    ended = bench.python(code, store, unit.name)
    in_order(ended)
    return hidden(ended)


@probe("text21", "low")
def markup_in_reports(bench: Bench) -> str:
    """The report of an evaluation holds messages as text: no tags, images or table cells of a stranger."""
    code = (
        "import pandas as pd\n"
        "from portrait_core.evaluation.markdown import report\n"
        "from portrait_core.evaluation.plan import Plan\n"
        "from portrait_core.evaluation.tables import COLUMNS\n"
        "bad = '<img src=https://evil.example/x> ![x](https://evil.example/y) \\x1b[2J | a\\n# Heading'\n"
        "plan = Plan(title=bad, profile=bad, seed=0, methods=('3D GAN',), estimators=('embedded',), pairs=1,"
        " portraits=1, videos=1, members=(), notes=(), absent=({'pair': 1, 'method': 'm', 'why': bad},),"
        " unavailable=({'method': 'm', 'why': bad},))\n"
        "print(report(pd.DataFrame(columns=list(COLUMNS)), plan))"
    )
    ended = bench.python(code)
    if ended.crashed:
        return f"not made: {shown(ended.last_line)}"
    for sign in ("<img", "![x](http", "\x1b", "\n# Heading"):
        if sign in ended.output:
            raise Open(f"{sign!r} stands in report.md")
    return "escaped"


@probe("text21", "low")
def markup_in_prefect_pages(bench: Bench) -> str:
    """Tables on Prefect's pages hold messages as text."""
    code = (
        "import prefect.artifacts as a; rows = []\n"
        "a.create_progress_artifact = lambda *x, **y: rows.append(y)\n"
        "a.create_table_artifact = lambda table, **y: rows.append(table)\n"
        "from flows.display.progress import ArtifactBoard\nfrom flows.dataset_run import ClipResult\n"
        "board = ArtifactBoard(); board.begin(1)\n"
        "error = ValueError('![x](https://evil.example/y) <img src=z> \\x1b[2J')\n"
        "board.ended(ClipResult.of_inputs(1, 'a', error))\n"
        "board.show(); print([*map(str, rows[-1][0].values())])"  # the log's line above it is no page
    )
    ended = bench.python(code)
    if "evil.example" not in ended.last_line:
        return f"not made: {shown(ended.last_line)}"
    for sign in ("![x](http", "\x1b", "<img"):
        if sign in ended.last_line:
            raise Open(f"{sign} stands on a page: {shown(ended.last_line)}")
    return "escaped"


@probe("text21", "medium")
def secrets_in_errors_of_settings(bench: Bench) -> str:
    """A command with credentials whose settings are wrong: the credentials are not printed."""
    for change in (
        "runner.storage_options=s3cr3tpw", "runner.storage_options=[s3cr3tpw]",
        "runner.storage_options.key=s3cr3tpw",
    ):  # fmt: skip
        ended = bench.portrait("settings", "--set", change)
        if "s3cr3tpw" in ended.output:
            raise Open(f"{change.partition('=')[0]} is printed: {shown(ended.last_line)}")
    ended = bench.portrait("settings", "--set", "runner.storage_options={secret: s3cr3tpw}", COLUMNS="300")
    if "s3cr3tpw" in ended.output:
        raise Open("`portrait settings` prints credentials")
    return f"exit {ended.code}"
