"""A line of JSON for each row, failed ones included."""

import json
from pathlib import Path

from visiongate.batch.formats.rows import Job
from visiongate.batch.wording import counted
from visiongate.json_values import finite

FILE = "rows.jsonl"


def write(job: Job, folder: Path) -> str:
    """Write rows.jsonl: all columns of all rows, in order. NaN and infinity are null."""
    number = 0
    with (folder / FILE).open("w", encoding="utf-8") as file:
        for batch in job.output.batches():
            for row in batch.to_pylist():
                file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")
            number += len(batch)
    return f"{FILE} with {counted(number, 'row')}"
