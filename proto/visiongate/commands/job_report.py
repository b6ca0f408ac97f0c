"""What commands say of a job: how far it is, and what it has done."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from visiongate.batch.wording import counted
from visiongate.commands.common import note, print_json, table

if TYPE_CHECKING:
    from visiongate.batch.job import Summary
    from visiongate.batch.progress import Progress

# Without an answer for so long, it is not only slow.
_QUIET_S = 10.0


def report_summary(summary: "Summary", out: str, as_json: bool) -> None:
    """Print what a job has done."""
    if as_json:
        print_json([{"out": out, **asdict(summary)}])
        return
    counts = {"OK": summary.ok} if summary.ok else {}
    if summary.rows:
        table(
            ("status", "rows"),
            [(status, f"{count:,}") for status, count in {**counts, **summary.failed}.items()],
        )
    rate = f", {summary.rows / summary.seconds:,.0f} a second" if summary.rows and summary.seconds else ""
    note(f"{summary.rows:,} new rows in {out}, in {duration(summary.seconds)}{rate}")
    if summary.first_failure:
        note(f"the first that failed: {summary.first_failure}")
    for address, why in summary.lost.items():
        note(f"the server {address} took no more part: {why}")
    if summary.skipped:
        failed = (
            f", {summary.skipped_failed:,} of them failed (--retry-failed)" if summary.skipped_failed else ""
        )
        note(f"{summary.skipped:,} rows were there already{failed}")
    if summary.gone:
        note(f"{counted(summary.gone, 'row')} for inputs that are gone: kept")
    if summary.ignored:
        note(f"{summary.ignored:,} files were left out, as their names are not those of images (--all-files)")


def too_many_failed(summary: "Summary", out: str) -> str:
    """Return what people read if more inputs failed than may."""
    failed = sum(summary.failed.values())
    if not failed:
        return (
            f"too many inputs failed in earlier runs, {summary.skipped_failed:,} of {summary.skipped:,}: "
            f"the rows in {out} say why each did (error_message); --retry-failed does them anew, "
            "--max-failure-rate allows more"
        )
    return (
        f"too many inputs failed, {failed:,} of {summary.rows:,} in this run: the rows in {out} say why each "
        "did (error_message); --max-failure-rate allows more"
    )


def sentence_of(progress: "Progress") -> str:
    """Return what people read while a job runs."""
    done = progress.rows + progress.skipped
    parts = [f"{done:,} of {progress.total:,} rows" if progress.total is not None else f"{done:,} rows"]
    if progress.rate:
        parts.append(f"{progress.rate:,.{1 if progress.rate < 10 else 0}f} a second")
    if progress.left_s is not None:
        parts.append(f"{duration(progress.left_s)} left")
    if progress.failures:
        parts.append(f"{progress.failures:,} failed")
    if progress.lost:
        parts.append(f"{counted(progress.lost, 'server')} lost")
    if progress.limit and not progress.rate and progress.seconds >= _QUIET_S:
        parts.append(f"nothing lately: waiting for {progress.limit}")
    elif progress.limit:
        parts.append(f"limited by {progress.limit}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time as people read it: 3.2 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
