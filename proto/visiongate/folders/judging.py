"""Photos as a policy judges them, from the rows of finished jobs, and files of the judgements."""

import csv
import json
import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from visiongate.batch.columns import OK
from visiongate.command_error import CommandError
from visiongate.folders.policy import DISCLAIMER, NOT_JUDGED, Judgement, Policy

CLASSIFY_COLUMNS = ("id", "status", "error_message", "labels")
DETECT_COLUMNS = ("id", "status", "error_message", "detections")

ENDINGS = (".csv", ".jsonl", ".parquet")
"""Of files that `write_judgements` writes."""

_Pairs = list[tuple[str, float]]
_ROWS_AT_A_TIME = 10_000


def judged(
    policy: Policy, classified: Iterable[pa.RecordBatch], detected: Iterable[pa.RecordBatch]
) -> Iterator[tuple[str, Judgement]]:
    """Yield the id of each photo and what the policy says about it, in the order of the rows.

    classified: CLASSIFY_COLUMNS of a job `classify`, empty if the policy has no prompts. detected:
    DETECT_COLUMNS of a job `detect` about the same inputs, empty if it has no phrases.
    """
    first = _rows(classified, "labels", "label", "probability")
    second = _rows(detected, "detections", "phrase", "score")
    if not policy.classified:
        for name, error, pairs in second:
            yield name, _judgement(policy, error, [], pairs)
        return
    # Two jobs about inputs that change need not have them in one order. Rows of one id are in theirs.
    others: defaultdict[str, deque[tuple[str, _Pairs]]] = defaultdict(deque)
    for name, error, pairs in second:
        others[name].append((error, _best(pairs)))
    for name, error, pairs in first:
        if policy.detected:
            waiting = others[name]
            other_error, found = waiting.popleft() if waiting else ("there are no detections of it", [])
            yield name, _judgement(policy, error or other_error, pairs, found)
        else:
            yield name, _judgement(policy, error, pairs, [])


def check_ending(path: Path) -> None:
    """Raise CommandError if no file of judgements has such a name."""
    if path.suffix.lower() not in ENDINGS:
        raise CommandError(f"--out {path}: let its name end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")


def write_judgements(
    path: Path, judgements: Iterable[tuple[str, Judgement]], categories: Sequence[str]
) -> Iterator[tuple[str, Judgement]]:
    """Yield the judgements while they are written. The file is there, whole, once all are taken.

    Its ending, one of ENDINGS, says how: JSON lines as `Judgement.as_dict` has them; a table has a column for
    each category's score, such as `score_weapons`. Raises OSError.
    """
    part = path.with_name(f".{os.getpid()}-{path.name}"[:200])
    write = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix.lower()]
    try:
        yield from write(part, judgements, categories)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _rows(
    batches: Iterable[pa.RecordBatch], column: str, word: str, score: str
) -> Iterator[tuple[str, str, _Pairs]]:
    """Yield the id, the error and the words with their scores of each row."""
    for batch in batches:
        for row in batch.to_pylist():
            if row["status"] == OK:
                yield row["id"], "", [(item[word], item[score]) for item in row[column]]
            else:
                yield row["id"], f"{row['status']}: {row['error_message']}", []


def _best(pairs: _Pairs) -> _Pairs:
    best: dict[str, float] = {}
    for word, score in pairs:
        best[word] = max(score, best.get(word, 0))
    return list(best.items())


def _judgement(policy: Policy, error: str, probabilities: _Pairs, detections: _Pairs) -> Judgement:
    return Judgement(NOT_JUDGED, error=error) if error else policy.judge(probabilities, detections)


def _write_jsonl(
    path: Path, judgements: Iterable[tuple[str, Judgement]], categories: Sequence[str]
) -> Iterator[tuple[str, Judgement]]:
    with path.open("w", encoding="utf-8") as file:
        for name, judgement in judgements:
            file.write(json.dumps(judgement.as_dict(name), ensure_ascii=False) + "\n")
            yield name, judgement


def _write_csv(
    path: Path, judgements: Iterable[tuple[str, Judgement]], categories: Sequence[str]
) -> Iterator[tuple[str, Judgement]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _schema(categories).names)
        writer.writeheader()
        for name, judgement in judgements:
            writer.writerow(_flat(name, judgement))
            yield name, judgement


def _write_parquet(
    path: Path, judgements: Iterable[tuple[str, Judgement]], categories: Sequence[str]
) -> Iterator[tuple[str, Judgement]]:
    schema = _schema(categories)
    rows: list[Mapping[str, Any]] = []
    with pq.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        for name, judgement in judgements:
            rows.append(_flat(name, judgement))
            if len(rows) == _ROWS_AT_A_TIME:
                flush()
            yield name, judgement
        flush()


def _schema(categories: Sequence[str]) -> pa.Schema:
    texts = [pa.field(name, pa.string()) for name in ("id", "verdict", "category")]
    scores = [pa.field(f"score_{category}", pa.float32()) for category in categories]
    fields = [*texts, pa.field("risk", pa.float32()), *scores, pa.field("error", pa.string())]
    return pa.schema(fields, metadata={"note": DISCLAIMER})


def _flat(name: str, judgement: Judgement) -> dict[str, Any]:
    entry = judgement.as_dict(name)
    scores = entry.pop("scores") or {}
    return entry | {f"score_{category}": score for category, score in scores.items()}
