"""``portrait dataset run``, ``plan`` and ``submit``: a manifest's clips, here or as deployment runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from flows.cli.outcome import OK, PARTIAL, make_console, prepared_settings, reported_errors
from flows.cli.places import check_places

if TYPE_CHECKING:
    from flows.dataset import Parameters
    from portrait_core.dataset.manifest import Manifest, Row
    from portrait_core.pipeline import Policy

DEPLOYMENT = "reenact-dataset/portrait-dataset"
"""Name of the deployment in ``deployments/prefect.yaml``."""

ManifestUrl = Annotated[str, typer.Argument(metavar="MANIFEST", help="CSV, Excel or Parquet, path or URL.")]
StoreUrl = Annotated[str, typer.Option(help="Folder or URL that keeps every stage's output.")]
Profile = Annotated[str, typer.Option(help="Profile of rows that name none.")]
Changes = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="As for `portrait reenact`.")
]
Shard = Annotated[str, typer.Option(help="Part of the manifest, I/N with I from 0: `--shard 0/8`.")]
Consent = Annotated[
    bool, typer.Option("--consent/--no-consent", help="Refuse rows without licence and consent.")
]
Keep = Annotated[
    str | None,
    typer.Option(help="What to drop of each finished clip: pictures or clip, as `portrait clean` does."),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for the clips, one folder each; without it they stay in the store."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``portrait dataset``."""
    for command in (run, plan, submit):
        app.command()(command)


def run(
    manifest: ManifestUrl,
    store: StoreUrl,
    out: Out = None,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
    shard: Shard = "0/1",
    keep: Keep = None,
    consent: Consent = True,
) -> None:
    """Reenact every row of MANIFEST, many at once. Give the same command again to continue.

    The manifest is checked as a whole before any work. A clip that fails is recorded and does not stop the
    others; `portrait status STORE` lists failed clips, `portrait retry STORE` retries them.
    """
    console = make_console()
    with reported_errors():
        change = _allowing_host_of(manifest, profile, change)
        settings = prepared_settings(profile, change)
        check_places(store, out)
        from flows.dataset import start_dataset

        rows = _rows(_read(manifest, profile, change, consent), shard)
        console.print(f"{len(rows)} clips, profile {profile}, store {store}", soft_wrap=True)
        parameters = _parameters(manifest, store, out, profile, change, shard_of(shard), keep, consent)
        results = start_dataset(rows, settings, console, parameters)
    counts = dict(sorted(Counter(result.outcome for result in results).items()))
    console.print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "nothing to do")
    if set(counts) - {"done"}:
        console.print(f"`portrait status {store}` shows details", soft_wrap=True)
    raise typer.Exit(PARTIAL if set(counts) - {"done"} else OK)


def plan(
    manifest: ManifestUrl,
    store: StoreUrl,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
    shard: Shard = "0/1",
    workers: Annotated[
        list[int], typer.Option(help="Estimate wall time on this many workers. Can be repeated.")
    ] = [  # noqa: B006
        1,
        8,
        64,
    ],
    consent: Consent = True,
) -> None:
    """Show what `portrait dataset run` would do: clips, worker time per stage and storage, by the history."""
    console = make_console()
    with reported_errors():
        change = _allowing_host_of(manifest, profile, change)
        settings = prepared_settings(profile, change)
        from flows.dataset import row_preparer
        from flows.dataset_run import Clip
        from flows.display.dataset_plan import show_dataset_plan
        from portrait_core.inputs.sources import in_threads

        rows = _rows(_read(manifest, profile, change, consent), shard)
        prepared = in_threads(row_preparer(store, change, settings), rows)
        bad = [one for one in prepared if not isinstance(one, Clip)]
        for result in bad:
            console.print(f"row {result.number}, {result.name}: {result.message}", soft_wrap=True)
        show_dataset_plan([one.job for one in prepared if isinstance(one, Clip)], workers, console)
    raise typer.Exit(PARTIAL if bad else OK)


