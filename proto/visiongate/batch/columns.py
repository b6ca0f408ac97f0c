"""The columns that the rows of every job begin with."""

import pyarrow as pa

COLUMNS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        # The name of a gRPC status: OK, or that of the error.
        pa.field("status", pa.string(), nullable=False),
        # Empty for OK.
        pa.field("error_message", pa.string(), nullable=False),
        # Upright, in pixels, as the server read it.
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        # Of the file's bytes; null if they could not be read.
        pa.field("sha256", pa.string()),
        # From the request that had this input to its answer.
        pa.field("elapsed_ms", pa.float32()),
        # See `Item.version`.
        pa.field("version", pa.string(), nullable=False),
        # Of a video's frame.
        pa.field("time_s", pa.float64()),
    ]
)
"""Of every job. The task's own columns follow; they are null where the status is not OK."""

OK = "OK"
