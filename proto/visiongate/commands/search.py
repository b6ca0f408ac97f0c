"""`visiongate search`."""

import os
from typing import Annotated

import typer

from visiongate.batch.wording import counted
from visiongate.command_error import CommandError
from visiongate.commands.common import AsJson, report, waiting
from visiongate.commands.folder import (
    NO_PHOTOS,
    Html,
    IndexFolder,
    Photos,
    about_photos,
    check_html,
    end_with_failed,
    picture,
    write_html,
)
from visiongate.commands.options import Model, Truncate
from visiongate.commands.photos import Photo, refuse_photos

app = typer.Typer(rich_markup_mode="markdown")


@app.command()
@about_photos
def search(
    photos: Photos,
    words_and_folder: Annotated[
        list[str],
        typer.Argument(
            metavar="[WORDS] FOLDER",
            help="What the photos show, in quotes if it has spaces. A folder of photos, with the folders in "
            "it, or any other input of `visiongate batch`.",
        ),
    ],
    photo: Annotated[
        Photo | None,
        typer.Option(
            parser=Photo.named, metavar="PHOTO", help="Search for photos like this one, and not for words."
        ),
    ] = None,
    top: Annotated[int, typer.Option(help="Show at most this many photos.", min=1)] = 10,
    min_score: Annotated[
        float,
        typer.Option(
            help="Least similarity of a photo: a cosine, -1 to 1. With words, 0.3 may be a good match.",
            min=-1,
            max=1,
            show_default="any",
        ),
    ] = -1,
    truncate: Truncate = False,
    model: Model = "",
    index: IndexFolder = "",
    html: Html = None,
    as_json: AsJson = False,
) -> None:
    """Find the photos of a folder that show what words say, or that are like another photo; best first.

    Photos are embedded once. Later calls embed only what is new, or has changed. The exit code is 1 if a
    photo cannot be used.

    For example:

    ```
    visiongate search "a red car" photos
    visiongate search --photo car.jpg photos --top 50 --html found.html
    ```
    """
    *words, folder = words_and_folder
    _check_question(words, photo, folder)
    check_html(html)
    with photos.client() as client:
        found = photos.index(client, folder, index, model)
        with waiting("waiting for the server's answer"):
            if photo is not None:
                [question] = client.embed_images([photo.image], model=model)
            else:
                [question] = client.embed_texts(words, truncate=truncate, model=model)
    from visiongate.folders.neighbours import nearest  # noqa: PLC0415

    hits = []
    # Without photos the vectors have no length.
    if found.ids:
        rows, scores = nearest(found.vectors, question, top, min_score)
        hits = list(zip(rows.tolist(), scores.tolist(), strict=True))
    report(
        [{"photo": found.ids[row], "similarity": round(score, 6)} for row, score in hits],
        ("photo", "similarity"),
        [(found.ids[row], f"{score:.3f}") for row, score in hits],
        as_json,
        "No photo is so similar. A lower --min-score finds more." if found.ids else NO_PHOTOS,
    )
    if html is not None:
        from visiongate.folders.page import Section, Tile  # noqa: PLC0415

        readers = found.readers(row for row, _ in hits)
        tiles = [Tile(picture(readers, row), found.ids[row], badge=f"{score:.3f}") for row, score in hits]
        asked = []
        if photo is not None and not isinstance(photo.image, str):
            asked = [Section("Searched for", "", [Tile(photo.image, photo.name)])]
        what = words[0] if photo is None else f"like {photo.name}"
        title = f"{what}: {folder}"
        note = f"{len(hits):,} of {counted(len(found.ids), 'photo')}, the most similar first."
        write_html(html, title, [*asked, Section("Found" if asked else "", note, tiles)])
    end_with_failed(found.failed)


def _check_question(words: list[str], photo: Photo | None, folder: str) -> None:
    """Raise CommandError unless there are words or a photo, not both."""
    refuse_photos(
        words,
        "word",
        "to search for photos like it, put --photo before it; to search in several files, put a pattern in "
        "quotes, such as 'photos/*.jpg'",
    )
    if photo is not None and words:
        raise CommandError("give words or --photo, not both")
    if photo is None and not words:
        raise CommandError('give what to search for and where, such as "a red car" photos; or --photo')
    if len(words) > 1:
        raise CommandError(f'put the words in quotes: "{" ".join(words)}"; the last argument is the folder')
    if words and os.path.isdir(words[0]) and not os.path.exists(folder):
        raise CommandError(f"{words[0]} is a folder, and comes last: first say what its photos show")
