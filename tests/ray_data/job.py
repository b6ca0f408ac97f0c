"""Jobs of Ray Data and of Hugging Face datasets that ask a server, for a Python that has both: build/ray.

`job.py SERVER FOLDER` reads the images of FOLDER/images, writes what `visiongate.ray.Ask` adds to them into
folders beside it, and prints what it saw as JSON on the last line.
"""

import json
import sys
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-not-found]
import pyarrow.parquet as pq
import ray
from ray.data.checkpoint import CheckpointConfig

from visiongate.ray import Ask

PHRASES = ["red circle", "blue square"]


def embed_with_checkpoints(server: str, folder: Path) -> dict[str, Any]:
    """The recipe: files in, Parquet out. The second run finds all done."""
    context = ray.data.DataContext.get_current()
    context.checkpoint_config = CheckpointConfig(
        id_column="path", checkpoint_path=str(folder / "checkpoints"), delete_checkpoint_on_success=False
    )
    rows = []
    for _ in range(2):
        photos = ray.data.read_binary_files(str(folder / "images"), include_paths=True)
        answered = photos.map_batches(
            Ask,
            fn_constructor_kwargs={"task": "embed", "server": server},
            batch_size=4,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=0.25,
        )
        answered.drop_columns(["bytes"]).write_parquet(str(folder / "embeddings"))
        rows.append(
            sum(pq.read_metadata(file).num_rows for file in (folder / "embeddings").glob("*.parquet"))
        )
    context.checkpoint_config = None
    table = pq.read_table(folder / "embeddings")
    return {
        "rows": rows,
        "type": str(table.schema.field("embedding").type),
        "status": {Path(path).name: status for path, status in zip(
            table["path"].to_pylist(), table["status"].to_pylist(), strict=True
        )},
    }  # fmt: skip


def detect_in_pixels(server: str, folder: Path) -> list[Any]:
    """NumPy's batches: pixels in, and rows out."""
    photos = ray.data.read_images(str(folder / "images" / "good"), include_paths=True)
    answered = photos.map_batches(
        Ask,
        fn_constructor_kwargs={
            "task": "detect", "settings": {"phrases": PHRASES}, "server": server, "column": "image"
        },
        batch_size=2,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0.25,
    )  # fmt: skip
    return [
        [Path(row["path"]).name, sorted(entry["phrase"] for entry in row["detections"])]
        for row in answered.take_all()
    ]


def hugging_face(server: str, folder: Path) -> dict[str, Any]:
    """The recipe: a data set's images, undecoded."""
    files = sorted(str(path) for path in (folder / "images").rglob("*.*"))
    photos = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image(decode=False))
    ask = Ask("embed", server=server, column="image")
    features = datasets.Features({**photos.features, **datasets.Features.from_arrow_schema(ask.schema)})
    answered = photos.map(ask, batched=True, batch_size=4, features=features, num_proc=2)
    return {
        "features": list(answered.features),
        "status": {Path(row["image"]["path"]).name: row["status"] for row in answered},
        "lengths": sorted({len(row["embedding"]) for row in answered if row["status"] == "OK"}),
    }


if __name__ == "__main__":
    address, place = sys.argv[1], Path(sys.argv[2])
    # More than this machine may have: Ray waits for ever if its own steps find none left.
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False)
    found = {
        "ray": embed_with_checkpoints(address, place),
        "pixels": detect_in_pixels(address, place),
        "hugging_face": hugging_face(address, place),
    }
    ray.shutdown()
    print(json.dumps(found))
