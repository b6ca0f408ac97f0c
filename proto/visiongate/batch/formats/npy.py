"""Embeddings as NumPy's file beside the names of the images, as clip-retrieval and autofaiss read them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import compute, parquet

from visiongate.batch.columns import OK
from visiongate.batch.formats.rows import Job
from visiongate.batch.wording import counted

EMBEDDINGS = Path("img_emb", "img_emb_0.npy")
METADATA = Path("metadata", "metadata_0.parquet")
_SCHEMA = pa.schema([("image_path", pa.string())])


def write(job: Job, folder: Path) -> str:
    """Write img_emb/img_emb_0.npy, [N, D], and metadata/metadata_0.parquet, with the id of each row of it."""
    count = job.count()
    kind = job.schema.field("embedding").type
    shape = count.ok, kind.list_size
    for path in (EMBEDDINGS, METADATA):
        (folder / path).parent.mkdir()
    done = 0
    # Not a memory map: on a full disk that would end the process, and writing raises an error.
    with (
        (folder / EMBEDDINGS).open("wb") as file,
        parquet.ParquetWriter(folder / METADATA, _SCHEMA) as writer,
    ):
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in job.output.batches(["id", "status", "embedding"]):
            chosen = batch.filter(compute.equal(batch["status"], OK))
            numbers = chosen["embedding"].flatten().to_numpy(zero_copy_only=False)
            assert len(numbers) == len(chosen) * kind.list_size
            file.write(numbers.tobytes())
            writer.write_batch(pa.record_batch([chosen["id"]], schema=_SCHEMA))
            done += len(chosen)
    assert done == count.ok
    return f"{counted(shape[0], 'embedding')} of {shape[1]} numbers{count.about_failed}"
