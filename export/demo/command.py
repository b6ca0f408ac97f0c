"""The command line of every training, and where trainings write."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from export.weights import DEMO_WEIGHTS
from gateway.places import checkout

# In the working directory: nothing is ever written beside installed packages.
STATES = Path("demo/training")
"""Where stopped trainings continue from."""
WEIGHTS = DEMO_WEIGHTS if checkout() else Path("demo/weights")
"""Where the weights go. In a checkout they replace those that are exported and shipped."""

Run = Callable[[str, int | None, Path, Path], None]
"""Trains. Takes the device, the steps (None for the recipe's), and the folders of states and of weights."""


def main(run: Run) -> None:
    """Read the command line and train."""

    def train(
        device: Annotated[str, typer.Option(help="cpu, or cuda for a GPU.")] = "cpu",
        steps: Annotated[
            int | None,
            typer.Option(min=1, help="How many steps. Default: the recipe's.", show_default=False),
        ] = None,
        states: Annotated[
            Path, typer.Option(file_okay=False, help="Where a stopped training continues from.")
        ] = STATES,
        weights: Annotated[Path, typer.Option(file_okay=False, help="Where the weights go.")] = WEIGHTS,
    ) -> None:
        run(device, steps, states, weights)

    typer.run(train)
