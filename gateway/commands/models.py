"""`visiongate models`."""

import typer

from gateway.commands.common import AsJson, Server, Timeout, report
from visiongate import Client

app = typer.Typer()


@app.command()
def models(server: Server = "127.0.0.1:50051", timeout: Timeout = 10, as_json: AsJson = False) -> None:
    """List the models that a server offers."""
    with Client(server, timeout=timeout) as client:
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
