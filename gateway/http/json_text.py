"""JSON texts, read strictly, and without stopping the event loop.

Images come as base64 of many megabytes. To parse a text that has them would hold the interpreter's lock for a
tenth of a second. So long strings are cut out first, and what is left is small. Who knows what a string is
for then reads it: as base64, in pieces, or as text.
"""

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pybase64

from gateway.errors import InvalidArgumentError
from gateway.message_structure import MAX_STRUCTURE_BYTES

MIN_CUT_BYTES = 1024
"""Strings of so many bytes are cut out."""
PIECE_BYTES = 1 << 20
"""Work on so many bytes stops the event loop for a millisecond or so."""
_STEPS = 5_000
"""So many short strings, too."""

_QUOTE, _BACKSLASH = b'"', 0x5C
# Stands for a string that was cut out. No caller can guess it.
_MARK = f"\x7f{secrets.token_hex(8)}:"

Tree = Any
"""What JSON stands for: dict, list, str, `Cut`, int, float, bool, None."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A long string, as it stands in the text between its quotes."""

    raw: memoryview

    def text(self) -> str:
        """Return it as text; raise ValueError if it is none."""
        value: str = json.loads(b'"%b"' % bytes(self.raw))
        return value


async def parse(text: bytes) -> Tree:
    """Return what a JSON text stands for; raise InvalidArgumentError if it is not one, or ambiguous.

    Raises it, too, if what is not inside long strings is more than MAX_STRUCTURE_BYTES.
    """
    skeleton, cuts = await _cut(text)
    try:
        tree = json.loads(
            skeleton.decode(), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=float
        )
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
    return _restore(tree, cuts) if cuts else tree


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


async def _cut(text: bytes) -> tuple[bytes, Sequence[Cut]]:
    """Return the text with marks in place of its long strings, and these."""
    view = memoryview(text)
    parts: list[bytes] = []
    cuts: list[Cut] = []
    kept = position = steps = cut_bytes = 0
    while (opening := text.find(_QUOTE, position)) >= 0:
        steps += 1
        closing = text.find(_QUOTE, opening + 1)
        while closing > 0 and _is_escaped(text, closing):
            steps += 1
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


def _is_escaped(text: bytes, position: int) -> bool:
    """Return whether an odd number of backslashes is before a position."""
    before = position
    while before and text[before - 1] == _BACKSLASH:
        before -= 1
    return (position - before) % 2 == 1


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
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"has the field {twice[:64]!r} twice")
    try:
        "".join(result).encode()
    except UnicodeEncodeError:
        raise _RefusedError("has a field whose name has half a character: a surrogate by itself") from None
    return result


def _refuse_constant(name: str) -> Tree:
    raise _RefusedError(f"has the number {name}, which JSON does not know")
