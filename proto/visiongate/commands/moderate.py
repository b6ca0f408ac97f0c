"""`visiongate moderate`."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from visiongate.batch.extra import needs
from visiongate.command_error import CommandError
from visiongate.commands.answers import answers_folder, renew_answers
from visiongate.commands.common import AsJson, note, print_json, say, table
from visiongate.commands.folder import FOLDER_HELP, Html, Photos, about_photos, check_html, write_html
from visiongate.commands.photos import check_output, writing
from visiongate.folders.policy import (
    BLOCK,
    DISCLAIMER,
    FINE,
    NOT_JUDGED,
    REVIEW,
    VERDICTS,
    Judgement,
    Policy,
    example,
    read_policy,
)

if TYPE_CHECKING:
    from visiongate.batch.item import Source
    from visiongate.batch.task import Task
    from visiongate.commands.jobs import Work
    from visiongate.folders.page import Section

app = typer.Typer(rich_markup_mode="markdown")

MAX_ROWS = 100
"""Rows of the table: more would not be read."""


@app.command()
@about_photos
def moderate(
    photos: Photos,
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help=FOLDER_HELP, show_default=False)] = "",
    policy: Annotated[
        Path | None,
        typer.Option(help="What is not wanted, and from which score on: a TOML file.", metavar="FILE"),
    ] = None,
    example_policy: Annotated[
        bool, typer.Option("--example", help="Print a policy to start from, which explains itself.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a row for every photo here: name.csv, .jsonl or .parquet.", metavar="FILE"),
    ] = None,
    answers: Annotated[
        str,
        typer.Option(
            help="Keep the models' answers here, in a folder or at an address such as s3://bucket/folder.",
            metavar="DIR",
            show_default="in ~/.cache/visiongate/answers",
        ),
    ] = "",
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Hold back the photos of a folder that a policy of yours does not want. No safety guarantee.

    Each photo is to **block**, to **review** by people, or **fine**; one that cannot be read is **not
    judged**. The table shows those that are not fine, the worst first. The exit code is 1 if a photo is not
    judged.

    The models are asked once about a photo. Later calls ask about what is new, or has changed; thresholds can
    change without asking at all. For example:

    ```
    visiongate moderate --example > policy.toml
    visiongate moderate photos --policy policy.toml --html look.html
    visiongate moderate photos --policy policy.toml --out judged.csv
    ```
    """
    if example_policy:
        say(example().rstrip("\n"))
        return
    if policy is None:
        raise CommandError(
            "give --policy FILE, which says what is not wanted; `visiongate moderate --example` prints one "
            "to start from"
        )
    if not folder:
        raise CommandError("give a folder of photos, or any other input of `visiongate batch`")
    rules = read_policy(policy)
    with needs("folders"):
        from visiongate.folders import judging  # noqa: PLC0415
        from visiongate.folders.page import MAX_TILES  # noqa: PLC0415
    if out is not None:
        judging.check_ending(out)
        check_output("--out", out, [])
    check_html(html)
    source = photos.source(folder)
    judgements = _judged(rules, source, photos.work(), answers)
    if out is not None:
        names = [category.name for category in (*rules.classified, *rules.detected)]
        judgements = judging.write_judgements(out, judgements, names)
    report = _Report(MAX_ROWS if html is None else MAX_TILES, keep_all=as_json)
    with nullcontext() if out is None else writing("--out", out):
        for name, judgement in judgements:
            report.add(name, judgement)
    report.show(as_json)
    if out is not None:
        note(f"wrote {out}")
    if html is not None:
        title = f"What {policy.name} says about {source.name}"
        write_html(html, title, _sections(source, report), DISCLAIMER)
    note(DISCLAIMER)
    if report.counts[NOT_JUDGED]:
        raise typer.Exit(1)


