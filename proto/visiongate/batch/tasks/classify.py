"""The labels that fit each image."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from visiongate.batch.task import Task
from visiongate.batch.tasks.making import make
from visiongate.batch.tasks.types import struct
from visiongate.operations import embedding
from visiongate.operations.embedding import LabelScore

# Best first.
_COLUMNS = pa.schema(
    [
        (
            "labels",
            pa.list_(
                struct(
                    label=pa.string(),
                    label_index=pa.int32(),
                    probability=pa.float32(),
                    similarity=pa.float32(),
                )
            ),
        )
    ]
)


def classify(
    *,
    labels: Iterable[str],
    prompt_template: str | None = None,
    top_k: int | None = None,
    truncate: bool = False,
    model: str = "",
) -> Task:
    """Say which labels fit images, as the client's `classify` does."""
    return make(
        "classify",
        embedding.classify,
        {
            "labels": labels,
            "prompt_template": prompt_template,
            "top_k": top_k,
            "truncate": truncate,
            "model": model,
        },
        models={"embedding": model},
        batch_size=32,
        columns=_COLUMNS,
        values=_values,
    )


def _values(scores: Sequence[LabelScore]) -> dict[str, Any]:
    return {
        "labels": [
            {
                "label": score.label,
                "label_index": score.label_index,
                "probability": score.probability,
                "similarity": score.similarity,
            }
            for score in scores
        ]
    }
