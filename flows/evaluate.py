"""The flow ``evaluate``: methods on pairs of portraits and videos, assessed and put into tables (section 4).

Each clip of each method is a job like any other. All results are in the store: a second run of the same
command continues, and one with more methods makes the new ones alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.dataset import run_clips
from flows.dataset_run import Clip, ClipResult
from flows.display.progress import ArtifactBoard, Board
from flows.engine.task_runs import process_left, settings_of_flow
from flows.reenact import Report, reporter, run_stages, under_prefect
from portrait_core.errors import InputError
from portrait_core.evaluation.draws import Pair, draw_pairs, draw_views
from portrait_core.evaluation.methods import Method
from portrait_core.evaluation.plan import Member, Plan
from portrait_core.inputs.sources import in_threads
from portrait_core.pipeline import Job
from portrait_core.pipeline.job import stem
from portrait_core.pipeline.ledger import Ledger
from portrait_core.settings import Settings
from portrait_core.settings.evaluation_sections import View
from portrait_core.store import Store
from portrait_core.text.redaction import redact_text
from tasks.context import read_track
from tasks.deliver import deliver_files
from tasks.ingest import ingest_portrait
from tasks.ingest_evaluation import ingest_assessed, ingest_tables
from tasks.method_choice import MethodChoice, Protocol, Request


@dataclass(frozen=True)
class Row:
    """A pair animated by a method."""

    number: int
    method: Method
    pair: Pair
    views: tuple[View, ...]

    @property
    def name(self) -> str:
        """Name of the clip: that of the pair, then the method's."""
        return (
            f"{self.pair.number:03d}-{stem(self.pair.portrait)}--{stem(self.pair.video)}, {self.method.name}"
        )


@dataclass
class Evaluation:
    """An evaluation on its way from a request to tables.

    Attributes:
        request: what was asked.
        absent: what is missing of it, and why.
    """

    request: Request
    absent: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def choice(self) -> MethodChoice:
        """Methods, with their settings."""
        return MethodChoice(self.request)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Pairs that are animated; in self-reenactment, each video with its own first frame."""
        request = self.request
        if request.protocol == "self":
            both = zip(request.portraits, request.videos, strict=True)
            found = [Pair(number, *pair) for number, pair in enumerate(both, start=1)]
            return found[: request.clips]
        return draw_pairs(request.portraits, request.videos, request.clips, self.choice.settings.seed)

    def track_portraits(self, board: Board) -> dict[str, Job]:
        """Track every portrait, and return the jobs of those that show a face.

        Pairs whose portrait shows none are noted as absent.
        """
        portraits = list(dict.fromkeys(pair.portrait for pair in self.pairs))
        jobs: dict[str, Job] = {}

        def prepare(item: tuple[int, str]) -> Clip | ClipResult:
            number, portrait = item
            try:
                jobs[portrait] = job = ingest_portrait(portrait, self.request.store, self.choice.settings)
            except Exception as error:
                return ClipResult.of_inputs(number, stem(portrait), error)
            return Clip(number, stem(portrait), job)

        results = run_clips(list(enumerate(portraits, start=1)), prepare, self.choice.settings, None, board)
        failed = {portraits[one.number - 1]: one.message for one in results if one.outcome != "done"}
        for pair in self.pairs:
            if pair.portrait in failed:
                self._note(pair, "every method", failed[pair.portrait])
        return {portrait: jobs[portrait] for portrait in portraits if portrait not in failed}

    def _note(self, pair: Pair, method: str, why: str) -> None:
        self.absent.append({"pair": pair.number, "method": method, "why": redact_text(why)})

    def rows(self, tracked: Mapping[str, Job]) -> list[Row]:
        """Return every pair with every method, with the views that are drawn of its clip.

        Pairs whose video cannot be used are noted as absent.

        Raises:
            InputError: no pair is left.
        """
        pairs = [pair for pair in self.pairs if pair.portrait in tracked]
        frames = dict(zip(pairs, in_threads(self._frames, pairs), strict=True))
        labels = {
            job.inputs["portrait"]: read_track(job.output("portrait")).cameras[0] for job in tracked.values()
        }
        views = {}
        for pair, count in frames.items():
            if isinstance(count, int):
                views[pair] = draw_views(labels, pair.number, count, self.choice.settings.seed)
            else:
                self._note(pair, "every method", count)
        if not views:
            raise InputError(
                "there is no pair whose portrait shows a face and whose video can be used: "
                + "; ".join(f"pair {row['pair']}: {row['why']}" for row in self.absent)
            )
        # method by method, since two methods of one pair would wait for each other's lease
        rows = [Row(0, method, pair, one) for method in self.choice.able for pair, one in views.items()]
        return [replace(row, number=number) for number, row in enumerate(rows, start=1)]

    def _frames(self, pair: Pair) -> int | str:
        """Return the number of frames of a pair's clip, or why its video cannot be used."""
        try:
            still, store = self._still, self.request.store
            return ingest_assessed("evaluate_animator", pair.portrait, pair.video, store, still).frames
        except InputError as error:
            return str(error)

    @cached_property
    def _still(self) -> Settings:
        return self.request.settings("baseline.method=still")

    def make_clips(self, rows: Sequence[Row], board: Board) -> list[Member]:
        """Make and assess every clip, and return those that are done; the others are noted as absent."""
        jobs: dict[int, Job] = {}

        def prepare(row: Row) -> Clip | ClipResult:
            pair, method = row.pair, row.method
            try:
                settings = self.request.settings(*self.choice.changes_of(method, row.views))
                jobs[row.number] = job = ingest_assessed(
                    method.goal, pair.portrait, pair.video, self.request.store, settings, row.name
                )
            except Exception as error:
                return ClipResult.of_inputs(row.number, row.name, error)
            return Clip(row.number, row.name, job)

        results = run_clips(rows, prepare, self.choice.settings, None, board)
        members = []
        for row, result in zip(rows, results, strict=True):
            if result.outcome not in ("done", "held"):
                self._note(row.pair, row.method.name, result.message or result.outcome)
                continue
            output = Ledger(jobs[row.number]).output("assess")
            unit = jobs[row.number].unit("assess").name
            members.append(
                Member(
                    method=row.method.name,
                    pair=row.pair.number,
                    clip=row.name,
                    unit=unit,
                    key=output.key,
                )
            )
        return members

    def plan(self, members: Sequence[Member]) -> Plan:
        """Return the plan of the tables."""
        done = {member.method for member in members}
        request, settings = self.request, self.choice.settings
        poses = len({pair.portrait for pair in self.pairs})
        notes = ("One portrait: both views of a clip have its pose, and ID tells nothing of turning.",)
        title = "Self-reenactment" if request.protocol == "self" else "Portrait image animation"
        return Plan(
            title=title,
            profile=request.profile,
            seed=settings.seed,
            methods=tuple(method.name for method in self.choice.able if method.name in done),
            estimators=self.choice.estimators,
            pairs=len(self.pairs),
            portraits=len({pair.portrait for pair in self.pairs}),
            videos=len({pair.video for pair in self.pairs}),
            members=tuple(members),
            notes=notes if poses < 2 else (),
            absent=tuple(self.absent),
            unavailable=tuple(self.choice.unable),
        )


