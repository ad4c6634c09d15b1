"""Several portraits or driving videos in one command: every pair of them, run as the rows of a manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.dataset_commands import paired
from flows.cli.listing import Source, gather
from flows.cli.outcome import OK, PARTIAL, OptionError, of_option
from portrait_core.errors import InputError
from portrait_core.text.file_names import IMAGES, VIDEOS

if TYPE_CHECKING:
    from rich.console import Console

    from flows.dataset_run import ClipResult
    from portrait_core.dataset.manifest import Row
    from portrait_core.pipeline import Job
    from portrait_core.settings import Settings

Pairs = list[tuple[Source, Source]]
"""Portraits and videos to combine."""


def pairs_of(portraits: Sequence[str], videos: Sequence[str], console: Console) -> Pairs | None:
    """Return every pair of the given portraits and videos; None where one file is given of each.

    A folder or a pattern of portraits stands for its images, a pattern of videos for its videos; a folder
    given as a video stays one.

    Raises:
        InputError: a folder or a pattern of portraits holds no image.
    """
    faces = [source for place in portraits for source in _portraits(place, console)]
    clips = [source for place in videos for source in _videos(place, console)]
    alone = len(portraits) == len(videos) == 1
    if (
        alone
        and not _stands_for_many(portraits[0], True)
        and [one.place for one in clips] == [_full(videos[0])]
    ):
        return None
    return paired(_each_once(faces), _each_once(clips), "all")


def _each_once(sources: Sequence[Source]) -> list[Source]:
    return list({one.place: one for one in sources}.values())


def _portraits(place: str, console: Console) -> list[Source]:
    if not _stands_for_many(place, folders=True):
        return [_alone(place)]
    with of_option("portrait"):
        listed = gather(place, IMAGES)
    if told := listed.told("portraits"):
        console.print(told, soft_wrap=True)
    return listed.sources


def _videos(place: str, console: Console) -> list[Source]:
    if _stands_for_many(place, folders=False):
        with suppress(InputError):  # a pattern of pictures is one video, or nothing
            listed = gather(place, VIDEOS)
            if told := listed.told("videos"):
                console.print(told, soft_wrap=True)
            return listed.sources
    return [_alone(place)]


def _alone(place: str) -> Source:
    from portrait_core.inputs.table import stem

    return Source(_full(place), stem(place))


def _full(place: str) -> str:
    from portrait_core.store.places import resolve_place

    return resolve_place(os.getcwd(), place)


def _stands_for_many(place: str, folders: bool) -> bool:
    """Tell whether a place is a pattern, or where that counts a folder."""
    from portrait_core.store.places import local_path

    path = local_path(place)
    if path is not None and path.exists():
        return folders and path.is_dir()
    return not place.startswith(("http://", "https://")) and any(mark in place for mark in "*?[")


def reenact_pairs(
    pairs: Pairs,
    store: str,
    out: Path | None,
    profile: str,
    change: list[str],
    settings: Settings,
    console: Console,
) -> int:
    """Make the clip of every pair, each in a folder of ``out``, and return the exit code.

    All inputs are looked at before any work. Without ``out`` only what would be done is shown.

    Raises:
        InputError: portraits or videos are unusable; the message names all of them.
        OSError: the connection to one of them failed for two minutes.
    """
    from flows.dataset import start_dataset
    from flows.display.dataset_plan import show_dataset_plan
    from portrait_core.dataset.sharding import write_shards

    rows = _rows(pairs, profile)
    faces, clips = len({row.portrait for row in rows}), len({row.video for row in rows})
    console.print(f"{len(rows)} clips: {faces} portraits, {clips} videos; store {store}", soft_wrap=True)
    jobs = _prepared(rows, store, change, settings)
    if out is None:
        show_dataset_plan(jobs, [1], console)
        return OK
    out.mkdir(parents=True, exist_ok=True)
    (manifest,) = write_shards(_full(store), rows, 1, profile)
    results = start_dataset(
        rows,
        settings,
        console,
        {
            "manifest": manifest.url,
            "store": store,
            "out": str(out),
            "profile": profile,
            "overrides": change,
            "shard": 0,
            "shards": 1,
            "keep": None,
            "require_consent": False,
        },
    )
    _show(results, out, console)
    return PARTIAL if any(one.outcome != "done" for one in results) else OK


def _rows(pairs: Pairs, profile: str) -> list[Row]:
    from portrait_core.dataset.manifest import Row
    from portrait_core.inputs.table import unique_name

    taken: set[str] = set()
    rows = []
    for number, (portrait, video) in enumerate(pairs, 2):  # a manifest's first row is its header
        preferred = f"{portrait.label[:80]}--{video.label[:80]}"
        name = unique_name(preferred, f"{portrait.place}\n{video.place}", taken)
        rows.append(
            Row(number=number, portrait=portrait.place, video=video.place, name=name, profile=profile)
        )
    return rows


def _prepared(rows: Sequence[Row], store: str, change: list[str], settings: Settings) -> list[Job]:
    """Look at all inputs, and return the jobs of all pairs."""
    from flows.dataset import row_preparer
    from flows.dataset_run import Clip
    from portrait_core.inputs.sources import in_threads
    from portrait_core.model_files.needs import check_models

    check_models(settings)
    prepared = in_threads(row_preparer(store, change, settings), rows)
    bad = [one for one in prepared if not isinstance(one, Clip)]
    if bad:
        texts = list(dict.fromkeys(one.message.removeprefix(f"{one.cls}: ") for one in bad))
        told = (
            texts[0] if len(texts) == 1 else "\n".join([f"{len(texts)} inputs; nothing was started", *texts])
        )
        if not all(one.cls == "input" for one in bad):
            raise OSError(told)
        roles = {
            role for text in texts for role in ("portrait", "video") if f"the {role} " in f"{text[:22]} "
        }
        raise OptionError(roles.pop(), told) if len(roles) == 1 else InputError(told)
    return [one.job for one in prepared if isinstance(one, Clip)]


def _show(results: Sequence[ClipResult], out: Path, console: Console) -> None:
    from flows.display.views import table

    rows = table("clip", "outcome", "frames")
    rows.add_column("", overflow="fold")
    for one in results:
        made = one.outcome in ("done", "held")
        rows.add_row(
            one.name, one.outcome, str(one.frames or "-"), str(out / one.name) if made else one.message
        )
    console.print(rows)
