"""`visiongate brightness`."""

import typer

from visiongate import Client
from visiongate.commands.common import AsJson, report
from visiongate.commands.options import Model, asks_server
from visiongate.commands.photos import PhotoArgument

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@asks_server
def brightness(client: Client, photo: PhotoArgument, model: Model = "", as_json: AsJson = False) -> None:
    """Measure how bright a photo is."""
    answer = client.measure_brightness(photo.image, model=model)
    report([answer.as_dict()], ("brightness",), [(f"{answer.value:.3f}",)], as_json, "")
