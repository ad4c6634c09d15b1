"""Search a target for findings, for hours: ``python -m tests.fuzz TARGET --minutes 60 --keep FOLDER``.

``all`` takes every target in turn. Inputs of findings are kept; run one again with ``--again FILE``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.harness import Finding, Target


def main() -> int:
    """Run the command; return 1 where there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="name of a target, or all")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs of findings"
    )
    parser.add_argument("--again", type=Path, help="try this file alone")
    chosen = parser.parse_args()
    targets = _targets(chosen.engine)
    if chosen.target != "all" and chosen.target not in targets:
        parser.error(f"there is no target {chosen.target}; choose one of {', '.join(targets)}, or all")
    if chosen.target == "all" and chosen.engine == "atheris":
        parser.error("atheris ends the process with its first target; give one target")
    names = list(targets) if chosen.target == "all" else [chosen.target]
    return max([_search(targets[name], chosen) for name in names])


def _targets(engine: str) -> dict[str, Target]:
    """Import the targets; for atheris, with their lines made visible to it."""
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["portrait_core", "tasks", "flows", "pickle"]):
            from tests.fuzz.registry import TARGETS
    else:
        from tests.fuzz.registry import TARGETS
    return dict(TARGETS)


def _search(target: Target, chosen: argparse.Namespace) -> int:
    from tests.fuzz.engines import explore_for, follow_coverage
    from tests.fuzz.harness import try_input

    found: dict[tuple[str, str], int] = {}
    start = time.monotonic()

    def report(finding: Finding) -> None:
        found[finding.kind] = found.get(finding.kind, 0) + 1
        if found[finding.kind] == 1:
            path = finding.keep(chosen.keep, target.name)
            print(f"{target.name}: {finding.what} ({finding.place}); kept as {path}", flush=True)

    def finish(tried: int) -> None:
        seconds = time.monotonic() - start
        print(
            f"{target.name}: {tried:,} inputs in {seconds:.0f} s, {tried / seconds:.0f} per second; "
            f"{len(found)} kinds of findings, {sum(found.values())} in all",
            flush=True,
        )

    if chosen.again is not None:
        if (finding := try_input(target, chosen.again.read_bytes())) is not None:
            report(finding)
        finish(1)
    elif chosen.engine == "atheris":
        follow_coverage(target, 60 * chosen.minutes, report, finish)
    else:
        finish(explore_for(target, 60 * chosen.minutes, report))
    return int(bool(found))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of torch and of runtimes need no orderly end
