"""What files are, by the endings of their names."""

# What servers read, those with the extra `heic` included.
IMAGES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
    | {".gif", ".avif", ".heic", ".heif", ".hif"}
)
VIDEOS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".mts", ".m2ts"}
    | {".3gp", ".ogv"}
)

TABLES = ("csv", "tsv", "jsonl", "parquet")
KINDS = ("images", "list", *TABLES, "tar", "video")

_KINDS = {
    ".txt": "list",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tar": "tar",
    ".tgz": "tar",
}


def ending(name: str) -> str:
    """Return the ending of a name in lower case, such as ".jpg"; "" if it has none."""
    dot = name.rfind(".")
    return "" if dot <= name.rfind("/") + 1 else name[dot:].lower()


def kind_of(name: str) -> str:
    """Return a kind of `KINDS`: "images" for all names that say nothing else."""
    found = ending(name.lower().removesuffix(".gz"))
    return "video" if found in VIDEOS else _KINDS.get(found, "images")
