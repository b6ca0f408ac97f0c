"""JSON texts, read strictly, and without stopping the event loop.

Images come as base64 of many megabytes. To parse a text that has them would hold the interpreter's lock for a
tenth of a second. So long strings are cut out first, and what is left is small. Who knows what a string is
for then reads it: as base64, in pieces, or as text.
"""

import asyncio
import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pybase64

from gateway.errors import InvalidArgumentError
from gateway.message_structure import MAX_STRUCTURE_BYTES

MAX_SHOWN = 64
"""Most characters of a made-up name that an error shows."""
MIN_CUT_BYTES = 1024
"""Strings of so many bytes are cut out."""
PIECE_BYTES = 1 << 20
"""Work on so many bytes stops the event loop for a millisecond or so."""
_STEPS = 5_000
"""So many short strings, too."""
_FEW_BYTES = 16 << 10
"""A text of so many is parsed within a millisecond or two."""
_SHORT_RUN = 64

MAX_GROWTH = 50
"""How many times its bytes a tree takes at the worst, its message included: 45 were measured."""

_QUOTE, _BACKSLASH = b'"', 0x5C
_PLAIN_NAME = re.compile(r"[\w.\-]+", re.ASCII)
# Stands for a string that was cut out. No caller can guess it.
_MARK = f"\x7f{secrets.token_hex(8)}:"

Count = Callable[[int], None]
"""Counts bytes of memory that will be taken. May raise an error of its own."""
Tree = Any
"""What JSON stands for: dict, list, str, `Cut`, int, float, bool, None."""


def uncounted(size: int) -> None:
    """Count nothing."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A long string, as it stands in the text between its quotes."""

    raw: memoryview

    def text(self) -> str:
        """Return it as text; raise ValueError if it is none."""
        value: str = json.loads(b'"%b"' % bytes(self.raw))
        return value


async def parse(text: bytes, count: Count = uncounted) -> Tree:
    """Return what a JSON text stands for; raise InvalidArgumentError if it is not one, or ambiguous.

    Raises it, too, if what is not inside long strings is more than MAX_STRUCTURE_BYTES. `count` gets to know
    how much memory the tree may take.
    """
    skeleton, cuts = await _cut(text)
    count(MAX_GROWTH * len(skeleton))
    try:
        if len(skeleton) > _FEW_BYTES:
            # Between objects, Python's lock is free for the event loop.
            return await asyncio.to_thread(_load, skeleton, cuts)
        return _load(skeleton, cuts)
    except _RefusedError as error:
        raise InvalidArgumentError("request", str(error)) from None
    except RecursionError:
        raise InvalidArgumentError("request", "is nested too deeply") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}" if not cuts else "after a long string"
        raise InvalidArgumentError("request", f"is not JSON: {error.msg} ({position})") from None
    except UnicodeDecodeError:
        raise InvalidArgumentError("request", "is not JSON: it is not UTF-8") from None
    except ValueError:  # of a number with thousands of digits
        raise InvalidArgumentError("request", "has a number that is too long") from None


def shown(name: str) -> str:
    """Return a name that a caller made up, as an error and its line in the log may have it."""
    return (name if _PLAIN_NAME.fullmatch(name) else ascii(name[:MAX_SHOWN]))[:MAX_SHOWN]


async def decode_base64(value: "str | Cut", field: str) -> bytes:
    """Return the bytes of a base64 string: standard or URL-safe, padded or not, or a `data:` URI of such.

    Raises InvalidArgumentError.
    """
    raw = memoryview(value.encode("utf-8", "replace")) if isinstance(value, str) else value.raw
    start = 0
    if bytes(raw[:5]).lower() == b"data:":
        head = bytes(raw[:256]).partition(b",")[0]
        if not head.lower().endswith(b";base64"):
            raise InvalidArgumentError(field, "is a data: URI without ;base64")
        start = len(head) + 1
    decoded, carry = [], b""
    for position in range(start, len(raw), PIECE_BYTES):
        if position > start:
            await asyncio.sleep(0)
        is_last = position + PIECE_BYTES >= len(raw)
        piece = carry + bytes(raw[position : position + PIECE_BYTES])
        carry = b""
        if isinstance(value, Cut) and _BACKSLASH in piece:
            # JSON's writers may put a backslash before a slash. The pair must not be torn.
            carry = b"\\" if not is_last and piece.endswith(b"\\") else b""
            piece = piece[: len(piece) - len(carry)].replace(b"\\/", b"/")
        rest = 0 if is_last else len(piece) % 4
        carry = piece[len(piece) - rest :] + carry
        piece = piece[: len(piece) - rest]
        if is_last:
            piece += b"=" * (-len(piece) % 4)
        elif b"=" in piece[-2:]:
            raise InvalidArgumentError(field, "is not base64")
        try:
            decoded.append(pybase64.b64decode(piece.translate(_STANDARD), validate=True))
        except ValueError:
            words = "is not base64: it must have no line breaks, spaces or other characters"
            raise InvalidArgumentError(field, words) from None
    return decoded[0] if len(decoded) == 1 else b"".join(decoded)


