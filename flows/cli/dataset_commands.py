"""``portrait dataset``: manifests of many pairs, written from folders and checked before any work."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from flows.cli.dataset_run_commands import add_to
from flows.cli.listing import Layout, Source, gather
from flows.cli.outcome import (
    BAD_INPUT,
    OK,
    make_console,
    of_option,
    prepared_settings,
    reported_errors,
)
from portrait_core.errors import InputError
from portrait_core.text.file_names import IMAGES, VIDEOS

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.dataset.manifest import Manifest, Row
    from portrait_core.inputs.problems import Problems
    from portrait_core.settings import Settings

_LISTED = 40
"""Number of inputs that are listed on the terminal."""
Pairs = Literal["all", "zip", "one-each"]

_MAX_ROWS = 1_000_000

app = typer.Typer(
    name="dataset",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Write and check manifests: tables of portraits and driving videos, one reenactment per row.",
)

add_to(app)


@app.command()
def init(
    out: Annotated[str, typer.Argument(metavar="OUT", help="Manifest to write: .csv or .parquet.")],
    portraits: Annotated[
        str,
        typer.Option(metavar="GLOB|FOLDER", help="Images: a folder with its subfolders, a glob or a URL."),
    ],
    videos: Annotated[
        str,
        typer.Option(
            metavar="GLOB|FOLDER",
            help="Driving videos: a folder, a glob or a URL. A folder of numbered pictures is one video.",
        ),
    ],
    layout: Annotated[
        list[str],
        typer.Option(
            help="files: every image and every video. voxceleb: only videos named ID/VIDEO/CLIP.mp4 or "
            "ID#VIDEO#CLIP.mp4. celeba-hq: only images named by a number. Can be repeated."
        ),
    ] = ["files"],  # noqa: B006 - typer copies it
    pairs: Annotated[
        str,
        typer.Option(
            help="all: every portrait with every video. zip: the first with the first and so on, for equal "
            "numbers. one-each: each of the more numerous once; the others are repeated in turn."
        ),
    ] = "all",
    licence: Annotated[str, typer.Option(help="Licence of the subjects' pictures, for every row.")] = "",
    consent: Annotated[str, typer.Option(help="Reference to the subjects' consent, for every row.")] = "",
) -> None:
    """Write a manifest of the images and videos in a folder, glob or URL.

    Files below OUT's own folder are named relative to it, so that both can be moved together. Licence and
    consent usually differ between subjects: fill in what is not given here. Hidden files and those of other
    endings are left out, and counted.
    """
    console = make_console()
    with reported_errors():
        from portrait_core.inputs.spelling import as_on_disk
        from portrait_core.settings import allowing_hosts_of

        prepared_settings("embedded", allowing_hosts_of([portraits, videos, out], "embedded", []))
        _refuse_unknown("layout", layout, get_args(Layout))
        _refuse_unknown("way to pair", [pairs], get_args(Pairs))
        _refuse_existing(out)
        others = (VIDEOS, IMAGES) if portraits == videos else ((), ())
        with of_option("portraits"):
            of_faces: Layout = "celeba-hq" if "celeba-hq" in layout else "files"
            faces = gather(as_on_disk(portraits), IMAGES, of_faces, others[0])
        with of_option("videos"):
            of_clips: Layout = "voxceleb" if "voxceleb" in layout else "files"
            clips = gather(as_on_disk(videos), VIDEOS, of_clips, others[1])
        rows = _rows(faces.sources, clips.sources, pairs, out, {"licence": licence, "consent": consent})  # type: ignore[arg-type]
        _write(out, rows)
        counts = f"{len(faces.sources)} portraits, {len(clips.sources)} videos"
        console.print(f"{len(rows)} rows written to {out}: {counts}", soft_wrap=True)
        for told in filter(None, (faces.told("portraits"), clips.told("videos"))):
            console.print(told, soft_wrap=True)
        if not (licence and consent):
            console.print("Fill in the columns licence and consent: rows without them are refused.")
        console.print(f"Check it with `portrait dataset check {out}`", soft_wrap=True)


@app.command()
def check(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="CSV, Excel or Parquet: path or URL.")],
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Open every portrait and video once, fetching remote ones, and count frames."
        ),
    ] = False,
    profile: Annotated[str, typer.Option(help="Profile of rows that name none.")] = "embedded",
    change: Annotated[
        list[str],
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="As for `portrait reenact`."),
    ] = [],  # noqa: B006 - typer copies it
    consent: Annotated[
        bool, typer.Option("--consent/--no-consent", help="Refuse rows without licence and consent.")
    ] = True,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Look for faces too (seconds per input), print a table of the inputs, and "
            "write index.html with a picture of each into this folder."
        ),
    ] = None,
) -> None:
    """Check every row of MANIFEST and summarise it; compute nothing.

    Rows are numbered as in a spreadsheet: the header is row 1. Ends with 2 when there are problems.
    """
    console = make_console()
    with reported_errors():
        from portrait_core.settings import allowing_hosts_of

        deep = deep or page is not None
        settings = prepared_settings(profile, allowing_hosts_of([manifest], profile, change))
        from rich.progress import Progress

        from portrait_core.dataset.manifest import check_manifest

        with Progress(console=make_console(stderr=True), transient=True, disable=not deep) as progress:
            bar = progress.add_task("opening inputs", total=None)
            contents, problems = check_manifest(
                manifest,
                profile,
                consent,
                deep,
                change,
                lambda done, total: progress.update(bar, completed=done, total=total),
                settings.runner.input_cache_bytes,
            )
        _show(contents, problems, console)
        refused = _show_inputs(contents.rows, page, change, settings, console) if deep and page else 0
    raise typer.Exit(BAD_INPUT if problems or refused else OK)


def _show_inputs(
    rows: Sequence[Row], folder: Path, change: Sequence[str], settings: Settings, console: Console
) -> int:
    """Look at the inputs, print a table, write a page, and return the number of refused inputs."""
    from rich.progress import Progress

    import tasks.pipelines  # noqa: F401 - registers the pipelines
    from flows.check_dataset import check_inputs
    from flows.display.views import table
    from portrait_core.report.input_page import write_page

    with Progress(console=make_console(stderr=True), transient=True) as progress:
        bar = progress.add_task("looking at inputs", total=None)
        entries = check_inputs(
            rows, change, settings, lambda done, total: progress.update(bar, completed=done, total=total)
        )
    told = [entry for entry in entries if entry.refused or entry.notes]
    shown = table("input")
    shown.add_column("what is in it", overflow="fold")
    for entry in told[:_LISTED]:
        shown.add_row(f"{entry.kind} {entry.place}", entry.refused or "; ".join(entry.notes))
    if told:
        console.print(shown)
    if len(told) > _LISTED:
        console.print(f"{len(told) - _LISTED} more such inputs are on the page")
    refused = sum(bool(entry.refused) for entry in entries)
    console.print(f"{len(entries)} inputs looked at, {refused} refused, {len(told) - refused} with notes")
    console.print(f"page       {write_page(folder, entries)}", soft_wrap=True)
    return refused


def _show(manifest: Manifest, problems: Problems, console: Console) -> None:
    from flows.display.views import duration

    for note in manifest.notes:
        console.print(note, soft_wrap=True)
    bad = len(problems.rows - {0, 1})
    console.print(
        f"rows       {len(manifest.rows) + bad}" + (f", {bad} of them with problems" if bad else "")
    )
    for title, uses in (("portraits", manifest.portraits), ("videos", manifest.videos)):
        shared = sum(count > 1 for count in uses.values())
        more = f"; {shared} in several rows (up to {max(uses.values())})" if shared else ""
        console.print(f"{title:<10} {len(uses)}{more}")
    if manifest.clips:
        count = sum(clip.frame_count for clip in manifest.clips.values())
        seconds = sum(clip.duration_s for clip in manifest.clips.values())
        console.print(f"video      {count} frames, {duration(seconds)}")
    if manifest.rows and manifest.frames is not None:
        console.print(f"to make    {manifest.frames} frames")
    for problem in problems:
        console.print(str(problem), soft_wrap=True)
    if problems.more:
        console.print(f"and {problems.more:,} more")
    if problems:
        console.print(f"{len(problems) + problems.more} problems: correct the manifest and check it again")


# Writing


def _rows(
    portraits: Sequence[Source], videos: Sequence[Source], pairs: Pairs, out: str, more: dict[str, str]
) -> list[dict[str, str]]:
    from portrait_core.inputs.sources import folder_of
    from portrait_core.inputs.table import unique_name

    folder = folder_of(out)
    taken: set[str] = set()
    rows = []
    for portrait, video in paired(portraits, videos, pairs):
        cells = {"portrait": _cell(portrait.place, folder), "video": _cell(video.place, folder)}
        name = f"{portrait.label[:80]}--{video.label[:80]}"
        rows.append({**cells, "name": unique_name(name, "\n".join(cells.values()), taken), **more})
    return rows


def paired(
    portraits: Sequence[Source], videos: Sequence[Source], pairs: Pairs
) -> list[tuple[Source, Source]]:
    """Combine portraits and videos, neither empty, as ``--pairs`` says.

    Raises:
        ValueError: ``zip`` of unequal numbers, or more rows than the limit.
    """
    if pairs == "zip" and len(portraits) != len(videos):
        raise ValueError(
            f"--pairs zip needs as many portraits as videos; got {len(portraits)} and {len(videos)}. "
            "--pairs one-each repeats the fewer"
        )
    count = max(len(portraits), len(videos)) if pairs != "all" else len(portraits) * len(videos)
    if count > _MAX_ROWS:
        raise ValueError(
            f"--pairs {pairs} of {len(portraits)} portraits and {len(videos)} videos makes {count} rows, "
            f"over {_MAX_ROWS}; give a narrower glob, or --pairs one-each"
        )
    if pairs == "all":
        return list(itertools.product(portraits, videos))
    both = zip(itertools.cycle(portraits), itertools.cycle(videos), strict=False)
    return list(itertools.islice(both, count))


def _cell(place: str, folder: str) -> str:
    return place.removeprefix(f"{folder.rstrip('/')}/")


def _refuse_existing(out: str) -> None:
    from portrait_core.inputs.sources import reach, resolve_place

    files, path = reach(resolve_place(os.getcwd(), out))
    if files.exists(path):
        raise ValueError(f"{out} exists already; give another name, or delete it first")


def _write(out: str, rows: Sequence[dict[str, str]]) -> None:
    from portrait_core.inputs.table import write_table

    try:
        write_table(out, rows)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}; check the path and your access") from error


def _refuse_unknown(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no {what} {', '.join(unknown)}; there are {', '.join(known)}")
