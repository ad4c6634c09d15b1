"""Commands that need only a store: ``status``, ``retry``, ``verify``, ``clean``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.cli.outcome import OK, PARTIAL, known_stages, make_console, prepared_settings, reported_errors

if TYPE_CHECKING:
    from portrait_core.pipeline import Job
    from portrait_core.settings import Settings
    from portrait_core.store import Store

StoreUrl = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL that --store named.")]
Clip = Annotated[
    str | None, typer.Option("--clip", help="Only the reenactment whose name begins with this text.")
]

Profile = Annotated[
    str, typer.Option(help="Profile whose runner and credentials are used; stored jobs hold neither.")
]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a setting, such as runner.workers=8."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (status, retry, verify, clean):
        app.command()(command)


def status(
    store: StoreUrl,
    clip: Clip = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document per clip, one per line.")
    ] = False,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Show how far every reenactment in STORE is: frames done and failed per stage, and what runs now.

    Reads the store only: inputs, Prefect and workers may be elsewhere or down.
    """
    console = make_console()
    with reported_errors():
        settings = _prepared(profile, change)
        from flows.display.views import as_json, show_clip, show_clips, show_passed_over, show_problems
        from portrait_core.pipeline.state import read_job, read_states, update_states

        opened = _open(store, settings)
        unread, problems = list[str](), list[str]()
        states = read_states(opened, clip or "", unread)
        states = update_states(opened, states, settings, problems, anew=len(states) == 1)
        job = read_job(opened, states[0].id, settings) if len(states) == 1 and not problems else None
        if json:
            for state in states:
                print(as_json(state))
        elif len(states) == 1:
            show_clip(states[0], job, console)
        else:
            show_clips(states, console)
        if not json:
            show_passed_over(opened.odd_names(("jobs", "states")), unread, console)
        show_problems(problems, make_console(stderr=json))
    finished = all(state.state == "done" for state in states) and not (unread or problems)
    raise typer.Exit(OK if finished else PARTIAL)


def retry(
    store: StoreUrl,
    stage: Annotated[list[str], typer.Option(help="Only failures of this stage. Can be repeated.")] = [],  # noqa: B006
    kind: Annotated[
        list[str],
        typer.Option(
            "--class",
            help="Only failures of this class: input, store, transient, resource, poison. Can be repeated; "
            "the default is all but input, because a frame without a face will not have one next time.",
        ),
    ] = [],  # noqa: B006
    clip: Clip = None,
    gaps: Annotated[
        str,
        typer.Option(
            help="keep: a recovered frame is rendered with the latents and the tuning made without it. redo: "
            "the latents behind it in its chain and the tuning are computed again, as if it had not failed."
        ),
    ] = "keep",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the clips, one folder each; without it they stay in the store."),
    ] = None,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Retry what failed or was set aside, and finish the clips concerned."""
    console = make_console()
    with reported_errors():
        settings = _prepared(profile, change)
        from flows.cli.retry import retry_jobs
        from flows.display.views import show_passed_over

        classes = _classes(kind)
        if gaps not in ("keep", "redo"):
            raise ValueError(f"--gaps is keep or redo, got {gaps!r}")
        chosen = known_stages(stage, None)
        unread = list[str]()
        jobs = _jobs(store, clip, settings, unread)
        show_passed_over([], unread, console)
        left = retry_jobs(jobs, chosen, classes, gaps, out, settings, console)  # type: ignore[arg-type]
    raise typer.Exit(PARTIAL if left else OK)


def verify(
    store: StoreUrl,
    clip: Clip = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Uncommit what is damaged, so that the next run computes it again."),
    ] = False,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Read everything in STORE and compare it with its checksums; name what is damaged or left over.

    Changes nothing without --repair. Ends with 1 when something is damaged. The digest of a finished clip is
    that of its content: two stores with the same result show the same digest.
    """
    with reported_errors():
        settings = _prepared(profile, change)
        from flows.display.views import show_passed_over, show_verified

        opened, console, unread = _open(store, settings), make_console(), list[str]()
        jobs = _jobs(store, clip, settings, unread)
        sound = show_verified(opened, jobs, clip is None, repair, console)
        show_passed_over(opened.odd_names(), unread, console)
    raise typer.Exit(OK if sound else PARTIAL)


def clean(
    store: StoreUrl,
    policy: Annotated[
        str,
        typer.Option(
            help="pictures: templates and rendered frames of finished clips, most of the bytes. clip: all "
            "but the clip and its measurements; a change of settings then starts from portrait and video."
        ),
    ] = "pictures",
    clip: Clip = None,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale",
            help="Delete instead what no job of the store names any more, as after changed settings.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be deleted; delete nothing.")
    ] = False,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Delete what finished clips no longer need, and files that killed writers left half-written.

    A later run that needs something deleted computes it again.
    """
    console = make_console()
    with reported_errors():
        settings = _prepared(profile, change)
        from flows.display.views import show_cleaned, show_passed_over, show_stale
        from portrait_core.pipeline import Policy

        if policy not in get_args(Policy):
            raise ValueError(f"there is no policy {policy}; there are {', '.join(get_args(Policy))}")
        if stale and clip is not None:
            raise ValueError("--stale covers the whole store; leave --clip out")
        if stale:
            from portrait_core.pipeline.state import read_all_jobs

            opened = _open(store, settings)
            whole = show_stale(opened, read_all_jobs(opened, settings), dry_run, console)
        else:
            unread = list[str]()
            jobs = _jobs(store, clip, settings, unread)
            whole = show_cleaned(jobs, policy, dry_run, console)  # type: ignore[arg-type]
            show_passed_over([], unread, console)
    raise typer.Exit(OK if whole else PARTIAL)


def _prepared(profile: str, change: list[str]) -> Settings:
    """Load the settings of the command.

    The place of work and the store's credentials come from them, never from a stored job.
    """
    import tasks.pipelines  # noqa: F401 - registers the pipelines that jobs name

    return prepared_settings(profile, change)


def _open(store: str, settings: Settings) -> Store:
    from portrait_core.store import Store

    return Store(store, settings.runner.storage_options)


def _jobs(store: str, clip: str | None, settings: Settings, unread: list[str]) -> list[Job]:
    from portrait_core.pipeline.state import read_jobs

    return read_jobs(_open(store, settings), clip or "", settings, unread)


def _classes(names: list[str]) -> list[str]:
    from portrait_core.store import FailureClass

    known = get_args(FailureClass)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no class {', '.join(unknown)}; the classes are {', '.join(known)}")
    return names or [name for name in known if name != "input"]
