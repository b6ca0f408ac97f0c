"""`visiongate models`."""

import typer

from visiongate import Client
from visiongate.commands.common import AsJson, asks_server, report

app = typer.Typer()


@app.command()
@asks_server
def models(client: Client, as_json: AsJson = False) -> None:
    """List the models that a server offers."""
    offered = client.list_models()
    report(
        [model.as_dict() for model in offered],
        ("task", "family", "variant", "default", "ready", "input size"),
        [
            (
                model.task,
                model.family,
                model.variant,
                "yes" if model.is_default else "",
                "yes" if model.ready else "no",
                str(model.input_size),
            )
            for model in offered
        ],
        as_json,
    )
