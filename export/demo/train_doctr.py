"""docTR's two networks learn to find and to read the words of drawn scenes.

python -m export.demo.train_doctr --device cuda
"""

from pathlib import Path

from export.demo.command import main
from export.demo.train_doctr_detection import train_detection
from export.demo.train_doctr_recognition import train_recognition


def run(device: str, steps: int | None, states: Path, weights: Path) -> None:
    """Train both, one after the other."""
    for train in (train_detection, train_recognition):
        train(device, steps, states, weights / "doctr")


if __name__ == "__main__":
    main(run)
