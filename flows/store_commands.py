"""Commands that need nothing but a store: ``status``, ``retry``, ``verify``, ``clean``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.outcome import OK, PARTIAL, known_stages, make_console, told_errors

if TYPE_CHECKING:
    from tasks.job import Job

StoreUrl = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URL that --store named.")]
Clip = Annotated[
    str | None, typer.Option("--clip", help="Only this reenactment, by the beginning of its name.")
]


def add_to(app: typer.Typer) -> None:
    """Put the commands into the program."""
    for command in (status, retry, verify, clean):
        app.command()(command)


def status(
    store: StoreUrl,
    clip: Clip = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document a clip and line.")] = False,
) -> None:
    """Say how far every reenactment in STORE is: frames done and failed by stage, and what runs now.

    Reads the store alone: inputs, Prefect and workers may be elsewhere or down.
    """
    from flows.views import as_json, show_clip, show_clips
    from tasks.status import clip_state

    console = make_console()
    with told_errors():
        found = [clip_state(job) for job in _jobs(store, clip)]
        if json:
            for state in found:
                print(as_json(state))
        elif len(found) == 1:
            show_clip(found[0], console)
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
) -> None:
    """Take up what failed or was set aside, and finish the clips concerned."""
    from flows.retry import retry_clip
    from tasks.status import clip_state

    console = make_console()
    with told_errors():
        classes = _classes(kind)
        if gaps not in ("keep", "redo"):
            raise ValueError(f"--gaps is keep or redo, got {gaps!r}")
        left = 0
        for job in _jobs(store, clip):
            chosen = known_stages(stage, ("clip", "edit", "flow"))
            if retry_clip(job, chosen, classes, gaps, out, console):  # type: ignore[arg-type]
                state = clip_state(job).state
                console.print(f"{job.name}: {state}", soft_wrap=True)
                left += state != "done"
    raise typer.Exit(PARTIAL if left else OK)


def verify(
    store: StoreUrl,
    clip: Clip = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Uncommit what is damaged, so that the next run makes it again.")
    ] = False,
) -> None:
    """Read everything in STORE and compare it with its checksums; name what is damaged or left over.

    Changes nothing without --repair. Ends with 1 when something is damaged. The digest of a finished clip is
    that of its content: two stores that hold the same result say the same.
    """
    from flows.views import show_verified
    from portrait_core.store import Store

    with told_errors():
        sound = show_verified(Store(store), clip, repair, make_console())
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; delete nothing.")] = False,
) -> None:
    """Drop what finished clips no longer need, and files that killed writers left half-written.

    A later run that needs something dropped makes it again.
    """
    from flows.views import show_cleaned
    from tasks.retention import Policy

    with told_errors():
        if policy not in get_args(Policy):
            raise ValueError(f"there is no policy {policy}; there are {', '.join(get_args(Policy))}")
        show_cleaned(_jobs(store, clip), policy, dry_run, make_console())  # type: ignore[arg-type]


def _jobs(store: str, clip: str | None) -> list[Job]:
    from portrait_core.store import Store
    from tasks.status import jobs

    found = [job for job in jobs(Store(store)) if job.reenactment_unit.startswith(clip or "")]
    if not found:
        raise ValueError(
            f"no reenactment in {store} begins with {clip!r}; `portrait status {store}` lists them"
        )
    return found


def _classes(names: list[str]) -> list[str]:
    from portrait_core.store import FailureClass

    known = get_args(FailureClass)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no class {', '.join(unknown)}; the classes are {', '.join(known)}")
    return names or [name for name in known if name != "input"]
