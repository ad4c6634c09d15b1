"""``portrait evaluate``: the paper's tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.cli.outcome import OK, PARTIAL, make_console, prepared_settings, reported_errors
from flows.cli.places import check_places

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.evaluation.plan import Plan

TABLES = {"table1": "cross", "table2": "cross", "supplement": "cross", "self": "self"}
"""Protocols whose clips are animated, and what is paired for them; ``table3`` edits generated people."""
PROTOCOLS = (*TABLES, "table3")


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(evaluate)


def evaluate(
    store: Annotated[str, typer.Option(help="Folder or URL that keeps every stage's output.")],
    out: Annotated[Path, typer.Option(help="Folder for the report, the tables and the plots.")],
    protocol: Annotated[
        str,
        typer.Option(
            help="table1, table2, supplement: portraits driven by videos of other people; one run makes all "
            "three. self: each video drives its own first frame. table3: views of edited, generated people."
        ),
    ] = "table1",
    portraits: Annotated[
        str, typer.Option(metavar="GLOB|FOLDER", help="Images; without them, the sample set.")
    ] = "",
    videos: Annotated[
        str, typer.Option(metavar="GLOB|FOLDER", help="Driving videos; without them, the sample set.")
    ] = "",
    layout: Annotated[
        list[str], typer.Option(help="As for `portrait dataset init`: files, voxceleb, celeba-hq.")
    ] = ["files"],  # noqa: B006 - typer copies it
    method: Annotated[
        list[str],
        typer.Option(
            help="paper, facevid2vid, references, ablations, all, the name of one method, or "
            "'NAME: section.field=value ...' for ours with changes. Can be repeated."
        ),
    ] = ["paper", "references"],  # noqa: B006 - typer copies it
    clips: Annotated[int, typer.Option(min=1, help="Pairs at most; the paper takes 500.")] = 500,
    profile: Annotated[
        str, typer.Option(help="Name of a profile (embedded, paper, fast) or path of a .yaml file.")
    ] = "embedded",
    change: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="As for `portrait reenact`.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Make the paper's tables: methods on pairs of portraits and videos, measured alike.

    Writes to OUT: `report.md` (tables with the paper's numbers beside one's own, the variant of every number,
    what is missing and why), `plot.png`, `sheet.png` (some clips by every method), `summary.parquet` and
    `clips.parquet`. Give the same command again
    to continue after a stop; with more methods only those are made.
    """
    console = make_console()
    with reported_errors():
        if protocol not in PROTOCOLS:
            raise ValueError(f"there is no protocol {protocol!r}; choose {', '.join(PROTOCOLS)}")
        from portrait_core.settings import allowing_hosts_of

        change = allowing_hosts_of([portraits, videos], profile, change)
        prepared_settings(profile, change)
        check_places(store, out)
        if protocol == "table3":
            raise typer.Exit(_table3(store, out, profile, change, console))
        from flows.display.progress import TerminalBoard
        from flows.evaluate import start_evaluation
        from tasks.method_choice import Request

        found = _inputs(portraits, videos, layout, out, TABLES[protocol], console)
        count = min(clips, max(map(len, found)))
        request = Request(
            tuple(found[0]),
            tuple(found[1]),
            store,
            tuple(method),
            count,
            TABLES[protocol],  # type: ignore[arg-type]
            profile,
            tuple(change),
        )
        console.print(
            f"{count} pairs of {len(found[0])} portraits and {len(found[1])} videos, profile {profile}, "
            f"store {store}",
            soft_wrap=True,
        )
        plan = start_evaluation(request, out, TerminalBoard(console), console.print)
        _conclude(plan, out, console)
    raise typer.Exit(PARTIAL if plan.absent else OK)


def _table3(store: str, out: Path, profile: str, change: list[str], console: Console) -> int:
    """Make table 3, and return the exit code."""
    from flows.display.progress import TerminalBoard
    from flows.evaluate_people import start_table3
    from tasks.table3 import DETAILS, SHEET, TABLE

    missing = start_table3(store, out, profile, change, TerminalBoard(console), console.print)
    for cell, why in missing.items():
        console.print(f"missing: {cell}: {why}", soft_wrap=True)
    for name in (TABLE, DETAILS, SHEET):
        console.print(f"{name:<17}{out / name}", soft_wrap=True)
    return PARTIAL if missing else OK


def _inputs(
    portraits: str, videos: str, layout: list[str], out: Path, paired: str, console: Console
) -> tuple[list[str], list[str]]:
    """List portraits and videos; those that are not given are of the sample set."""
    from flows.cli.listing import Layout, gather
    from portrait_core.inputs.spelling import as_on_disk
    from portrait_core.text.file_names import IMAGES, VIDEOS
    from tasks.sample_set import first_frames, write_sample_set

    if unknown := [one for one in layout if one not in get_args(Layout)]:
        raise ValueError(f"there is no layout {', '.join(unknown)}; choose {', '.join(get_args(Layout))}")
    if paired == "self" and portraits:
        raise ValueError(
            "--protocol self takes each video's first frame as its portrait: leave --portraits out"
        )
    given = videos if paired == "self" else portraits and videos
    faces, clips = ([], []) if given else write_sample_set(out / "sample")
    if portraits:
        listed = gather(as_on_disk(portraits), IMAGES, "celeba-hq" if "celeba-hq" in layout else "files")
        faces = [source.place for source in listed.sources]
        if told := listed.told("portraits"):
            console.print(told, soft_wrap=True)
    if videos:
        listed = gather(as_on_disk(videos), VIDEOS, "voxceleb" if "voxceleb" in layout else "files")
        clips = [source.place for source in listed.sources]
        if told := listed.told("videos"):
            console.print(told, soft_wrap=True)
    return (first_frames(clips, out / "first_frames"), clips) if paired == "self" else (faces, clips)


def _conclude(plan: Plan, out: Path, console: Console) -> None:
    for row in plan.unavailable:
        console.print(f"not run: {row['method']}: {row['why']}", soft_wrap=True)
    for row in plan.absent:
        console.print(f"missing: pair {row['pair']}, {row['method']}: {row['why']}", soft_wrap=True)
    console.print(f"{len(plan.members)} clips assessed, {len(plan.methods)} methods")
    for name in ("report.md", "plot.png", "sheet.png", "summary.parquet", "clips.parquet"):
        console.print(f"{name:<17}{out / name}", soft_wrap=True)