_STANDARD = bytes.maketrans(b"-_", b"+/")


def _load(skeleton: bytes, cuts: Sequence[Cut]) -> Tree:
    tree = json.loads(
        skeleton.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=float
    )
    return _restore(tree, cuts) if cuts else tree


async def _cut(text: bytes) -> tuple[bytes, Sequence[Cut]]:
    """Return the text with marks in place of its long strings, and these."""
    view = memoryview(text)
    parts: list[bytes] = []
    cuts: list[Cut] = []
    kept = position = steps = cut_bytes = escaped_quotes = 0
    while (opening := text.find(_QUOTE, position)) >= 0:
        steps += 1
        closing = text.find(_QUOTE, opening + 1)
        while closing > 0 and await _is_escaped(text, closing):
            escaped_quotes += 1
            if escaped_quotes % _STEPS == 0:
                # They are structure: only texts have any.
                _check_structure(escaped_quotes)
                await asyncio.sleep(0)
            closing = text.find(_QUOTE, closing + 1)
        if closing < 0:
            break
        position = closing + 1
        if closing - opening > MIN_CUT_BYTES:
            parts += (bytes(view[kept : opening + 1]), f"{_MARK}{len(cuts)}".encode())
            cuts.append(Cut(view[opening + 1 : closing]))
            cut_bytes += closing - opening
            kept = closing
            await asyncio.sleep(0)
        if steps > _STEPS:
            steps = 0
            _check_structure(position - cut_bytes)
            await asyncio.sleep(0)
    _check_structure(len(text) - cut_bytes)
    return b"".join([*parts, bytes(view[kept:])]), cuts


def _check_structure(size: int) -> None:
    if size > MAX_STRUCTURE_BYTES:
        raise InvalidArgumentError(
            "request",
            f"has over {MAX_STRUCTURE_BYTES} bytes beside the contents of images and masks, the limit",
        )


async def _is_escaped(text: bytes, position: int) -> bool:
    """Return whether an odd number of backslashes is before a position."""
    if text[position - 1] != _BACKSLASH:
        return False
    count, size = 0, _SHORT_RUN
    while block := text[max(0, position - count - size) : position - count]:
        run = len(block) - len(block.rstrip(b"\\"))
        count += run
        if run < len(block):
            break
        size = PIECE_BYTES
        await asyncio.sleep(0)
    return count % 2 == 1


def _restore(tree: Tree, cuts: Sequence[Cut]) -> Tree:
    """Put what was cut out back in place of the marks."""
    if isinstance(tree, str):
        return cuts[int(tree.removeprefix(_MARK))] if tree.startswith(_MARK) else tree
    if isinstance(tree, dict):
        if any(name.startswith(_MARK) for name in tree):
            raise InvalidArgumentError("request", "has a field whose name is very long")
        return {name: _restore(value, cuts) for name, value in tree.items()}
    return [_restore(value, cuts) for value in tree] if isinstance(tree, list) else tree


class _RefusedError(Exception):
    """What JSON's own rules leave open, and what is not taken here."""


def _object(pairs: list[tuple[str, Tree]]) -> Tree:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _RefusedError(f"has the field {shown(counts.most_common(1)[0][0])} twice")
    try:
        "".join(result).encode()
    except UnicodeEncodeError:
        raise _RefusedError("has a field whose name has half a character: a surrogate by itself") from None
    return result


def _refuse_constant(name: str) -> Tree:
    raise _RefusedError(f"has the number {name}, which JSON does not know")