class _Report:
    """What is shown: how many photos have which verdict, and the worst of each; for JSON all."""

    def __init__(self, keep_each: int, keep_all: bool) -> None:
        self._keep_each = keep_each
        self._keep_all = keep_all
        self.counts: Counter[str] = Counter()
        self.entries: list[dict[str, Any]] = []
        # The first of a heap is the least severe that is kept. Of equal ones the later is dropped.
        self._heaps: dict[str, list[tuple[float, int, str, Judgement]]] = {
            verdict: [] for verdict in VERDICTS
        }

    def add(self, name: str, judgement: Judgement) -> None:
        self.counts[judgement.verdict] += 1
        if self._keep_all:
            self.entries.append(judgement.as_dict(name))
        heap = self._heaps[judgement.verdict]
        heapq.heappush(heap, (judgement.risk, -self.counts.total(), name, judgement))
        if len(heap) > self._keep_each:
            heapq.heappop(heap)

    def worst(self, verdict: str) -> list[tuple[str, Judgement]]:
        """Return the photos of a verdict, as many as are kept, the worst first."""
        return [(name, judgement) for *_, name, judgement in sorted(self._heaps[verdict], reverse=True)]

    def show(self, as_json: bool) -> None:
        rows = [
            (name, verdict, _why(judgement))
            for verdict in VERDICTS
            if verdict != FINE
            for name, judgement in self.worst(verdict)
        ]
        if as_json:
            print_json(self.entries)
        elif rows:
            table(("photo", "verdict", "why"), rows[:MAX_ROWS])
            held = self.counts.total() - self.counts[FINE]
            if held > MAX_ROWS:
                note(f"These are the {MAX_ROWS} worst of {held}: --out writes all.")
        note(", ".join(f"{self.counts[verdict]} {_PLURALS[verdict]}" for verdict in VERDICTS) + ".")


_PLURALS = {BLOCK: "to block", REVIEW: "to review", NOT_JUDGED: "not judged", FINE: "fine"}


def _why(judgement: Judgement) -> str:
    if judgement.scores is None:
        return judgement.error
    return f"{judgement.category} {judgement.scores[judgement.category]:.2f}"


def _sections(source: "Source", report: _Report) -> "list[Section]":
    """Return what a page shows: the photos by verdict, the worst first."""
    from visiongate.folders.page import Section, Tile  # noqa: PLC0415

    worst = {verdict: photos for verdict in VERDICTS if (photos := report.worst(verdict))}
    names = {name for photos in worst.values() for name, _ in photos}
    read = {item.id: item.read for item in source if item.id in names}
    return [
        Section(
            f"{verdict.capitalize()}: {report.counts[verdict]:,}",
            _NOTES[verdict],
            [
                Tile(
                    read.get(name, b""),
                    name,
                    badge="" if judgement.scores is None else f"{judgement.scores[judgement.category]:.2f}",
                    detail=judgement.error or judgement.category,
                )
                for name, judgement in photos
            ],
        )
        for verdict, photos in worst.items()
    ]


_NOTES = {
    BLOCK: "The score of a category reaches its threshold for that. The worst first.",
    REVIEW: "People decide about these. The worst first.",
    NOT_JUDGED: "No model has seen these: they are not fine.",
    FINE: "No score reaches a threshold. Those that are nearest to one come first.",
}


def _judged(policy: Policy, source: "Source", work: "Work", answers: str) -> Iterator[tuple[str, Judgement]]:
    """Ask the models about what is new, and yield the judgements of the photos that are there now."""
    from visiongate.batch.output import Output  # noqa: PLC0415
    from visiongate.batch.store import open_store  # noqa: PLC0415
    from visiongate.batch.tasks import make_task  # noqa: PLC0415
    from visiongate.folders import judging  # noqa: PLC0415

    tasks: list[tuple[Task, Sequence[str]]] = []
    if policy.classified:
        task = make_task(
            "classify", labels=policy.labels, prompt_template=policy.template, model=policy.model
        )
        tasks.append((task, judging.CLASSIFY_COLUMNS))
    if policy.detected:
        task = make_task(
            "detect", phrases=policy.phrases, min_score=policy.least_score, model=policy.detection_model
        )
        tasks.append((task, judging.DETECT_COLUMNS))
    rows: dict[str, Iterable[Any]] = {"classify": (), "detect": ()}
    for task, columns in tasks:
        out = answers_folder(task, source, answers)
        renew_answers(work, task, source, out)
        rows[task.name] = Output(open_store(out)).batches(columns)
    # Rows of photos that are gone since stay in the files.
    present = {item.id for item in source}
    for name, judgement in judging.judged(policy, rows["classify"], rows["detect"]):
        if name in present:
            yield name, judgement
