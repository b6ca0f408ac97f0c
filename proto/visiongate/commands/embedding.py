"""`visiongate embed`, `visiongate classify` and `visiongate compare`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from visiongate import Client, Text, draw
from visiongate.commands.common import (
    AsJson,
    Photo,
    Save,
    asks_server,
    errors,
    report,
    save_picture,
)

app = typer.Typer()

# As many as stay readable on a photo.
DRAWN_LABELS = 5

Model = Annotated[str, typer.Option(help="Model variant.", show_default="the repository's")]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Cut texts that are too long, instead of failing.")
]


@app.command()
@asks_server
def embed(
    client: Client,
    photos: Annotated[
        list[Path] | None, typer.Argument(help="Image files.", exists=True, dir_okay=False)
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text instead of photos; repeat for more.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the embeddings here: a NumPy file, float32, a row each.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="As the model gives them, not of length 1.")] = False,
    truncate: Truncate = False,
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Embed photos or texts: one vector each, close to those of what means the same.

    For example:

    visiongate embed cat.jpg dog.jpg --out photos.npy

    visiongate embed --text "a cat" --text "a dog" --json
    """
    if bool(photos) == bool(text):
        raise ValueError("give photos, or texts with --text (any number of times)")
    vectors = (
        client.embed_images(photos, raw=raw, model=model)
        if photos
        else client.embed_texts(text or [], truncate=truncate, raw=raw, model=model)
    )
    names = [str(photo) for photo in photos] if photos else text or []
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Through a file: given a name, NumPy would add its own ending to it.
        with out.open("wb") as file:
            np.save(file, vectors)
        errors.print(f"wrote {out}", highlight=False, soft_wrap=True)
    entries = [
        {"photo" if photos else "text": name, "embedding": vector.tolist()}
        for name, vector in zip(names, vectors, strict=True)
    ]
    rows = [
        (name, str(len(vector)), ", ".join(f"{value:.4f}" for value in vector[:4]) + ", …")
        for name, vector in zip(names, vectors, strict=True)
    ]
    report(entries, ("photo" if photos else "text", "dimensions", "embedding"), rows, as_json)


@app.command()
@asks_server
def classify(
    client: Client,
    photo: Photo,
    labels: Annotated[list[str], typer.Argument(help="What it may show: cat dog 'red car'")],
    template: Annotated[
        str | None, typer.Option(help="What is asked about a label.", show_default="a photo of a {}.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Most labels to show.", show_default="all")] = None,
    truncate: Truncate = False,
    model: Model = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Say which labels fit a photo.

    For example:

    visiongate classify photo.jpg cat dog "a red car" --template "a drawing of a {}."
    """
    (scores,) = client.classify(
        [photo], labels, prompt_template=template, top_k=top_k, truncate=truncate, model=model
    )
    report(
        [score.as_dict() for score in scores],
        ("label", "probability", "similarity"),
        [(score.label, f"{score.probability:.1%}", f"{score.similarity:.3f}") for score in scores],
        as_json,
    )
    items = [
        draw.Item(index, f"{score.label} {score.probability:.0%}")
        for index, score in enumerate(scores[:DRAWN_LABELS])
    ]
    save_picture(photo, save, items)


@app.command()
@asks_server
def compare(
    client: Client,
    photo: Photo,
    texts: Annotated[list[str], typer.Argument(help="Texts to compare it with.")],
    truncate: Truncate = False,
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Say how well texts fit a photo: the cosine similarity of each, in the order given."""
    similarities = client.compare(photo, [Text(text) for text in texts], truncate=truncate, model=model)
    report(
        [
            {"text": text, "similarity": round(float(similarity), 6)}
            for text, similarity in zip(texts, similarities, strict=True)
        ],
        ("text", "similarity"),
        [(text, f"{similarity:.3f}") for text, similarity in zip(texts, similarities, strict=True)],
        as_json,
    )
