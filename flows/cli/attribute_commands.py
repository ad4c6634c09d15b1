"""``portrait edit`` and ``portrait train-styleflow``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.outcome import OK, make_console, prepared_settings, reported_errors
from flows.cli.places import check_places

if TYPE_CHECKING:
    from rich.console import Console

Store = Annotated[str, typer.Option(help="Folder or URL that keeps every stage's output.")]
Profile = Annotated[str, typer.Option(help="Name or file of the profile that names the generator.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(edit)
    app.command()(train_styleflow)


def as_settings(edits: Sequence[str]) -> list[str]:
    """Return ``--edit`` options as a change of the settings; an empty list where there are none.

    Raises:
        InputError: an option cannot be parsed.
    """
    from portrait_core.attribute_editing.edit_requests import as_override, parse_requests

    return [as_override(parse_requests(edits))] if edits else []


def edit(
    portrait: Annotated[str, typer.Option(help="Image with one face, seen from the front.")],
    out: Annotated[Path, typer.Option(help="Folder for edited.png, strip.png, latents.npz and edit.json.")],
    change: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="ATTRIBUTE=VALUE",
            help="Change an attribute: `age=+20` adds, `age=60` sets, `glasses=on` switches. Can be "
            "repeated; edits build on each other. `section.field=value` is a setting of the profile, as for "
            "`portrait reenact`.",
        ),
    ],
    strength: Annotated[
        float, typer.Option(help="Fraction of the requested change: 0.5 applies half of it.")
    ] = 1.0,
    store: Annotated[
        str | None, typer.Option(help="Folder or URL of the store. [default: OUT/store]")
    ] = None,
    profile: Profile = "embedded",
) -> None:
    """Change attributes of PORTRAIT: age, beard, lightness of hair.

    The portrait is inverted and the generator tuned on it (once, however many edits follow), its latent is
    moved by the StyleFlow, and the change is carried over to the photograph, whose other pixels stay.
    `portrait reenact --edit` animates it.

    The profile `embedded` shows `age` (grey hair), `beard` (close-cropped) and `hair_light` on photographs.
    It also knows gender, smile, hair_length, hair_volume, fringe, skin_dark, brows, eyes_light, lips_dark and
    glasses; its generator, trained on synthetic people, does not show these convincingly on photographs. A
    StyleFlow of your own (`portrait train-styleflow`) knows the attributes of its labels.
    """
    console = make_console()
    with reported_errors():
        settings_changes = [one for one in change if _is_setting(one.partition("=")[0].strip())]
        edits = [one for one in change if one not in settings_changes]
        overrides = [*settings_changes, *as_settings(edits), f"edit.strength={strength}"]
        from portrait_core.inputs.spelling import as_on_disk
        from portrait_core.settings import allowing_hosts_of

        portrait = as_on_disk(portrait)
        overrides = allowing_hosts_of([portrait], profile, overrides)
        settings = prepared_settings(profile, overrides)
        if not settings.edit.attributes:
            raise ValueError("nothing to change: give --set attribute=value, for example --set age=+20")
        check_places(store, out, default_store=store is None)
        from flows.display.terminal import shown_progress
        from flows.edit_attributes import prepare_edit, start_edit

        job = prepare_edit(portrait, store or str(out / "store"), settings)
        console.print(f"portrait  {job.portrait}", soft_wrap=True)
        console.print(f"store     {job.store}: {job.label}", soft_wrap=True)
        with shown_progress(job, console):
            result = start_edit(job, out, console.print, overrides, profile)
        _conclude_edit(result, out, console)
    raise typer.Exit(OK)


def _is_setting(name: str) -> bool:
    from portrait_core.settings import Settings

    return "." in name or name in Settings.model_fields


def _conclude_edit(result: Mapping[str, Any], out: Path, console: Console) -> None:
    from flows.display.views import table

    rows = table("attribute", "requested", "original", "target", "read back")
    for name, row in result["attributes"].items():
        back = (
            "-" if row["read_back"] is None else f"{row['read_back']:.3g}{' (weak)' if row['weak'] else ''}"
        )
        rows.add_row(name, row["asked"].partition("=")[2], f"{row['own']:.3g}", f"{row['target']:.3g}", back)
    console.print(rows)
    hidden = [name for name, row in result["attributes"].items() if row.get("shows") is False]
    if hidden:
        console.print(
            f"{', '.join(hidden)}: the embedded generator does not show this convincingly on photographs; "
            "compare strip.png"
        )
    moved = sorted(result["others_moved"].items(), key=lambda one: -abs(one[1]))[:3]
    if moved:
        console.print("also moved: " + ", ".join(f"{name} {value:+.3g}" for name, value in moved))
    drift = result["drift"]
    head = "no face found" if drift["head_shape"] is None else f"{drift['head_shape']:.2f} deviations"
    found = drift["identity"] is not None
    person = f"{drift['identity']:.2f} (same person below 0.6)" if found else "no face found"
    console.print(
        f"identity drift: face recognition {person}, head shape {head}, Φ {drift['perceptual']:.3f}, "
        f"latent {drift['latent']:.0%}"
    )
    for name in ("edited.png", "strip.png", "latents.npz", "edit.json"):
        console.print(f"{name:<14}{out / name}", soft_wrap=True)


def train_styleflow(
    store: Store,
    out: Annotated[
        Path, typer.Option(help="Folder for the weights, a sheet of edits and the training curve.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Samples to draw; the paper takes 10,000.")] = 10_000,
    profile: Profile = "embedded",
    change: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="As for `portrait reenact`.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Train the StyleFlow that edits attributes of a profile's generator.

    Draws samples, renders each frontally and labels it (on all workers), then trains. Give the same command
    again to continue after a stop. Set `edit.flow` to the resulting file to use it.
    """
    console = make_console()
    with reported_errors():
        settings = prepared_settings(profile, change)
        check_places(store, out)
        from flows.display.terminal import shown_progress
        from flows.train_styleflow import prepare_training, start_training

        job = prepare_training(store, samples, settings)
        console.print(f"{samples} samples of {settings.generator.weights}, store {job.store}: {job.label}")
        with shown_progress(job, console):
            curve = start_training(job, out, console.print, change, profile)
        _conclude_training(curve, out, console)
    raise typer.Exit(OK)


def _conclude_training(curve: Sequence[Mapping[str, Any]], out: Path, console: Console) -> None:
    from tasks.stages.flow import FLOW_FILE, SHEET

    if curve:
        first, last = curve[0], curve[-1]
        console.print(
            f"held-out log-density {first['held_out_log_density']:.1f} nats after pass {first['epoch']}, "
            f"{last['held_out_log_density']:.1f} after pass {last['epoch']}"
        )
    for name in (FLOW_FILE, SHEET, "curve.csv", "curve.png"):
        console.print(f"{name:<28}{out / name}", soft_wrap=True)
