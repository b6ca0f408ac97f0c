"""JSON texts: what is cut out of them is the same as what the whole text says."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidArgumentError
from gateway.http import json_text
from gateway.http.json_text import MAX_GROWTH, MAX_SHOWN, Cut, decode_base64, parse, shown
from gateway.message_structure import MAX_STRUCTURE_BYTES

LONG = "x" * (json_text.MIN_CUT_BYTES + 1)


def plain(tree: Any) -> Any:
    """Return a tree in which long strings are texts again."""
    if isinstance(tree, Cut):
        return tree.text()
    if isinstance(tree, dict):
        return {name: plain(value) for name, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    [LONG, LONG + '"\\', "\\" * 1500, '"' * 700, "/" * 2000, "é" * 800, LONG + "\n\u2028"]
)
trees = st.recursive(
    texts
    | st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(trees, st.booleans())
async def test_it_says_what_json_says(tree: Any, is_ascii: bool) -> None:
    text = json.dumps(tree, ensure_ascii=is_ascii).encode()
    assert plain(await parse(text)) == tree


async def test_long_strings_are_cut_out() -> None:
    tree = await parse(json.dumps({"a": LONG, "b": LONG[2:], "c": [LONG]}).encode())
    assert isinstance(tree["a"], Cut)
    assert isinstance(tree["c"][0], Cut)
    assert tree["b"] == LONG[2:]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'{"a": 1} 2', "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b'{"a": NaN}', "has the number NaN, which JSON does not know"),
        (b'{"a": -Infinity}', "has the number -Infinity"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "has the field c twice"),
        (b'{"a": {"\\ud800": 1}}', "has a field whose name has half a character"),
        (b"\xff", "it is not UTF-8"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 50_000, "is nested too deeply"),
        (b"9" * 5000, "has a number that is too long"),
        (b'{"\\ud800": 1, "\\ud800": 2}', r"has the field '\\ud800' twice"),
        (b"[" * 500 + b'"' + LONG.encode() + b'"' + b"]" * 500, "is nested too deeply"),
        (
            b'["' + b'\\"' * (MAX_STRUCTURE_BYTES + 5000) + b'"]',
            f"has over {MAX_STRUCTURE_BYTES} bytes beside",
        ),
        (b'{"' + LONG.encode() + b'": 1}', "has a field whose name is very long"),
        (b'"' + LONG.encode(), "is not JSON"),
        (b" " * (MAX_STRUCTURE_BYTES + 1), f"has over {MAX_STRUCTURE_BYTES} bytes beside"),
        (b'"",' * MAX_STRUCTURE_BYTES, f"has over {MAX_STRUCTURE_BYTES} bytes beside"),
        (b'"' + b'\\"' * MAX_STRUCTURE_BYTES, "is not JSON|has over"),
    ],
)
async def test_what_is_not_json(text: bytes, says: str) -> None:
    with pytest.raises(InvalidArgumentError, match=says):
        await parse(text)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000, 3 << 20, (3 << 20) + 1, (5 << 20) + 2])
@pytest.mark.parametrize("kind", ["standard", "url", "unpadded", "slashes", "uri"])
async def test_base64(size: int, kind: str) -> None:
    """Of every length, written in every way: pieces are never torn in the wrong place."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    text = (base64.urlsafe_b64encode if kind == "url" else base64.b64encode)(data).decode()
    if kind == "unpadded":
        text = text.rstrip("=")
    if kind == "uri":
        text = f"data:image/png;base64,{text}"
    written = json.dumps(text)
    if kind == "slashes":
        written = written.replace("/", "\\/")
    assert await decode_base64(await parse(written.encode()), "image") == data


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "ab=c",
        "a b c d ",
        "abcd\n",
        "ab==" * 1000,
        "é" * 2000,
        "=" * 8,
        "data:image/png,abc",
        "data:;base64,*",
        "A" * (json_text.PIECE_BYTES - 1) + "=" + "A" * json_text.PIECE_BYTES,
        "A" * (2 << 20) + "\\\\",
    ],
)
async def test_what_is_not_base64(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^image: is "):
        await decode_base64(await parse(json.dumps(text).encode()), "image")


async def test_structure_is_counted_and_long_strings_are_not() -> None:
    counted: list[int] = []
    text = json.dumps({"a": LONG * 100, "b": [1] * 1000})
    await parse(text.encode(), counted.append)
    assert MAX_GROWTH * 3000 < sum(counted) < MAX_GROWTH * 4000


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 1_000_000, 3 << 20])
async def test_backslashes_before_a_quote(count: int) -> None:
    text = b'{"a": "' + b"\\" * count + b'" }'
    if count % 2:
        with pytest.raises(InvalidArgumentError, match="is not JSON"):
            await parse(text)
    else:
        assert plain(await parse(text)) == {"a": "\\" * (count // 2)}


@pytest.mark.parametrize(
    ("name", "shows"),
    [
        ("min_score", "min_score"),
        ("query.min_score", "query.min_score"),
        ("", "''"),
        ("a code=OK", "'a code=OK'"),
        ("a\nb\0\x1b[31m", r"'a\nb\x00\x1b[31m'"),
        ("\ud800", r"'\ud800'"),
        ("n" * 100, "n" * MAX_SHOWN),
        ("é" * 100, r"'" + (r"\xe9" * 100)[: MAX_SHOWN - 1]),
    ],
)
def test_names_that_callers_make_up(name: str, shows: str) -> None:
    assert shown(name) == shows
