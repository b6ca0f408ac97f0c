"""The command `visiongate demo`: our own small models at work, how true their answers are, their training."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.progress import Progress
from rich.text import Text

from export.demo import evaluate, samples, show
from export.demo.command import STATES, WEIGHTS
from export.demo.families import FAMILIES
from export.demo.measure import Figure
from export.demo.serving import REPOSITORY, with_client
from export.errors import ExportError
from gateway import extras
from visiongate import AsyncClient, draw
from visiongate.commands.common import errors, note, say, table

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
Repository = Annotated[Path, typer.Option(file_okay=False, help="The model repository to serve.")]


@app.callback(invoke_without_command=True)
def show_command(
    context: typer.Context,
    save: Annotated[Path, typer.Option(help="Where to write the picture.")] = Path("demo.png"),
    seed: Annotated[int, typer.Option(help="The seed of the background and the shades.")] = 0,
    repository: Repository = REPOSITORY,
) -> None:
    """Draw a scene, ask all models about it, and write one picture with all of their answers.

    It starts Triton and a gateway on this machine, and stops both at the end. The models are small ones that
    this project trained on drawn scenes. They know shapes, words and faces like those, and nothing else.
    """
    if context.invoked_subcommand is not None:
        return
    draw.check_writable(save)
    scene = show.scene(seed)
    rows, picture = with_client(repository, lambda client: show.ask(client, scene), note)
    marks = [Text("✓", "green") if row.is_right else Text("✗", "red") for row in rows]
    table(
        ("in the picture", "the answer", "agreement", ""),
        [(row.truth, row.answer, row.agreement, mark) for row, mark in zip(rows, marks, strict=True)],
    )
    save.parent.mkdir(parents=True, exist_ok=True)
    picture.save(save)
    plain = save.with_stem(f"{save.stem}-scene")
    Image.fromarray(scene.image).save(plain)
    note(f"wrote {save}, and {plain} without the answers")


@app.command("scenes")
def scenes_command(
    folder: Annotated[Path, typer.Argument(file_okay=False, metavar="FOLDER", help="It is made.")],
    count: Annotated[int, typer.Option(min=1, help="How many scenes.")] = 24,
) -> None:
    """Write a folder of drawn scenes, to try other commands on: batch, search, duplicates, cluster, label."""
    note(f"wrote {sum(1 for _ in samples.write(folder, count))} pictures to {folder}")


@app.command("evaluate")
def evaluate_command(
    count: Annotated[int, typer.Option("--scenes", min=1, help="How many unseen scenes.")] = 200,
    repository: Repository = REPOSITORY,
) -> None:
    """Ask about many scenes that no model was trained on, and print how often the answers are right."""
    extras.require("export", "Drawing the scenes")

    async def work(client: AsyncClient) -> list[Figure]:
        with Progress(console=errors, transient=True) as progress:
            task = progress.add_task("asking", total=evaluate.steps(count))
            return await evaluate.everything(client, count, lambda: progress.advance(task))

    figures = with_client(repository, work, note)
    say(f"| on {count} unseen scenes | reached | goal |\n|---|---|---|")
    for figure in figures:
        digits = 1 if figure.unit else 3
        bound = "at most" if figure.at_most else "at least"
        goal = f"{bound} {figure.goal:g}{figure.unit}{'' if figure.reached else ': missed'}"
        say(f"| {figure.what} | {figure.value:.{digits}f}{figure.unit} | {goal} |")


@app.command("train")
def train_command(
    families: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAMILY]...", help=f"Any of {', '.join(FAMILIES)}. Default: all."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda for a GPU.")] = "cpu",
    states: Annotated[
        Path, typer.Option(file_okay=False, help="Where a stopped training continues from.")
    ] = STATES,
    weights: Annotated[Path, typer.Option(file_okay=False, help="Where the weights go.")] = WEIGHTS,
) -> None:
    """Train the demo models anew, one after the other. It takes hours on a CPU, and can be stopped.

    In a checkout the new weights replace those that are there. To serve them, export them:
    visiongate export all --weights demo --precision fp16-weights --repository DIRECTORY
    """
    chosen = families or list(FAMILIES)
    if unknown := [family for family in chosen if family not in FAMILIES]:
        raise ExportError(f"There is no training of {unknown[0]!r}; there are {', '.join(FAMILIES)}.")
    extras.require("export", "Training")
    for family in chosen:
        import_module(FAMILIES[family].training).run(device, None, states, weights)


if __name__ == "__main__":
    app(prog_name="visiongate demo")
