"""Probes of processes and files: who may connect, who may read, what is written through."""

from __future__ import annotations

from tests.hostile.bench import Bench, Open, in_order, refused, samples, shown
from tests.hostile.registry import probe


@probe("process21", "low", 17)
def open_scheduler(bench: Bench) -> str:
    """The scheduler of `local_cluster` takes work from any process of the machine."""
    code = (
        "import sys, subprocess\n"
        "from flows.engine.environment import quiet_orchestrators; quiet_orchestrators()\n"
        "from flows.engine.clusters import dask_client\nfrom portrait_core.settings import load_settings\n"
        "if __name__ == '__main__':\n"
        "    s = load_settings('embedded', ['runner.kind=local_cluster', 'runner.workers=1'])\n"
        "    with dask_client(s) as client:\n"
        "        address = client.scheduler.address\n"
        "        attack = ('from distributed import Client; import os; c = Client(%r, timeout=8); '\n"
        "                  'print(\"ran in\", c.submit(os.getpid).result(timeout=8))' % address)\n"
        "        done = subprocess.run([sys.executable, '-c', attack], capture_output=True, text=True)\n"
        "        print(address, done.stdout, done.stderr[-300:].replace(chr(10), ' '))\n"
    )
    script = bench.place("open_scheduler.py", code)
    ended = bench.python(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')", seconds=90.0)
    if "ran in" in ended.output:
        raise Open(f"a stranger's work ran: {shown(ended.last_line)}")
    if "://" not in ended.output:
        raise RuntimeError(f"no scheduler: {ended.output[-500:]}")
    return shown(ended.last_line)


@probe("process21", "low", 20)
def link_at_a_guessable_name(bench: Bench) -> str:
    """A delivered file is written through a link at its temporary name."""
    code = (
        "import os, sys; from pathlib import Path\nimport tasks.deliver as d\n"
        "out, victim = Path(sys.argv[1]), Path(sys.argv[2]); out.mkdir()\n"
        "(out / f'.clip.mp4.{os.getpid()}.part').symlink_to(victim)\n"
        "d.put_files(out, {'clip.mp4': b'new'})\n"
        "print(victim.read_bytes(), (out / 'clip.mp4').is_symlink())"
    )
    ended = bench.python(code, bench.folder / "out", bench.place("victim", b"mine"))
    if "b'mine' False" not in ended.output:
        raise Open(f"written through the link: {shown(ended.last_line)}")
    return shown(ended.last_line)


@probe("process21", "low")
def links_at_other_guessable_names(bench: Bench) -> str:
    """Generators are written through links at their temporary names."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.portrait_core import tiny\nfrom portrait_core.generators import save_generator\n"
        "out, victim = Path(sys.argv[1]), Path(sys.argv[2]); out.mkdir(); path = out / 'g.safetensors'\n"
        "(out / f'.{path.name}.{os.getpid()}.part').symlink_to(victim)\n"
        "(out / f'{path.name}.{os.getpid()}.part').symlink_to(victim)\n"
        "save_generator(tiny.generator(), path); print(len(victim.read_bytes()), path.is_symlink())"
    )
    ended = bench.python(code, bench.folder / "out", bench.place("victim", b"mine"))
    if "4 False" not in ended.output:
        raise Open(f"written through the link: {shown(ended.last_line)}")
    return shown(ended.last_line)


@probe("process21", "low")
def links_in_the_output_folder(bench: Bench) -> str:
    """Links named reenactment.mp4 and summary.json in the output folder do not lead elsewhere."""
    code = (
        "import sys; from pathlib import Path\nimport tasks.deliver as d\n"
        "out, victim = Path(sys.argv[1]), Path(sys.argv[2]); out.mkdir()\n"
        "(out / 'clip.mp4').symlink_to(victim); d.put_files(out, {'clip.mp4': b'new'})\n"
        "print(victim.read_bytes())"
    )
    ended = bench.python(code, bench.folder / "out", bench.place("victim", b"mine"))
    if "b'mine'" not in ended.output:
        raise Open(f"written through the link: {shown(ended.last_line)}")
    return shown(ended.last_line)


@probe("process21", "low", 21)
def readable_faces(bench: Bench) -> str:
    """What a run writes may be read by its owner alone."""
    portrait, video = samples()
    ended = bench.portrait(
        "reenact", "--portrait", portrait, "--video", video, "--store", bench.folder / "s", "--out",
        bench.folder / "o", "--only", "landmarks", "--set", "media.max_frames=2", "--set",
        "runner.prefect=never",
        "--set", "runner.workers=1", seconds=120.0,
    )  # fmt: skip
    paths = [path for top in ("s", "o", "cache") for path in (bench.folder / top).rglob("*")]
    paths += [bench.folder / "s", bench.folder / "o"]
    readable = [path for path in paths if path.exists() and path.stat().st_mode & 0o077]
    if not (bench.folder / "s" / "jobs").exists():
        raise RuntimeError(f"nothing was run: {ended.output[-500:]}")
    if readable:
        one = readable[0]
        raise Open(f"{len(readable)} of {len(paths)}, {one.name} {one.stat().st_mode & 0o777:o} among them")
    return f"{len(paths)} files and folders, none readable by others"


@probe("process21", "low")
def readable_results_of_other_commands(bench: Bench) -> str:
    """Manifests and generators that commands write may be read by their owner alone, their folders too."""
    out = bench.folder / "data" / "m.csv"
    bench.portrait("dataset", "init", out, "--portraits", samples()[0].parent, "--videos", samples()[1])
    found = [path for path in (out, out.parent) if path.exists() and path.stat().st_mode & 0o077]
    if found:
        raise Open(f"{found[0].name} {found[0].stat().st_mode & 0o777:o}")
    return "private" if out.exists() else "not written"


@probe("process21", "high")
def options_that_load_code(bench: Bench) -> str:
    """Every option of Dask's classes that names code is refused, in any spelling."""
    options = (
        "preload: [/x.py]", "preload_nanny: [/x.py]", "preload_argv: [x]", "worker_class: os.system",
        "scheduler_kwargs: {preload: /x}", "plugins: [x]", "worker_options: {preload: /x}", "jupyter: true",
        "scheduler_cls: os.system", "env: {PYTHONSTARTUP: /x}", "PRELOAD: [/x]", "security: {a: b}",
        "silence_logs: {preload: 1}", "protocol: 'x'", "host: '0.0.0.0'",
    )  # fmt: skip
    taken = []
    for option in options:
        ended = bench.portrait(
            "settings",
            "--set",
            "runner.kind=local_cluster",
            "--set",
            f"runner.cluster={{{option}}}",
            seconds=20.0,
        )
        if ended.code == 0:
            taken.append(option)
    harmless = {"security: {a: b}", "silence_logs: {preload: 1}", "protocol: 'x'", "host: '0.0.0.0'"}
    if bad := [option for option in taken if option not in harmless]:
        raise Open(f"accepted: {', '.join(bad)}")
    return f"of {len(options)}, accepted: {', '.join(taken) or 'none'}"


@probe("process21", "high")
def parameters_of_a_flow_run(bench: Bench) -> str:
    """Parameters of a flow run cannot choose a runner that loads code, nor raise limits by a manifest."""
    code = bench.place("evil.py", f"open({str(bench.folder / 'canary')!r}, 'w').close()\n")
    program = (
        "import sys\nfrom flows.engine.environment import quiet_orchestrators; quiet_orchestrators()\n"
        "from flows.engine.task_runs import settings_of_flow\n"
        "changes = ['runner.kind=local_cluster', 'runner.cluster={preload: [%s]}' % sys.argv[1]]\n"
        "print(settings_of_flow('embedded', changes))"
    )
    ended = bench.python(program, code)
    if ended.code == 0 or (bench.folder / "canary").exists():
        raise Open(f"accepted: {shown(ended.last_line)}")
    return shown(ended.last_line)


@probe("process21", "medium")
def only_and_force_of_odd_names(bench: Bench) -> str:
    """`--only` and `--force` with paths, markup and escapes."""
    said = ""
    for name in ("../../x", "[/nope]", "\x1b[2J", "a" * 100_000):
        ended = bench.portrait(
            "reenact", "--portrait", samples()[0], "--video", samples()[1], "--store", bench.folder / "s",
            "--out", bench.folder / "o", "--only", name, "--set", "runner.prefect=never",
        )  # fmt: skip
        said = refused(ended)
    return said


@probe("process21", "medium")
def temporary_folders(bench: Bench) -> str:
    """Copies of remote inputs and temporary files lie where others cannot plant links (sticky /tmp, 0700)."""
    code = (
        "import sys, os; from pathlib import Path\n"
        "from portrait_core.inputs.copies import local_copy\n"
        "import fsspec; fs = fsspec.filesystem('memory'); fs.pipe('/a/b.png', b'x')\n"
        "p = local_copy('memory://a/b.png'); print(oct(p.parent.parent.stat().st_mode & 0o777))"
    )
    ended = bench.python(code)
    in_order(ended)
    if ended.last_line != "0o700":
        raise Open(f"the folder of copies is {ended.last_line}")
    return ended.last_line


@probe("process21", "medium")
def conversions_in_a_shared_cache(bench: Bench) -> str:
    """The cache of copies of models and conversions is private."""
    code = (
        "import os, sys; os.umask(0o022)\n"
        "from portrait_core.settings import guard_process, load_settings\n"
        "guard_process(load_settings('embedded'))\n"  # as every command begins
        "from portrait_core.weights import locate\n"
        "import fsspec; fs = fsspec.filesystem('memory'); fs.pipe('/m/vgg.pth', b'x')\n"
        "p = locate.local_copy('memory://m/vgg.pth'); print(oct(p.parent.stat().st_mode & 0o777))"
    )
    ended = bench.python(code)
    if ended.code == 0 and not ended.last_line.endswith("00"):
        raise Open(f"the folder of copies of weights is {ended.last_line}")
    return shown(ended.last_line)
