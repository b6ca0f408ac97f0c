"""COCO's file of objects: images, annotations with masks, categories. Written as it is read, row by row."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from visiongate.batch.formats.rows import NAMELESS, Job
from visiongate.batch.wording import counted
from visiongate.json_values import finite

FILE = "annotations.json"


def write(job: Job, folder: Path) -> str:
    """Write annotations.json, as pycocotools loads it. All ids start at 1, in the order of the rows.

    Images are called by the ids of their inputs. Masks without words are all of one category.
    """
    count = job.count()
    categories: list[str] = []
    with (folder / FILE).open("w", encoding="utf-8") as file:
        file.write('{"images": ')
        _write_list(file, _images(job))
        file.write(',\n"annotations": ')
        annotations = _write_list(file, _annotations(job, categories))
        file.write(',\n"categories": ')
        _write_list(file, ({"id": number, "name": name} for number, name in enumerate(categories, 1)))
        file.write("}\n")
    return (
        f"{FILE} with {counted(count.ok, 'image')} and {counted(annotations, 'object')}{count.about_failed}"
    )


def _images(job: Job) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(job.rows(["id", "width", "height"]), 1):
        yield {"id": number, "file_name": row["id"], "width": row["width"], "height": row["height"]}


def _annotations(job: Job, categories: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the annotations. At the end `categories` are the names of all."""
    categories[:] = [NAMELESS] if "masks" in job.schema.names else job.settings["phrases"]
    number = 1
    for image, (_, detections) in enumerate(job.detections(), 1):
        categories[:] = detections.classes
        yield from detections.to_coco(image, number)
        number += len(detections)


def _write_list(file: TextIO, entries: Iterable[dict[str, Any]]) -> int:
    """Write JSON's list of objects, one a line, and return how many there are."""
    number = 0
    for number, entry in enumerate(entries, 1):
        file.write(",\n" if number > 1 else "[\n")
        file.write(json.dumps(finite(entry), ensure_ascii=False, allow_nan=False))
    file.write("]" if number else "[]")
    return number
