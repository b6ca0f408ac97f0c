"""Jobs over many images: a folder, a table or a bucket in, Parquet out, a row for every input."""
