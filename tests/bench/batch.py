"""How fast is a batch job beside the stream that it works on? Demo models, embeddings of small photos.

    PYTHONPATH=tests python -m bench.batch [--count N] [--rounds N]

The same requests, with as many under way, by turns: on a stream of the client, with files that
are in memory, and by a job that reads a folder and writes Parquet. Prints the ratio of the rates, and exits
with 1 where the median is under GOAL.
"""

import argparse
import itertools
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from soak.goals import finish
from soak.service import serving_apart
from soak.stream import picture
from visiongate import Client, VisiongateError
from visiongate.batch.inputs import open_source
from visiongate.batch.job import Job, run
from visiongate.batch.tasks import make_task
from visiongate.operations.embedding import embed_images

COUNT, ROUNDS, GOAL = 12_000, 3, 0.95
BATCH_SIZE, WINDOW = 16, 8


def streamed(client: Client, files: list[bytes]) -> float:
    """Images a second, on a stream."""
    start = time.monotonic()
    batches = (files[first : first + BATCH_SIZE] for first in range(0, len(files), BATCH_SIZE))
    for _, result in client.stream((embed_images(each, strict=False) for each in batches), window=WINDOW):
        if isinstance(result, VisiongateError):
            raise result
    return len(files) / (time.monotonic() - start)


def batched(client: Client, photos: Path, out: Path) -> float:
    """Images a second, as a job."""
    job = Job(
        task=make_task("embed"),
        source=open_source([str(photos)]),
        out=str(out),
        clients=[client],
        batch_size=BATCH_SIZE,
        window=WINDOW,
    )
    start = time.monotonic()
    summary = run(job)
    return summary.ok / (time.monotonic() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    ratios = []
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as name, serving_apart() as service, Client(service.address) as client:
        streamed(client, [picture(number) for number in range(200)])
        for round_number in range(arguments.rounds):
            # Of each side pictures that no cache knows.
            files = [[picture(next(numbers)) for _ in range(arguments.count)] for _ in range(2)]
            photos = Path(name) / "photos"
            photos.mkdir()
            for number, data in enumerate(files[1]):
                (photos / f"{number:06d}.jpg").write_bytes(data)
            rates = [0.0, 0.0]
            for side in (0, 1) if round_number % 2 else (1, 0):
                rates[side] = (
                    batched(client, photos, Path(name) / f"out-{round_number}")
                    if side
                    else streamed(client, files[0])
                )
            shutil.rmtree(photos)
            ratios.append(rates[1] / rates[0])
            print(f"stream {rates[0]:.0f}/s, batch {rates[1]:.0f}/s: {ratios[-1]:.3f}", flush=True)
    ratio = statistics.median(ratios)
    print(f"batch has {ratio:.3f} of the stream's rate")
    finish({f"at least {GOAL} of the stream's rate": ratio >= GOAL})


if __name__ == "__main__":
    main()
