"""Two ways to search for findings: hypothesis, or atheris, which prefers inputs that reach new lines."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.harness import Finding, Target, good_inputs, try_input
from tests.fuzz.mutations import mutated

Report = Callable[[Finding], None]


def explore(target: Target, examples: int, number: int, report: Report) -> int:
    """Try mutated inputs, the same ones for the same ``number``; return how many."""
    tried = 0

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target))
    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        if (finding := try_input(target, data)) is not None:
            report(finding)

    one()
    return tried


def explore_for(target: Target, seconds: float, report: Report) -> int:
    """Try mutated inputs for a time, other ones at each call; return how many."""
    end, tried, number = time.monotonic() + seconds, 0, time.time_ns()
    while time.monotonic() < end:
        tried += explore(target, 500, number + tried, report)
    return tried


def follow_coverage(target: Target, seconds: float, report: Report, finish: Callable[[int], None]) -> None:
    """Search with atheris, an optional package; it ends the process after ``finish``.

    Raises:
        ImportError: atheris is not installed.
    """
    import atheris

    end, tried = time.monotonic() + seconds, 0

    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        if (finding := try_input(target, data)) is not None:
            report(finding)
        if time.monotonic() > end:
            finish(tried)
            sys.stdout.flush()
            os._exit(0)

    corpus = Path(tempfile.mkdtemp(prefix="portrait-corpus-"))
    for place, data in enumerate(good_inputs(target)):
        (corpus / f"seed-{place}").write_bytes(data)
    options = ["-max_len=1048576", "-rss_limit_mb=0", "-timeout=0", "-verbosity=0"]
    if target.tokens:  # an empty dictionary is an error
        words = corpus.with_suffix(".dict")
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.tokens)
        words.write_text("".join(f'"{word}"\n' for word in escaped))
        options.append(f"-dict={words}")
    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()
