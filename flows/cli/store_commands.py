"""Commands that need nothing but a store: ``status``, ``retry``, ``verify``, ``clean``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.cli.outcome import OK, PARTIAL, known_stages, make_console, prepared_settings, told_errors

if TYPE_CHECKING:
    from portrait_core.pipeline import Job
    from portrait_core.settings import Settings
    from portrait_core.store import Store

StoreUrl = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL that --store named.")]
Clip = Annotated[
    str | None, typer.Option("--clip", help="Only this reenactment, by the beginning of its name.")
]

Profile = Annotated[
    str, typer.Option(help="Profile whose runner and credentials are used; stored jobs say neither.")
]
Changes = Annotated[
    list[str],
    typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="Change a setting, such as runner.workers=8."),
]


def add_to(app: typer.Typer) -> None:
    """Put the commands into the program."""
    for command in (status, retry, verify, clean):
        app.command()(command)


def status(
    store: StoreUrl,
    clip: Clip = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document a clip and line.")] = False,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Say how far every reenactment in STORE is: frames done and failed by stage, and what runs now.

    Reads the store alone: inputs, Prefect and workers may be elsewhere or down.
    """
    console = make_console()
    with told_errors():
        settings = _prepared(profile, change)
        from flows.display.views import as_json, show_clip, show_clips
        from portrait_core.pipeline.state import look_up_state, read_job, read_states, update_states

        there = _open(store, settings)
        found = read_states(there, clip or "")
        job = read_job(there, found[0].id, settings) if len(found) == 1 else None
        found = update_states(there, found, settings) if job is None else [look_up_state(job)]
        if json:
            for state in found:
                print(as_json(state))
        elif len(found) == 1:
            show_clip(found[0], job, console)
        else:
            show_clips(found, console)
    raise typer.Exit(OK if all(state.state == "done" for state in found) else PARTIAL)


def retry(
    store: StoreUrl,
    stage: Annotated[list[str], typer.Option(help="Only failures of this stage. Can be repeated.")] = [],  # noqa: B006
    kind: Annotated[
        list[str],
        typer.Option(
            "--class",
            help="Only failures of this class: input, store, transient, resource, poison. Can be repeated; "
            "without it all but input, because a frame without a face has none the next time either.",
        ),
    ] = [],  # noqa: B006
    clip: Clip = None,
    gaps: Annotated[
        str,
        typer.Option(
            help="keep: a frame that is there now is rendered with what was made without it. redo: the "
            "latents behind it in its chain and the tuning are made again, as if it had never failed."
        ),
    ] = "keep",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the clips, one folder each; without it they stay in the store."),
    ] = None,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Take up what failed or was set aside, and finish the clips concerned."""
    console = make_console()
    with told_errors():
        settings = _prepared(profile, change)
        from flows.cli.retry import retry_jobs

        classes = _classes(kind)
        if gaps not in ("keep", "redo"):
            raise ValueError(f"--gaps is keep or redo, got {gaps!r}")
        chosen = known_stages(stage, None)
        jobs = _jobs(store, clip, settings)
        left = retry_jobs(jobs, chosen, classes, gaps, out, settings, console)  # type: ignore[arg-type]
    raise typer.Exit(PARTIAL if left else OK)


def verify(
    store: StoreUrl,
    clip: Clip = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Uncommit what is damaged, so that the next run makes it again.")
    ] = False,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Read everything in STORE and compare it with its checksums; name what is damaged or left over.

    Changes nothing without --repair. Ends with 1 when something is damaged. The digest of a finished clip is
    that of its content: two stores that hold the same result say the same.
    """
    with told_errors():
        settings = _prepared(profile, change)
        from flows.display.views import show_verified

        jobs = _jobs(store, clip, settings)
        sound = show_verified(_open(store, settings), jobs, clip is None, repair, make_console())
    raise typer.Exit(OK if sound else PARTIAL)


def clean(
    store: StoreUrl,
    policy: Annotated[
        str,
        typer.Option(
            help="pictures: templates and rendered frames of finished clips, most of the bytes. clip: all "
            "but the clip and what was measured on it; another setting then starts from portrait and video."
        ),
    ] = "pictures",
    clip: Clip = None,
    stale: Annotated[
        bool,
        typer.Option(
            "--stale", help="Instead: what no job of the store names any more, such as that of old settings."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")] = False,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
) -> None:
    """Drop what finished clips no longer need, and files that killed writers left half-written.

    A later run that needs something dropped makes it again.
    """
    with told_errors():
        settings = _prepared(profile, change)
        from flows.display.views import show_cleaned, show_stale
        from portrait_core.pipeline import Policy

        if policy not in get_args(Policy):
            raise ValueError(f"there is no policy {policy}; there are {', '.join(get_args(Policy))}")
        if stale and clip is not None:
            raise ValueError("--stale looks at the whole store; leave --clip out")
        if stale:
            from portrait_core.pipeline.state import read_all_jobs

            there = _open(store, settings)
            show_stale(there, read_all_jobs(there, settings), dry_run, make_console())
        else:
            jobs = _jobs(store, clip, settings)
            show_cleaned(jobs, policy, dry_run, make_console())  # type: ignore[arg-type]


def _prepared(profile: str, change: list[str]) -> Settings:
    """Settings of the command: where work is done, and the store's credentials, are theirs, never a stored
    job's.
    """
    import tasks.pipelines  # noqa: F401 - registers what jobs name

    return prepared_settings(profile, change)


def _open(store: str, settings: Settings) -> Store:
    from portrait_core.store import Store

    return Store(store, settings.runner.storage_options)


def _jobs(store: str, clip: str | None, settings: Settings) -> list[Job]:
    from portrait_core.pipeline.state import read_jobs

    return read_jobs(_open(store, settings), clip or "", settings)


def _classes(names: list[str]) -> list[str]:
    from portrait_core.store import FailureClass

    known = get_args(FailureClass)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no class {', '.join(unknown)}; the classes are {', '.join(known)}")
    return names or [name for name in known if name != "input"]
