"""What a write to the store means (which stage, which frame), and the log that every process keeps of them.

A line is written before and after each object, so that what was begun and what was finished can be told
apart when a process dies in between.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

_DIGEST = re.compile(r"\.[0-9a-f]{32}")
Sort = Literal["data", "marker", "other"]


@dataclass(frozen=True)
class Written:
    """What one object of the store is. ``part`` names the array or file inside the stage's output."""

    sort: Sort
    stage: str
    frame: int
    part: str


def written(name: str) -> Written:
    """Tell what an object is from its name."""
    parts = name.split("/")[2:]  # without kind and unit
    if len(parts) < 3 or "." not in parts[0]:
        return Written("other", "", 0, name)
    stage, (folder, last) = parts[0].partition(".")[0], (parts[1], parts[-1])
    if folder == "done":
        # markers of runs of frames are written when the clip is packed: what they say was said before
        return Written("other" if "-" in last else "marker", stage, int(last.partition("-")[0]), last)
    if folder == "notes":
        return Written("data" if last == "motion.json" else "other", stage, 0, last)
    if folder == "files":
        passing = last.endswith(".checkpoint") or last.startswith("first_latent")
        return Written("other" if passing else "data", stage, 0, last)
    if last.startswith("c."):
        return Written("data", stage, int(last.split(".")[1]), folder)
    return Written("other", stage if folder != "done" else "", 0, name)


@dataclass(frozen=True)
class Event:
    """One line of the log."""

    time: float
    pid: int
    moment: Literal["begin", "end"]
    name: str
    sort: Sort
    stage: str
    frame: int
    part: str

    @property
    def place(self) -> tuple[str, int]:
        """Stage and frame."""
        return self.stage, self.frame


def note(log: Path, moment: Literal["begin", "end"], name: str, what: Written) -> None:
    """Append a line, whole: one write to a file opened for appending."""
    event = Event(time.time(), os.getpid(), moment, name, **asdict(what))
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (json.dumps(asdict(event)) + "\n").encode())
    finally:
        os.close(handle)


class Log:
    """The log as far as it was written; only what is new is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._events: list[Event] = []

    def events(self) -> list[Event]:
        """All lines so far."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self._events += [Event(**json.loads(line)) for line in whole.splitlines()]
        return self._events


def committed(events: Iterable[Event]) -> set[tuple[str, int]]:
    """Stages and frames whose marker was written."""
    return {e.place for e in events if e.sort == "marker" and e.moment == "end"}


def done_again(events: Iterable[Event]) -> Counter[tuple[str, int]]:
    """Stages and frames whose data were written again after their marker, and how often."""
    finished: set[tuple[str, int]] = set()
    again: Counter[tuple[str, int, str]] = Counter()
    for event in events:
        if event.sort == "marker" and event.moment == "end":
            finished.add(event.place)
        elif event.sort == "data" and event.moment == "begin" and event.place in finished:
            again[(*event.place, event.part)] += 1
    return _most(again)


def timeline(events: Iterable[Event]) -> dict[tuple[str, int], float]:
    """When a run finished writing each object for the n-th time, as a share of its whole time 0..1."""
    ends = list(_numbered(events))
    first, last = ends[0][1], ends[-1][1]
    return {key: (at - first) / (last - first) for key, at in ends}


def progress(events: Iterable[Event], whole: Mapping[tuple[str, int], float]) -> float:
    """How far these events have come on the timeline of an undisturbed run, 0..1."""
    return max((whole.get(key, 0.0) for key, _ in _numbered(events)), default=0.0)


def _numbered(events: Iterable[Event]) -> Iterator[tuple[tuple[str, int], float]]:
    seen: Counter[str] = Counter()
    for event in events:
        if event.moment == "end" and (event.sort != "other" or event.name.endswith(".checkpoint")):
            name = _DIGEST.sub("", event.name)
            seen[name] += 1
            yield (name, seen[name]), event.time


def recomputed(events: Iterable[Event]) -> int:
    """How many frames of stages were made more than once: work that an interruption cost.

    A frame counts when its first data were on their way to the store.
    """
    begun: Counter[tuple[str, int, str]] = Counter()
    for event in events:
        if event.sort == "data" and event.moment == "begin":
            begun[(*event.place, event.part)] += 1
    return sum(count - 1 for count in _most(begun).values())


def _most(counted: Counter[tuple[str, int, str]]) -> Counter[tuple[str, int]]:
    """The largest count of a frame's parts."""
    most: Counter[tuple[str, int]] = Counter()
    for (stage, frame, _), count in counted.items():
        most[stage, frame] = max(most[stage, frame], count)
    return most