def run_evaluation(request: Request, out: Path, board: Board, report: Report = lambda line: None) -> Plan:
    """Run an evaluation, write its files to ``out``, and return its plan.

    Raises:
        InputError: nothing can be evaluated.
        StageError: a stage stopped the run; the same command continues it.
    """
    evaluation = Evaluation(request)
    if not evaluation.choice.able:
        raise InputError(
            "no method can be run: "
            + "; ".join(f"{row['method']}: {row['why']}" for row in evaluation.choice.unable)
        )
    Store(request.store, evaluation.choice.settings.runner.storage_options).check_format(write=True)
    tracked = evaluation.track_portraits(board)
    members = evaluation.make_clips(evaluation.rows(tracked), board)
    if not members:
        raise InputError("no clip could be made; `portrait status` shows why")
    plan = evaluation.plan(members)
    job = ingest_tables(plan, request.store, evaluation.choice.settings)
    run_stages(job, report)
    deliver_files(job, out)
    return plan


@flow(name="evaluate", persist_result=False, validate_parameters=True)
def evaluate(
    portraits: Sequence[str],
    videos: Sequence[str],
    store: str,
    out: str,
    methods: Sequence[str] = ("paper", "references"),
    clips: int = 500,
    protocol: Protocol = "cross",
    profile: str = "embedded",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare methods on pairs of portraits and videos (paper section 4).

    Args:
        portraits: paths or URLs.
        videos: paths or URLs.
        store: URL or folder that keeps every stage's output; the same store resumes the run.
        out: folder for the report, the tables and the plot.
        methods: names of methods and of their groups.
        clips: number of pairs; the paper takes 500.
        protocol: ``cross`` or ``self``.
        profile: a profile's name or file.
        overrides: ``section.field=value`` strings for every method.

    Returns:
        The plan of the tables, as plain values.
    """
    settings_of_flow(profile, overrides)
    request = Request(
        tuple(portraits), tuple(videos), store, tuple(methods), clips, protocol, profile, tuple(overrides)
    )
    with process_left():
        plan = run_evaluation(request, Path(out), ArtifactBoard(), reporter.get())
    create_markdown_artifact((Path(out) / "report.md").read_text(), key="evaluation")
    return plan.model_dump(mode="json")


def start_evaluation(request: Request, out: Path, board: Board, report: Report) -> Plan:
    """Run an evaluation, under Prefect where a server answers or the settings ask for one."""
    inputs = (
        list(request.portraits),
        list(request.videos),
        request.store,
        str(out),
        list(request.methods),
        request.clips,
        request.protocol,
        request.profile,
        list(request.overrides),
    )

    def without() -> Plan:
        return run_evaluation(request, out, board, report)

    made = under_prefect(evaluate, inputs, request.settings(), request.protocol, report, without)
    return Plan.model_validate(made) if isinstance(made, dict) else made
