"""Each target with a fixed number of mutated inputs, the same ones every time; and the harness itself."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from tests.fuzz.engines import explore
from tests.fuzz.harness import Finding, Target, from_file, good_inputs, try_input
from tests.fuzz.registry import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_taken(name: str) -> None:
    for data in good_inputs(TARGETS[name]):
        TARGETS[name].read(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_are_taken_or_refused(name: str, tmp_path: Path) -> None:
    _explore(TARGETS[name], max(5, TARGETS[name].examples // 8), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", TARGETS)
def test_many_mutated_inputs_are_taken_or_refused(name: str, tmp_path: Path) -> None:
    _explore(TARGETS[name], 5 * TARGETS[name].examples, tmp_path)


def _explore(target: Target, examples: int, folder: Path) -> None:
    found = list[Finding]()
    assert explore(target, examples, 0, found.append) >= examples // 2
    assert [f"{one.what} ({one.place}), in {one.keep(folder, target.name)}" for one in found] == []


def _read(data: bytes) -> object:
    """Misbehave in the way that the first byte says."""
    match data[:1]:
        case b"e":
            raise KeyError("undocumented")
        case b"r":
            raise ValueError("refused")
        case b"m":
            grown = mmap.mmap(-1, 64 << 20)  # pages of its own, whatever this process has freed before
            for _ in range(64):
                grown.write(b"x" * (1 << 20))
            return grown
        case b"h":
            try:
                return bytearray(1 << 46)
            except MemoryError as error:
                raise ValueError("damaged") from error
        case b"t":
            while True:
                try:
                    sum(range(1000))
                except Exception:
                    raise ValueError("hidden") from None
    return None


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"e", "KeyError"),
        (b"m", "took 6"),
        (b"h", "asked for too much memory"),
        (b"t", "took more than 0.2 s"),
        (b"r", None),
        (b"x", None),
    ],
)
def test_the_harness_tells_findings_from_refusals(data: bytes, what: str | None) -> None:
    target = Target("odd", lambda: [b"x"], _read, (ValueError,), memory_bytes=32 << 20, seconds=0.2)
    finding = try_input(target, data)
    if what is None:
        assert finding is None
    else:
        assert finding is not None
        assert what in finding.what


def test_the_same_number_gives_the_same_inputs_and_mutations_reach_a_fault() -> None:
    seen: list[list[bytes]] = [[], []]

    def reader(turn: int) -> Target:
        def read(data: bytes) -> None:
            seen[turn].append(data)
            if data.startswith(b"HEAD") and int.from_bytes(data[4:8], "little") > 1 << 31:
                raise KeyError("length")

        return Target("length", lambda: [b"HEAD\x04\0\0\0body"], read, (ValueError,))

    found: list[Finding] = []
    for turn in (0, 1):
        explore(reader(turn), 300, 0, found.append)
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 100
    assert found


def test_a_reader_of_paths_becomes_one_of_bytes() -> None:
    assert from_file("a.bin", lambda path: (path.name, path.read_bytes()))(b"content") == (
        "a.bin",
        b"content",
    )
