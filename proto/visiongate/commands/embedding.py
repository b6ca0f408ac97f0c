"""`visiongate embed`, `visiongate classify` and `visiongate compare`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from visiongate import Client, Text
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, note, report
from visiongate.commands.items import end_with_errors, item_entries
from visiongate.commands.options import Model, Truncate, asks_server
from visiongate.commands.photos import (
    PHOTO_HELP,
    Photo,
    PhotoArgument,
    Picture,
    Save,
    check_output,
    one_at_a_time,
    refuse_photos,
)
from visiongate.drawn_answers import label_items

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@asks_server
def embed(
    client: Client,
    photos: Annotated[
        list[Photo] | None,
        typer.Argument(parser=Photo.named, metavar="PHOTOS", help=f"{PHOTO_HELP} Any number."),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text instead of photos; repeat for more.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the embeddings here: a NumPy file, float32, a row each. A photo or text that cannot "
            "be used has a row of NaN.",
            metavar="FILE",
        ),
    ] = None,
    normalize: Annotated[
        bool, typer.Option(help="Scale embeddings to length 1, or leave them as the model gives them.")
    ] = True,
    truncate: Truncate = False,
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Embed photos or texts: one vector each, close to those of what means the same.

    For example:

    ```
    visiongate embed cat.jpg dog.jpg --out photos.npy
    visiongate embed --text "a cat" --text "a dog" --json
    ```
    """
    if bool(photos) == bool(text):
        raise CommandError("give photos, or texts with --text (any number of times)")
    refuse_photos(text or [], "text", "leave out --text to embed the photo")
    if out is not None:
        check_output("--out", out, photos or [])
    if photos:
        items = [("photo", photo.name) for photo in photos]
        vectors = client.embed_images(
            [photo.image for photo in photos], normalize=normalize, model=model, strict=False
        )
    else:
        items = [("text", word) for word in text or []]
        vectors = client.embed_texts(
            text or [], truncate=truncate, normalize=normalize, model=model, strict=False
        )
    if out is not None:
        # Through an open file: NumPy would add its own ending to a name.
        with out.open("wb") as file:
            np.save(file, vectors)
        note(f"wrote {out}")
    report(
        item_entries(items, ({"embedding": vector.tolist()} for vector in vectors), vectors.errors),
        (items[0][0], "dimensions", "embedding"),
        [
            (name, str(len(vector)), ", ".join(f"{value:.4f}" for value in vector[:4]) + ", ...")
            for index, ((_, name), vector) in enumerate(zip(items, vectors, strict=True))
            if index not in vectors.errors
        ],
        as_json,
        "No embeddings came back.",
    )
    end_with_errors(items, vectors.errors)


@app.command()
@asks_server
def classify(
    client: Client,
    photo: PhotoArgument,
    labels: Annotated[
        list[str],
        typer.Argument(help="What the photo may show, each in quotes if it has spaces.", metavar="LABELS"),
    ],
    template: Annotated[
        str | None,
        typer.Option(
            help="What the model is asked about a label, which takes the place of {}.",
            show_default="a photo of a {}.",
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Show at most this many labels.", show_default="all")
    ] = None,
    truncate: Truncate = False,
    model: Model = "",
    as_json: AsJson = False,
    save: Save = None,
) -> None:
    """Say which labels fit a photo.

    For example:

    ```
    visiongate classify photo.jpg cat dog "a red car" --template "a drawing of a {}."
    ```
    """
    refuse_photos(labels, "label", one_at_a_time('visiongate classify "$photo" cat dog'))
    picture = Picture(photo, save)
    (scores,) = client.classify(
        [photo.image], labels, prompt_template=template, top_k=top_k, truncate=truncate, model=model
    )
    report(
        [score.as_dict() for score in scores],
        ("label", "probability", "similarity"),
        [(score.label, f"{score.probability:.1%}", f"{score.similarity:.3f}") for score in scores],
        as_json,
        "No labels came back.",
    )
    picture.draw(label_items(scores))


@app.command()
@asks_server
def compare(
    client: Client,
    photo: PhotoArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts to compare it with, each in quotes.", metavar="TEXTS"),
    ] = None,
    others: Annotated[
        list[Photo] | None,
        typer.Option(
            "--photo",
            parser=Photo.named,
            metavar="PHOTO",
            help="Another photo to compare it with; repeat for more.",
        ),
    ] = None,
    truncate: Truncate = False,
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Say how similar texts, or other photos, are to a photo: the cosine of each, in the order given.

    For example:

    ```
    visiongate compare truck.jpg "a white truck" "a red wall"
    visiongate compare truck.jpg --photo van.jpg --photo wall.jpg
    ```
    """
    texts, others = texts or [], others or []
    refuse_photos(texts, "text", "to compare photos, put --photo before each but the first")
    if not texts and not others:
        raise CommandError('give what to compare the photo with: texts such as "a white truck", or --photo')
    items = [*(("text", text) for text in texts), *(("photo", other.name) for other in others)]
    similarities = client.compare(
        photo.image,
        [*map(Text, texts), *(other.image for other in others)],
        truncate=truncate,
        model=model,
        strict=False,
    )
    values = [float(similarity) for similarity in similarities]
    report(
        item_entries(items, ({"similarity": round(value, 6)} for value in values), similarities.errors),
        ("text or photo" if texts and others else items[0][0], "similarity"),
        [
            (name, f"{value:.3f}")
            for index, ((_, name), value) in enumerate(zip(items, values, strict=True))
            if index not in similarities.errors
        ],
        as_json,
        "No similarities came back.",
    )
    end_with_errors(items, similarities.errors)
