"""The sources of what a user names: which kind each is, and what its ids are relative to."""

import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from braceexpand import braceexpand

from visiongate.batch.extra import needs
from visiongate.batch.filesystem import is_url, scheme_of
from visiongate.batch.inputs import endings, patterns
from visiongate.batch.inputs.archives import Archive
from visiongate.batch.inputs.chain import Chain
from visiongate.batch.inputs.folder import Folder, OneFile, Tree, as_id
from visiongate.batch.inputs.lists import Lines, ListFile, standard_input
from visiongate.batch.inputs.places import Place, place_of
from visiongate.batch.inputs.tables import Table
from visiongate.batch.inputs.web import SCHEMES
from visiongate.batch.item import Source

STANDARD_INPUT = "-"
# What is neither a file here nor a folder of a bucket: https://.
_ADDRESS = "address"


def open_source(
    texts: Sequence[str],
    *,
    column: str = "",
    id_column: str = "",
    every_nth: int = 1,
    all_files: bool = False,
    kind: str = "",
) -> Source:
    """Return the inputs that texts name, one text after another.

    A text is a folder, a pattern such as `photos/**/*.jpg`, an image file, a list (.txt: a path or address a
    line), a table (.csv, .tsv, .jsonl, .parquet), a WebDataset archive (.tar, also `{000..099}.tar`), a
    video, or `-`, for a list from standard input; here, or at an address such as s3://bucket/folder. A folder
    that a pattern matches is taken with all that is in it, as by a shell.

    column, id_column: of tables, what holds the images, or where they are, and their ids. every_nth: of
    videos, which frames are taken. all_files: take the files of folders that are no images by their names
    too. kind: one of `KINDS`, for inputs whose names do not say it; of a folder, which files are taken.

    Ids are relative to the folder; with several texts, to the folder that all are in.

    Raises ValueError or OSError, whose text is a sentence, for what is not there or cannot be read. Whether
    there are any inputs at all is only known when they are iterated.
    """
    if not texts:
        raise ValueError("give the images: a folder, a pattern, a list, a table, an archive or a video")
    if kind and kind not in endings.KINDS:
        raise ValueError(f"there is no kind of input {kind!r}; there are {', '.join(endings.KINDS)}")
    if every_nth < 1:
        raise ValueError(f"every n-th frame: n is 1 or more, not {every_nth}")
    if texts.count(STANDARD_INPUT) > 1:
        raise ValueError(f"{STANDARD_INPUT} is given twice, but standard input can be read once")
    options = _Options(column, id_column, every_nth, all_files)
    named = [found for text in texts for found in _named(text, kind)]
    _check_options(named, options)
    prefixes = _prefixes(named)
    sources = [_source(one, prefixes(one), options) for one in named]
    source = (
        sources[0] if len(sources) == 1 else Chain(lambda: sources, ", ".join(one.name for one in sources))
    )
    # It is written to files.
    source.name = as_id(source.name)
    return source


@dataclass(frozen=True, slots=True)
class _Options:
    column: str
    id_column: str
    every_nth: int
    all_files: bool


@dataclass(frozen=True, slots=True)
class _Named:
    """What a text names. root: the folder that ids are relative to; parts: the pattern below it, if any."""

    text: str
    kind: str
    place: Place
    path: str
    root: str
    parts: list[str] = field(default_factory=list)


def _check_options(named: Sequence[_Named], options: _Options) -> None:
    """Raise ValueError for an option that says something of no input, which would be taken for done."""
    kinds = {one.kind for one in named}
    of_tables = [name for name in ("column", "id_column") if getattr(options, name)]
    if of_tables and not kinds & set(endings.TABLES):
        raise ValueError(f"{of_tables[0]} is of tables ({', '.join(endings.TABLES)}), and no input is one")
    if options.every_nth > 1 and "video" not in kinds:
        raise ValueError("every_nth is of videos, and no input is one; of a folder, kind video takes them")
    if options.all_files and not any(one.parts or one.kind == "tar" for one in named):
        raise ValueError("all_files is of folders and archives, and no input is one")


def _named(text: str, kind: str) -> list[_Named]:
    """Return what a text names: several, if it has braces."""
    if not text:
        raise ValueError("the name of an input is empty")
    if text == STANDARD_INPUT or scheme_of(text) in SCHEMES:
        place, folder = place_of(os.curdir)
        return [_Named(text, STANDARD_INPUT if text == STANDARD_INPUT else _ADDRESS, place, text, folder)]
    place, path = place_of(text)
    what = place.kind(path)
    if what == "folder":
        return [_Named(text, kind or "images", place, path, path, [patterns.ANY_DEPTH])]
    kind_here = kind or endings.kind_of(text)
    if what == "file":
        return [_Named(text, kind_here, place, path, posixpath.dirname(path))]
    if "{" in text and (several := _braces(text)) != [text]:
        return [found for one in several for found in _named_by_pattern(one, kind)]
    if patterns.has_magic(path):
        return _named_by_pattern(text, kind)
    where = "" if is_url(text) or os.path.isabs(text) else f" in {os.getcwd()}"
    hint = f"; for all that begins so, {text}*" if is_url(text) else ""
    raise FileNotFoundError(f"there is no file or folder {text}{where}{hint}")