def submit(
    manifest: ManifestUrl,
    store: StoreUrl,
    shards: Annotated[
        int, typer.Option(min=1, help="Number of deployment runs; 20 to 50 clips each work well.")
    ],
    out: Out = None,
    profile: Profile = "embedded",
    change: Changes = [],  # noqa: B006 - typer copies it
    keep: Keep = None,
    consent: Consent = True,
    deployment: Annotated[str, typer.Option(help="Deployment that runs a shard.")] = DEPLOYMENT,
    again: Annotated[
        bool, typer.Option("--again", help="Create new runs even of what was submitted before.")
    ] = False,
) -> None:
    """Check MANIFEST and schedule one deployment run per shard on the Prefect server at PREFECT_API_URL.

    Each run reads a manifest of its own, STORE/manifests/DIGEST/I-of-N.csv. The same command given again
    schedules nothing that was scheduled before, and reports the state of those runs.
    """
    console = make_console()
    with reported_errors():
        from flows.engine.environment import refuse_secrets
        from flows.engine.submission import TAGS, require_deployment, schedule
        from portrait_core.dataset.sharding import write_shards
        from portrait_core.inputs.sources import resolve_place
        from portrait_core.inputs.table import stem

        change = _allowing_host_of(manifest, profile, change)
        prepared_settings(profile, change)
        refuse_secrets([*change, store])
        check_places(store, out)
        require_deployment(deployment)
        if profile.endswith((".yaml", ".yml")):  # a worker starts its runs in another folder
            profile = resolve_place(os.getcwd(), profile)
        rows = _read(manifest, profile, change, consent).rows
        place, folder = resolve_place(os.getcwd(), store), out.absolute() if out else None
        time = datetime.now(UTC).isoformat() if again else ""
        counts = Counter[str]()
        for shard in write_shards(place, rows, min(shards, len(rows)), profile):
            name, tags = f"{stem(manifest)}-{shard.label}", [*TAGS, stem(manifest)]
            parameters = _parameters(shard.url, place, folder, profile, change, (0, 1), keep, consent)
            scheduled = schedule(deployment, parameters, shard.digest, name, tags, time)
            state = "scheduled" if scheduled.new else f"submitted before, {scheduled.state}"
            console.print(f"{scheduled.name}: {len(shard.rows)} clips, {state}", soft_wrap=True)
            counts["new" if scheduled.new else "submitted before"] += 1
        summary = ", ".join(f"{count} {what}" for what, count in counts.items())
        more = "; --again creates new runs" if counts["submitted before"] else ""
        console.print(f"{sum(counts.values())} shards: {summary}{more}", soft_wrap=True)
    raise typer.Exit(OK)


def _allowing_host_of(manifest: str, profile: str, change: list[str]) -> list[str]:
    from portrait_core.settings import allowing_hosts_of

    return allowing_hosts_of([manifest], profile, change)


def _parameters(
    manifest: str,
    store: str,
    out: Path | None,
    profile: str,
    change: list[str],
    shard: tuple[int, int],
    keep: str | None,
    consent: bool,
) -> Parameters:
    return {
        "manifest": manifest,
        "store": store,
        "out": str(out) if out else None,
        "profile": profile,
        "overrides": change,
        "shard": shard[0],
        "shards": shard[1],
        "keep": _policy(keep),
        "require_consent": consent,
    }


def shard_of(text: str) -> tuple[int, int]:
    """Parse ``I/N`` as two numbers.

    Raises:
        ValueError: the text is not of this form.
    """
    index, slash, count = text.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal() or int(index) >= int(count):
        raise ValueError(f"--shard {text!r} is not I/N with I from 0 to N-1, such as 0/8")
    return int(index), int(count)


def _read(manifest: str, profile: str, change: Sequence[str], consent: bool) -> Manifest:
    from portrait_core.dataset.manifest import read_manifest

    contents = read_manifest(manifest, profile, require_consent=consent, changes=change)
    for note in contents.notes:
        make_console().print(note, soft_wrap=True)
    return contents


def _rows(manifest: Manifest, text: str) -> Sequence[Row]:
    from portrait_core.dataset.sharding import shard

    return shard(manifest.rows, *shard_of(text))


def _policy(name: str | None) -> Policy | None:
    from portrait_core.pipeline import Policy

    for policy in get_args(Policy):
        if name == policy:
            return policy
    if name is not None:
        raise ValueError(f"there is no policy {name}; there are {', '.join(get_args(Policy))}")
    return None
