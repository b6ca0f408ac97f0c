"""Forms to messages: `multipart/form-data`, as curl and browsers send it.

Each part is a field of the request message, by its path (`query.min_score`), or by the last name of that
where no other field has it (`min_score`). Files are images. Parts of lists are repeated.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import InvalidArgumentError
from gateway.http import json_text
from gateway.http.json_reader import add_items, check_choice, read_field
from gateway.message_structure import MAX_STRUCTURE_BYTES
from visiongate.v1 import embedding_service_pb2, image_pb2

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_PARTS = 4096
"""Most parts of a form. The largest list, of texts, has 1024."""
MAX_NUMBER_LENGTH = 64

MAX_PART_HEADER_BYTES = 1024
"""Most bytes of one header of a part. It has the names of a field and of a file."""
_PIECE_BYTES = 32 << 10
"""So much of a form, if it is nothing but small parts, stops the event loop for 20 milliseconds."""
_TURN_S = 0.002
"""After so many seconds other work has its turn."""

# It warns of whatever a caller sends.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

_IMAGE = image_pb2.Image.DESCRIPTOR
_IMAGE_OR_TEXT = embedding_service_pb2.ImageOrText.DESCRIPTOR
# Of an image, what a form can have in place of its file.
_NAMES_OF_IMAGES = ("image_id", "uri")

Path = tuple[FieldDescriptor, ...]
"""Fields from a request message to the one that a part of a form stands for."""


@dataclass(slots=True)
class Part:
    """A part of a form, as it was sent."""

    name: str
    is_file: bool
    pieces: list[bytes] = field(default_factory=list)

    @property
    def content(self) -> bytes:
        """Return what is in it. Joined once: a buffer that grows would be copied again and again."""
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0] if self.pieces else b""


async def read_form(
    chunks: AsyncIterator[bytes],
    content_type: str,
    message: Message,
    count: json_text.Count = json_text.uncounted,
) -> None:
    """Fill an empty message with what a form says; raise InvalidArgumentError.

    `count` gets to know how much memory is taken beside the form itself.
    """
    known = form_fields(message.DESCRIPTOR)
    seen: set[Path] = set()
    async for part in _parts(chunks, content_type):
        path = known.get(part.name)
        if path is None:
            names = ", ".join(shortest_names(message.DESCRIPTOR)) or "no fields"
            raise InvalidArgumentError(json_text.shown(part.name), f"is not a field; there are {names}")
        if path in seen and not path[-1].is_repeated:
            raise InvalidArgumentError(part.name, "is there twice")
        seen.add(path)
        inner = message
        for above in path[:-1]:
            check_choice(inner, above, part.name)
            inner = getattr(inner, above.name)
            inner.SetInParent()
        await _set(inner, path[-1], part, count)


@cache
def form_fields(kind: Descriptor) -> dict[str, Path]:
    """Return the fields of a request that a form can have, by each name that a part may have for it."""
    named = [(_words(path), path) for path in _paths(kind)]
    counts = Counter(words[-1] for words, _ in named)
    fields = {words[-1]: path for words, path in named if counts[words[-1]] == 1}
    fields |= {".".join(each.name for each in path): path for _, path in named}
    return fields | {".".join(words): path for words, path in named}


@cache
def shortest_names(kind: Descriptor) -> dict[str, Path]:
    """Return the fields that a form can have, each by the shortest of its names."""
    names: dict[Path, str] = {}
    for name, path in form_fields(kind).items():
        if path not in names or len(name) < len(names[path]):
            names[path] = name
    return {name: path for path, name in names.items()}


def is_image(field: FieldDescriptor) -> bool:
    """Return whether a part of a form for this field is the file of an image, or may be one."""
    return field.message_type in (_IMAGE, _IMAGE_OR_TEXT)


def _paths(kind: Descriptor, above: Path = ()) -> Iterator[Path]:
    for each in kind.fields:
        path = (*above, each)
        inner = each.message_type
        if inner is None or each.is_repeated or inner == _IMAGE_OR_TEXT:
            yield path
        elif inner == _IMAGE:
            yield path
            yield from ((*path, inner.fields_by_name[name]) for name in _NAMES_OF_IMAGES)
        else:
            yield from _paths(inner, path)


def _words(path: Path) -> tuple[str, ...]:
    """Return the names of a path, without that of a list that is all its message has: phrases.values."""
    names = tuple(each.name for each in path)
    inner = path[-2].message_type if len(path) > 1 else None
    is_whole = inner is not None and path[-1].is_repeated and len(inner.fields) == 1
    return names[:-1] if is_whole else names


async def _set(message: Message, field: FieldDescriptor, part: Part, count: json_text.Count) -> None:
    """Set a field to a part, or add that to its list."""
    if is_image(field):
        target = getattr(message, field.name)
        _set_image(target.add() if field.is_repeated else target, part)
        return
    value = await _value(field, part, count)
    if not field.is_repeated:
        await read_field(value, message, field, part.name)
        return
    values = value if field.message_type and isinstance(value, list) else [value]
    await add_items(values, getattr(message, field.name), field, part.name)


def _set_image(target: Any, part: Part) -> None:
    if target.DESCRIPTOR == _IMAGE_OR_TEXT:
        if not part.is_file:
            target.text = _text(part)
            return
        target = target.image
    if not part.is_file:
        raise InvalidArgumentError(part.name, f"must be a file (curl -F {part.name}=@photo.jpg)")
    if target.WhichOneof("source"):
        raise InvalidArgumentError(part.name, "is one too many: there is the image's file or its name")
    target.encoded = part.content


async def _value(field: FieldDescriptor, part: Part, count: json_text.Count) -> json_text.Tree:
    """Return what a part says, as if JSON had said it."""
    if field.type == FieldDescriptor.TYPE_BYTES and part.is_file:
        raise InvalidArgumentError(part.name, "must be base64")
    if len(part.content) > MAX_STRUCTURE_BYTES:
        raise InvalidArgumentError(part.name, f"has over {MAX_STRUCTURE_BYTES} bytes, the limit")
    text = _text(part)
    if field.message_type:
        try:
            return await json_text.parse(part.content, count)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(part.name, error.message.removeprefix("request: ")) from None
    match field.type:
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_BYTES | FieldDescriptor.TYPE_ENUM:
            return text
        case FieldDescriptor.TYPE_BOOL:
            return {"true": True, "false": False}.get(text, text)
    try:
        return float(text) if len(text) < MAX_NUMBER_LENGTH else text
    except ValueError:
        return text


def _text(part: Part) -> str:
    try:
        return part.content.decode()
    except UnicodeDecodeError:
        raise InvalidArgumentError(part.name, "is not text in UTF-8") from None


class _Collector:
    """Makes parts of what the parser reports."""

    def __init__(self) -> None:
        self.ready: list[Part] = []
        self.has_ended = False
        self._part: Part | None = None
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._count = self._text_bytes = 0

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise InvalidArgumentError("request", f"has over {MAX_PARTS} parts, the limit")
        self._headers = {}

    def _end_header(self) -> None:
        name = bytes(self._header).lower()
        if name in self._headers:
            raise InvalidArgumentError("request", "has a part with two headers of one name")
        self._headers[name] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition"))
        if disposition != b"form-data" or b"name" not in options:
            raise InvalidArgumentError("request", "has a part without content-disposition: form-data; name=…")
        if self._headers.get(b"content-transfer-encoding", b"binary").lower() not in (
            b"binary",
            b"8bit",
            b"7bit",
        ):
            raise InvalidArgumentError("request", "has a part with a content-transfer-encoding")
        self._part = Part(options[b"name"].decode(errors="replace"), b"filename" in options)

    def _add(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if not self._part.is_file:
            self._text_bytes += end - start
            if self._text_bytes > MAX_STRUCTURE_BYTES:
                raise InvalidArgumentError(
                    "request", f"has over {MAX_STRUCTURE_BYTES} bytes beside its files, the limit"
                )
        self._part.pieces.append(data[start:end])

    def _end_part(self) -> None:
        assert self._part is not None
        self.ready.append(self._part)
        self._part = None

    def _end(self) -> None:
        self.has_ended = True


async def _parts(chunks: AsyncIterator[bytes], content_type: str) -> AsyncIterator[Part]:
    """Yield the parts of a form as they arrive. A file that nobody chose in a browser is left out."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046
        raise InvalidArgumentError("content-type", "has no boundary, or one of over 70 characters")
    collector = _Collector()
    parser = MultipartParser(boundary, collector.callbacks(), max_header_size=MAX_PART_HEADER_BYTES)
    async for chunk in chunks:
        turn_s = time.perf_counter()
        for start in range(0, len(chunk), _PIECE_BYTES):
            try:
                parser.write(chunk[start : start + _PIECE_BYTES])
            except FormParserError:
                raise InvalidArgumentError(
                    "request", "is not a form: its parts are not as they should be"
                ) from None
            for part in collector.ready:
                if part.content or not part.is_file:
                    yield part
            collector.ready.clear()
            if time.perf_counter() > turn_s + _TURN_S:
                await asyncio.sleep(0)
                turn_s = time.perf_counter()
    if not collector.has_ended:
        raise InvalidArgumentError("request", "is not a form, or only a part of one: its last boundary lacks")
