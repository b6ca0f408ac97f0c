"""The command line that all trainings have, and where they write."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from export.weights import DEMO_WEIGHTS
from gateway.places import checkout

# In the working directory: what is installed is never written to.
STATES = Path("demo/training")
"""Where trainings that were stopped go on from."""
WEIGHTS = DEMO_WEIGHTS if checkout() else Path("demo/weights")
"""Where the weights go: in a checkout over those that are exported and shipped."""

Run = Callable[[str, int | None, Path, Path], None]
"""Train with (device, steps or None for the recipe's, folder of states, folder of all families' weights)."""


def main(run: Run) -> None:
    """Read the command line and train."""

    def train(
        device: Annotated[str, typer.Option(help="cpu, or cuda for a GPU.")] = "cpu",
        steps: Annotated[
            int | None, typer.Option(min=1, help="Fewer or more steps than the recipe's.", show_default=False)
        ] = None,
        states: Annotated[
            Path, typer.Option(file_okay=False, help="A stopped training goes on from what lies here.")
        ] = STATES,
        weights: Annotated[Path, typer.Option(file_okay=False, help="Where the weights go.")] = WEIGHTS,
    ) -> None:
        run(device, steps, states, weights)

    typer.run(train)
