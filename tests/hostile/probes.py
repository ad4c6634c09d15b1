"""Attacks on a checkout: ``python -m tests.hostile.probes [--tree PATH] [--only TEXT] [--owner NAME]``.

Prints per probe whether the program holds, with one line of evidence; asserts nothing. Probes with a row are
those of the table of the first attack; the others are of the same kinds. ``--open FILE`` appends those that
are open, as soon as they are found. Ends with 1 when any is open.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.bench import ROOT, Bench, Open
from tests.hostile.registry import PROBES, Probe

MODULES = (
    "media", "stores", "arrays", "tables", "servers", "text", "weights", "folders", "process", "deployment",
)  # fmt: skip


def all_probes() -> list[Probe]:
    """Return every probe, those of the table first."""
    for name in MODULES:
        importlib.import_module(f"tests.hostile.probes_{name}")
    return sorted(PROBES, key=lambda one: (one.row == 0, one.row, MODULES.index(_module(one))))


def _module(probe: Probe) -> str:
    return probe.attack.__module__.rpartition("_")[2]


def verdict(probe: Probe, tree: Path, shared: Path) -> tuple[str, str]:
    """Run a probe in a fresh folder; return ``holds``, ``open`` or ``error``, and one line of evidence."""
    folder = Path(tempfile.mkdtemp(prefix="probe-"))
    try:
        return "holds", probe.attack(Bench(folder, tree, shared))
    except Open as found:
        return "open", str(found)
    except Exception as error:  # the probe itself failed: it says nothing of the program
        return "error", f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Run the chosen probes, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout that is probed")
    parser.add_argument("--only", default="", help="probes whose name contains this text")
    parser.add_argument("--owner", default="", help="probes of one part of the program")
    parser.add_argument("--row", type=int, help="probes of one row of the table")
    parser.add_argument("--open", type=Path, help="file to which those that are open are appended")
    parser.add_argument("--shared", type=Path, help="folder that keeps the finished store between runs")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shared = chosen.shared or Path(tempfile.mkdtemp(prefix="probes-"))
    shared.mkdir(parents=True, exist_ok=True)
    counts = {"holds": 0, "open": 0, "error": 0}
    print("| probe | row | severity | owner | verdict | evidence | s |\n|---|---|---|---|---|---|---|")
    for one in all_probes():
        if chosen.only not in one.name or (chosen.owner and chosen.owner != one.owner):
            continue
        if chosen.row is not None and chosen.row != one.row:
            continue
        begin = time.monotonic()
        word, evidence = verdict(one, chosen.tree.absolute(), shared)
        counts[word] += 1
        line = evidence.replace("|", "\\|").replace("\n", " ")
        row = one.row or ""
        took = time.monotonic() - begin
        print(
            f"| {one.name} | {row} | {one.severity} | {one.owner} | **{word}** | {line} | {took:.1f} |",
            flush=True,
        )
        if word == "open" and chosen.open:
            with chosen.open.open("a") as file:
                file.write(f"- [{one.owner}] **{one.name}** ({one.severity}): {one.title} {line}\n")
    print("\n" + ", ".join(f"{count} {word}" for word, count in counts.items()))
    if chosen.shared is None:
        shutil.rmtree(shared, ignore_errors=True)
    return 1 if counts["open"] or counts["error"] else 0


if __name__ == "__main__":
    os.umask(0o022)  # what an attacker's files and the program's own look like by default
    sys.exit(main())