def _named_by_pattern(text: str, kind: str) -> list[_Named]:
    """Return what a text names that may be a pattern, or one of what braces stand for."""
    place, path = place_of(text)
    root, parts = patterns.split(path)
    if parts:
        return [_Named(text, kind or endings.kind_of(text), place, path, root, parts)]
    # Of many archives, one that is missing is found when its turn comes.
    return [_Named(text, kind or endings.kind_of(text), place, path, posixpath.dirname(path))]


def _braces(text: str) -> list[str]:
    try:
        return list(braceexpand(text))
    except ValueError:
        # Such as a brace that is not closed: a part of the name.
        return [text]


def _prefixes(named: Sequence[_Named]) -> Callable[[_Named], str]:
    """Return what gives the prefix of ids, so that they are relative to the folder that all inputs are in."""
    # Lists call their images themselves.
    roots = {(one.place.key, one.root) for one in named if one.kind not in (STANDARD_INPUT, _ADDRESS)}
    if not roots:
        return lambda _: ""
    if len({key for key, _ in roots}) == 1:
        common = posixpath.commonpath([root for _, root in roots])
        return lambda one: _relative(one.root, common)
    # On different machines: by whole addresses.
    return lambda one: one.place.address(one.root).rstrip("/") + "/"


def _relative(folder: str, common: str) -> str:
    return "" if folder == common else posixpath.relpath(folder, common) + "/"


def _source(named: _Named, prefix: str, options: _Options) -> Source:
    if named.kind == STANDARD_INPUT:
        return standard_input()
    if named.kind == _ADDRESS:
        return Lines([os.fsencode(named.text)], named.text)
    if not named.parts:
        return _file(named, named.path, prefix + posixpath.basename(named.path), "", options)
    if named.kind == "images":
        return _folder(named, prefix, options)
    return _files(named, prefix, options)


def _files(named: _Named, prefix: str, options: _Options) -> Source:
    """Return the files of a kind in a folder or of a pattern, each of which is a source."""
    pattern = patterns.Pattern(named.parts)
    # Who gives both a pattern and a kind means all that the pattern matches.
    by_ending = named.parts == [patterns.ANY_DEPTH] or named.kind == endings.kind_of(named.text)

    def is_wanted(name: str) -> bool:
        return not by_ending or endings.kind_of(name) == named.kind

    def sources() -> Iterator[Source]:
        tree = Tree(named.place, named.root, is_wanted, pattern)
        for path, relative, version, error in tree:
            if error is not None:
                raise error
            yield _file(named, path, prefix + relative, version, options)

    # A column that is missing is told at once.
    next(sources(), None)
    chosen = [
        *([f"column {options.column}"] if options.column else []),
        *([f"ids {options.id_column}"] if options.id_column else []),
        *([f"every {options.every_nth}th frame"] if options.every_nth > 1 else []),
    ]
    name = _address(named)
    return Chain(sources, f"{name} ({', '.join(chosen)})" if chosen else name)


def _address(named: _Named) -> str:
    parts = [] if named.parts == [patterns.ANY_DEPTH] else named.parts
    return named.place.address("/".join([named.root.rstrip("/") if parts else named.root, *parts]))


def _folder(named: _Named, prefix: str, options: _Options) -> Source:
    """Return the images of a folder or of a pattern. A pattern with an ending of its own wants just that."""
    ending = endings.ending(named.parts[-1])
    everything = options.all_files or (ending and not patterns.has_magic(ending))
    pattern = None if named.parts == [patterns.ANY_DEPTH] else patterns.Pattern(named.parts)
    tree = Tree(named.place, named.root, _anything if everything else _is_image, pattern)
    name = _address(named)
    return Folder(tree, f"{name} (all files)" if options.all_files else name, prefix)


def _anything(name: str) -> bool:
    return True


def _is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in endings.IMAGES


def _file(named: _Named, path: str, id: str, version: str, options: _Options) -> Source:
    """Return the source that a file of a kind is."""
    place, kind = named.place, named.kind
    if kind == "images":
        return OneFile(place, path, id, version)
    if kind == "list":
        return ListFile(place, path)
    if kind in endings.TABLES:
        return Table(place, path, id, kind, column=options.column, id_column=options.id_column)
    if kind == "tar":
        return Archive(place, path, id, version, _anything if options.all_files else _is_image)
    with needs("video"):
        from visiongate.batch.inputs.videos import Video  # noqa: PLC0415 - of an extra of its own
    return Video(place, path, id, version, options.every_nth)
