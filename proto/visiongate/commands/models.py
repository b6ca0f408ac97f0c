"""`visiongate models`."""

import typer

from visiongate import Client
from visiongate.commands.common import AsJson, note, report
from visiongate.commands.options import asks_server

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@asks_server
def models(client: Client, as_json: AsJson = False) -> None:
    """List the models that a server offers: what --model of the other commands takes.

    For example:

    ```
    visiongate models --server vision.example.com:443 --tls
    ```
    """
    offered = client.list_models()
    report(
        [model.as_dict() for model in offered],
        ("task", "family", "variant", "default", "ready", "input size", "reads"),
        [
            (
                model.task,
                model.family,
                model.variant,
                "yes" if model.is_default else "",
                "yes" if model.ready else "no",
                str(model.input_size or ""),
                ", ".join(model.scripts),
            )
            for model in offered
        ],
        as_json,
        "This server offers no model: its repository has none that visiongate knows.",
    )
    if offered and not any(model.ready for model in offered):
        note("None of these models is ready: Triton is still loading them, or is away. See the server's log.")
