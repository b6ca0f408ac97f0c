"""Words of sentences about a job."""


def counted(count: int, noun: str) -> str:
    """Return how many there are, such as "1 photo" or "1,200 photos"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
