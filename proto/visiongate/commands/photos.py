"""The photos that commands take, and the pictures of answers that they write."""

import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import typer
from PIL import Image

from visiongate import draw
from visiongate.command_error import CommandError
from visiongate.commands.common import note

STANDARD_INPUT = "-"
# At least two letters: a single one is a Windows drive.
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# Formats that a server may read, beside those that Pillow reads here.
PHOTO_ENDINGS = frozenset({".heic", ".heif", ".avif"})


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as the user named it, and as the client takes it: a path, a file's bytes, or a URI."""

    name: str
    image: Path | bytes | str

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the photo of an argument. Raise CommandError if there is no such file."""
        if name == STANDARD_INPUT:
            return cls(name, _standard_input())
        # By os.path, because Path raises an error for a long URI.
        if os.path.isdir(name):
            raise CommandError(f"{name} is a folder: name the photos in it, such as {name}/*.jpg")
        if not os.path.exists(name):
            if URI.match(name):
                return cls(name, name)
            raise CommandError(_missing(name))
        if not os.access(name, os.R_OK):
            raise CommandError(f"{name} may not be read by this user")
        path = Path(name)
        # A file that is not regular, such as a pipe, can be read only once.
        return cls(name, path if path.is_file() else path.read_bytes())

    def opened(self) -> Image.Image:
        """Return the photo to draw on."""
        assert not isinstance(self.image, str)
        with Image.open(io.BytesIO(self.image) if isinstance(self.image, bytes) else self.image) as image:
            image.load()
            return image


PHOTO_HELP = "An image file, - for standard input, or an https:// address that the server may fetch from."
PhotoArgument = Annotated[Photo, typer.Argument(parser=Photo.named, metavar="PHOTO", help=PHOTO_HELP)]
Save = Annotated[
    Path | None,
    typer.Option(help="Draw the answer on the photo and write that here: out.png.", metavar="FILE"),
]


class Picture:
    """The picture of an answer, if --save asks for one.

    This object is made before the server is asked, and raises CommandError at once if the picture could not
    be written.
    """

    def __init__(self, photo: Photo, path: Path | None) -> None:
        self._photo = photo
        self._path = path
        if path is None:
            return
        if isinstance(photo.image, str):
            raise CommandError(
                f"--save draws on the photo, and only the server fetches {photo.name}: download it, and give "
                "the file"
            )
        try:
            draw.check_writable(path)
        except ValueError as error:
            raise CommandError(f"--save: {error}") from error
        check_output("--save", path, [photo])

    def draw(self, items: Iterable[draw.Item]) -> None:
        """Draw the items, the first on top, and write the picture. Without --save do nothing."""
        if self._path is None:
            return
        draw.draw(self._photo.opened(), list(items)).save(self._path)
        note(f"wrote {self._path}")


def check_output(option: str, path: Path, photos: Sequence[Photo]) -> None:
    """Make the folder of a file that a command will write. Raise CommandError if it cannot be written."""
    for photo in photos:
        if isinstance(photo.image, Path) and path.exists() and path.samefile(photo.image):
            raise CommandError(f"{option} {path} would overwrite the photo: give another name")
    with writing(option, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        # Appending nothing changes no file, and finds causes that permissions do not show.
        path.open("ab").close()
        if is_new:
            path.unlink()


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Raise CommandError for the system's errors inside: that of a full disk names no file by itself."""
    try:
        yield
    except OSError as error:
        # Those of our own are sentences, about another file.
        if error.errno is None:
            raise
        raise CommandError(f"{option} {path} cannot be written: {error.strerror}") from error


def refuse_photos(words: Iterable[str], kind: str, advice: str) -> None:
    """Raise CommandError for the first word that is an image file here."""
    for word in words:
        ending = os.path.splitext(word)[1].lower()
        is_photo = ending in PHOTO_ENDINGS or ending in Image.registered_extensions()
        if is_photo and os.path.isfile(word):
            raise CommandError(f"{word} is a file here, and is read as a {kind}: {advice}")


def one_at_a_time(command: str) -> str:
    """Return advice for users who give several photos to a command that takes one."""
    return f"one photo a call; for several, in a shell: for photo in *.jpg; do {command}; done"


def _standard_input() -> bytes:
    if sys.stdin.isatty():
        raise CommandError("- reads a photo from standard input, which is this terminal: send a file there")
    data = sys.stdin.buffer.read()
    if not data:
        raise CommandError("standard input, where - reads a photo, is empty; it can be read once")
    return data


def _missing(name: str) -> str:
    if re.search(r"[*?\[]", name):
        return f"no file matches {name} (in {Path.cwd()})"
    return f"there is no file {name} (in {Path.cwd()})"
